"""Checkpoints: files that describe themselves. PyTorch's are read by pytorch.py.

Arrays have the key names of the MLX example, on which this toolkit is based, so `.npz` files work in both. Everything
else (the model's configuration, data set, options, test metrics) is a dictionary of facts: JSON in the comment of the
zip archive, or in the metadata of a `.safetensors` file. The arrays of a prior that was fitted after
training are `sampler.*`; `convert.py --plain` leaves them out for strict readers. Third-party files have no
facts; their configuration is inferred from the shapes of their arrays. Nothing is unpickled.

A file is read in two steps: first names and shapes, then, if they match a model, the values. So an oversized file is
rejected before it uses memory.
"""

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import mlx.core as mx
import mlx.optimizers
import numpy as np
from mlx.utils import tree_flatten

from toolkit.architectures import build, config_of
from toolkit.errors import UserError
from toolkit.files import reading
from toolkit.files.reading import check_directory, opened, unpacked
from toolkit.files.records import Scalars, Whole, check, record
from toolkit.files.writing import reason, write
from toolkit.formats import hub, pytorch
from toolkit.formats.recognise import recognise
from toolkit.model.mixture import Mixture
from toolkit.model.priors import Flow
from vae import VAE

ENDINGS = (".npz", ".safetensors")  # that are written
STRAY_KEYS = {"encoder.kl_div"}  # in published files of this family
MARK = b"vae "  # prefix of the comment in our files
FACTS_KEY = "vae_facts"  # in the metadata of .safetensors
COMMENT = 2**16 - 1  # limit of a comment, in bytes
LARGEST_HEADER = 2**22  # bytes of names, shapes and metadata
LARGEST_TORCH = 2**28  # bytes of a .pth file, whose values are read before the model is known
OPTIMIZER, SAMPLER = "optimizer.", "sampler."  # prefixes of their arrays
MOST_OF_OPTIMIZER = 3  # values of an optimizer per parameter, at most
MOST_ENTRIES = 8000  # arrays in a file; the state of the deepest model has 6,500


class Facts(TypedDict, total=False):
    """The metadata of a file that this toolkit reads."""

    config: Scalars
    dataset: str
    class_names: list[str]
    likelihood: str  # of a third-party file without configuration
    collapsed: bool
    epoch: Whole
    step: Whole  # of a run, since it was first counted
    options: Scalars
    test: Scalars
    device: str
    minutes: float  # for which it was begun
    folder: Whole  # the inode of a run's picture folder


class Plateau(TypedDict, total=False):
    lowest: float | None
    stalled: Whole
    halvings: Whole


class Memory(Facts):
    """The metadata of a training state."""

    epoch: Whole
    options: Scalars
    images: tuple[Whole, Whole]  # of train and test
    best: float | None
    plateau: Plateau


@dataclass
class Checkpoint:
    """A model and its metadata."""

    model: VAE
    dataset: str | None = None  # training data, without a path
    class_names: tuple[str, ...] = ()  # of a class-conditional model, one for each class
    epoch: int | None = None  # epochs of training
    collapsed: bool = False
    options: dict[str, Any] = field(default_factory=dict)  # of its training
    test: dict[str, Any] = field(default_factory=dict)  # metrics per image
    sampler: Mixture | Flow | None = None  # prior for sampling, fitted after training

    def __post_init__(self):
        classes = self.model.config.num_classes
        self.class_names = tuple(self.class_names) or tuple(map(str, range(classes)))
        if len(self.class_names) != classes:
            raise ValueError(f"it has {classes} classes and names for {len(self.class_names)}")

    @property
    def priors(self) -> list[Any]:
        """The fitted prior, if there is one, and that of the training."""
        return [prior for prior in (self.sampler, self.model.prior) if prior is not None]

    @property
    def prior(self) -> Any:
        """The prior to sample from: the fitted one, or else that of the training."""
        return self.priors[0]

    def facts(self) -> dict[str, Any]:
        """The metadata for its file."""
        facts = {"config": self.model.config.values()}
        facts |= {"collapsed": True} if self.collapsed else {}
        for name in ("dataset", "class_names", "epoch", "options", "test"):
            if (value := getattr(self, name)) not in (None, (), {}):
                facts[name] = value
        return facts


FACTS = {member.name for member in fields(Checkpoint)} - {"model", "sampler"}  # names as in files


class Contents(NamedTuple):
    """A file before its numbers are read."""

    shapes: dict[str, np.ndarray]  # placeholder arrays of the same shapes that take no memory
    facts: dict[str, Any]
    arrays: Callable[[], dict[str, np.ndarray]]  # reads the values


class State(NamedTuple):
    """Everything that resuming a run needs."""

    model: VAE
    optimizer: dict[str, mx.array]  # its arrays, by path
    facts: dict[str, Any]


def model_name(dataset: str, max_filters: int, latent_dims: int) -> str:
    """The name of a model's file, without extension."""
    return f"vae_{dataset}_filters_{max_filters:04d}_dims_{latent_dims:04d}"


def save(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, as `.safetensors` or, for any other extension, as `.npz`."""
    arrays = dict(tree_flatten(checkpoint.model.parameters()))
    if checkpoint.sampler:
        arrays |= {f"{SAMPLER}{name}": mx.array(array) for name, array in checkpoint.sampler.arrays().items()}
    packed = pack_safetensors if Path(path).suffix.lower() == ".safetensors" else pack
    write(path, packed(arrays, checkpoint.facts()), durable=True)


def save_folder(folder: Path | str, checkpoint: Checkpoint, card: str, picture: bytes) -> list[str]:
    """Write a model folder for the Hub; returns the names of its files. An existing card is kept."""
    folder, config = Path(folder), hub.config_text(checkpoint.model.config.values(), checkpoint.class_names)
    written = {hub.CONFIG: config, hub.PICTURE: picture}
    written |= {} if (folder / hub.CARD).exists() else {hub.CARD: card.encode()}
    save(folder / hub.MODEL, checkpoint)
    for name, data in written.items():
        write(folder / name, data)
    return [hub.MODEL, *written]


def load(path: Path | str) -> Checkpoint:
    """Read a checkpoint; its model is ready to use."""
    contents = read(path)
    if any(key.startswith(OPTIMIZER) for key in contents.shapes):
        model = Path(path).resolve().parent.with_suffix(".npz").name
        raise UserError(f"{path} is a training state — the model is {model}, next to its folder")
    parts = {key: shape for key, shape in contents.shapes.items() if not key.startswith(SAMPLER)}
    model = model_of(path, parts, contents.facts)
    with in_one_line(path):
        facts = {name: contents.facts[name] for name in FACTS if name in contents.facts}
        checkpoint, fitted = Checkpoint(model, **facts), contents.shapes.keys() - parts.keys()
        kind = Mixture if f"{SAMPLER}weights" in fitted else Flow
        if fitted:
            kind.of_shapes(without(SAMPLER, contents.shapes), model.config)
        arrays = contents.arrays()
        put_weights(path, model, arrays)
        if fitted:
            checkpoint.sampler = kind.from_arrays(without(SAMPLER, arrays), model.config)
    return checkpoint


def run_folder(model: Path | str) -> Path | None:
    """The folder of the run that trained a model; None if there is none beside its file."""
    file = Path(model).resolve()
    folder = file.with_suffix("") if file.is_file() else file / "none"
    return folder if folder.is_dir() else None


def without(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def save_state(path: Path | str, model: VAE, optimizer: mlx.optimizers.Optimizer, facts: dict[str, Any]) -> None:
    """Write a training state."""
    arrays = dict(tree_flatten(model.parameters()))
    arrays |= {f"{OPTIMIZER}{key}": array for key, array in tree_flatten(optimizer.state)}
    write(path, pack(arrays, {"config": model.config.values()} | facts), durable=True)


def load_state(path: Path | str) -> State:
    """Read a training state."""
    contents = read(path)
    shapes, facts = contents.shapes, contents.facts
    optimizer = without(OPTIMIZER, shapes)
    try:
        if not optimizer:
            raise ValueError("it has no optimizer")
        check(Memory, facts)
    except ValueError as error:
        raise UserError(f"{path} is not a training state, or is damaged ({error}) — start without --resume") from None
    model = model_of(path, {key: array for key, array in shapes.items() if not key.startswith(OPTIMIZER)}, facts)
    if sum(array.size for array in optimizer.values()) > MOST_OF_OPTIMIZER * model.parameter_count() + 1000:
        raise UserError(f"{path} is damaged: its optimizer has too many values for the model — start without --resume")
    arrays = contents.arrays()
    put_weights(path, model, arrays)
    return State(model, {key: mx.array(array) for key, array in without(OPTIMIZER, arrays).items()}, facts)


# Packing


def pack(arrays: dict[str, Any], facts: dict[str, Any]) -> bytes:
    """Arrays and facts as the bytes of an `.npz` file; equal contents give equal bytes.

    Facts that are too long for the archive's comment are split over the comments of its entries.
    """
    text = json.dumps(facts).encode()
    head, pieces = MARK + f"{zlib.crc32(text):08x} ".encode(), []
    if len(head + text) > COMMENT:
        pieces, text = [text[i : i + COMMENT] for i in range(0, len(text), COMMENT)], b""
    if len(pieces) > len(arrays):
        raise ValueError("the facts are too long for the comments of the file")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, (key, array) in enumerate(arrays.items()):
            data, entry = io.BytesIO(), zipfile.ZipInfo(f"{key}.npy")  # without a timestamp
            np.lib.format.write_array(data, np.array(array), allow_pickle=False)
            entry.comment = pieces[i] if i < len(pieces) else b""
            archive.writestr(entry, data.getvalue())
        archive.comment = head + text
    return buffer.getvalue()


def pack_safetensors(arrays: dict[str, mx.array], facts: dict[str, Any]) -> bytes:
    """Arrays and facts as the bytes of a `.safetensors` file, the configuration also as texts that others can read."""
    buffer = io.BytesIO()
    config = {name: str(value) for name, value in facts.get("config", {}).items()}
    metadata = config | {FACTS_KEY: json.dumps(facts)}
    mx.save_safetensors(buffer, dict(sorted(arrays.items())), metadata)
    return buffer.getvalue()


# Reading


def read(path: Path | str) -> Contents:
    """Read names, shapes and facts; any error in a broken file becomes one line."""
    path = Path(path)
    if path.is_dir():
        return read_folder(path)
    with in_one_line(path), opened(path) as file:
        start, size = file.read(16), path.stat().st_size
        if start.startswith(pytorch.OLD_FORMAT):
            ways = "load it with PyTorch and save it again, torch.save writes the newer one"
            raise UserError(f"{path} is in PyTorch's format of before 2020 — {ways}")
        is_safetensors = start[8:9] == b"{"
        contents = read_safetensors(path, start, size) if is_safetensors else read_zip(file, path, size)
    return contents._replace(arrays=in_one_line(path)(contents.arrays))


@contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """Turn any error of reading a file into one line."""
    try:
        with warnings.catch_warnings(action="error"):  # NumPy warns of odd headers
            yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"no such file: {path} — check the name, or train a model with train.py") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)} — check its permissions, or copy it again") from None
    except Exception as error:  # zipfile, NumPy and MLX raise nearly anything on damaged files
        why = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path} is not a checkpoint, or is damaged ({why}) — train or copy it again") from None


def read_folder(path):
    """The contents of a model folder; `config.json` is read if the weights have no configuration."""
    if not hub.is_folder(path):
        raise UserError(f"{path} is a folder without {hub.MODEL} — name a checkpoint (.npz) in it")
    contents = read(path / hub.MODEL)
    if "config" in contents.facts or not (path / hub.CONFIG).exists():
        return contents
    with in_one_line(path / hub.CONFIG):
        facts = contents.facts | hub.facts_of(reading.contents(path / hub.CONFIG, hub.LARGEST))
        check(Facts, facts)
    return contents._replace(facts=facts)


def read_zip(file, path, size):
    """The contents of an open archive; its numbers are read from `path`."""
    check_directory(file, LARGEST_HEADER)
    archive = zipfile.ZipFile(file)
    entries = archive.infolist()
    claimed = sum(entry.file_size for entry in entries)
    is_torch = any(entry.filename.endswith("data.pkl") for entry in entries)
    if claimed > (4 if is_torch else 16) * size + 2**20 or any(entry.compress_size > size for entry in entries):
        raise ValueError("it declares far more data than it contains")
    if len(entries) > MOST_ENTRIES or len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("it has far too many entries, or two of one name")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise ValueError("it is compressed in an unusual way")
    if is_torch:
        if claimed > LARGEST_TORCH:
            raise ValueError(f"its values have more than {LARGEST_TORCH / 2**20:.0f} MiB")
        arrays, facts = pytorch.read_torch(archive)
        check(Facts, facts)
        return Contents(arrays, facts, lambda: arrays)
    shapes = {name_of(entry): shape_of(archive, entry) for entry in entries}
    facts = read_comments(archive.comment, b"".join(entry.comment for entry in entries))

    def read_arrays():
        with zipfile.ZipFile(path) as archive:
            files = ((name_of(entry), io.BytesIO(unpacked(archive, entry))) for entry in archive.infolist())
            return {name: np.lib.format.read_array(file, allow_pickle=False) for name, file in files}

    return Contents(shapes, facts, read_arrays)


def name_of(entry):
    return entry.filename.removesuffix(".npy")


def shape_of(archive, entry):
    """A placeholder for an array, from its header alone."""
    with archive.open(entry) as file:
        if (version := np.lib.format.read_magic(file)) != (1, 0):
            raise ValueError(f"its arrays have the unknown version {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        header = file.tell()
    if dtype.kind not in "fiu":
        raise ValueError(f"it holds values of type {dtype}")
    stand_in = placeholder(shape, dtype)
    if header + stand_in.nbytes != entry.file_size:
        raise ValueError(f"{entry.filename} does not have the size that its header claims")
    return stand_in


def placeholder(shape, dtype=np.float32):
    """A placeholder array of a shape that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def read_comments(comment, more):
    """The facts in the comment of an archive or of its entries; third-party files have none."""
    if not comment.startswith(MARK):
        return {}
    checksum, _, text = comment.removeprefix(MARK).partition(b" ")
    text = text or more
    if int(checksum, 16) != zlib.crc32(text):
        raise ValueError("the checksum of its metadata is wrong")
    return record(Facts, text)


def read_safetensors(path, start, size):
    if struct.unpack("<Q", start[:8])[0] > LARGEST_HEADER:
        raise ValueError("its header is far too large")
    stored, metadata = mx.load(str(path), format="safetensors", return_metadata=True)  # values are read when used
    if any(n < 0 for array in stored.values() for n in array.shape):
        raise ValueError("its header has impossible shapes")
    if sum(array.nbytes for array in stored.values()) > size:
        raise ValueError("its header declares more data than the file contains")
    shapes = {key: placeholder(array.shape) for key, array in stored.items()}
    kernel = shapes.get("encoder.conv2.weight")
    by_pytorch = kernel is not None and kernel.shape[2:] == (3, 3) and kernel.shape[1] != 3
    in_order = pytorch.channels_last if by_pytorch else dict
    facts = record(Facts, metadata.get(FACTS_KEY, "{}"))

    def arrays():
        return in_order({key: np.array(array.astype(mx.float32)) for key, array in stored.items()})

    return Contents(in_order(shapes), facts, arrays)


# From arrays to a model


def model_of(path: Path | str, shapes: dict[str, np.ndarray], facts: dict[str, Any]) -> VAE:
    """The model described by facts and shapes, without weights; every shape is checked."""
    shapes = {key: array for key, array in shapes.items() if key not in STRAY_KEYS}
    model = build(config_from(path, shapes, facts))
    expected = {key: array.shape for key, array in tree_flatten(model.parameters())}
    if missing := expected.keys() - shapes.keys():
        raise not_ours(path, f" lacks {min(missing)}")
    if unknown := shapes.keys() - expected.keys():
        raise not_ours(path, f" contains an unexpected array {min(unknown)}")
    for key, shape in expected.items():
        statistics = key.endswith(("running_mean", "running_var"))
        if shapes[key].shape != shape and not (statistics and shapes[key].shape == (1, 1, 1, *shape)):
            raise UserError(f"{path}: {key} has shape {shapes[key].shape} instead of {shape} — it matches no model")
    return model


def put_weights(path: Path | str, model: VAE, arrays: dict[str, np.ndarray]) -> None:
    """Load weights into a model, if all values are finite."""
    weights = []
    for key, before in tree_flatten(model.parameters()):
        with np.errstate(over="ignore"):  # the next lines check for infinity
            array = arrays[key].astype(np.float32).reshape(before.shape)
        if not np.isfinite(array).all() or (key.endswith("running_var") and (array < 0).any()):
            raise UserError(f"{path}: {key} contains impossible values — train or copy it again")
        weights.append((key, mx.array(array)))
    model.load_weights(weights)
    model.eval()


def config_from(path, arrays, facts):
    """The configuration from the facts or, without them, inferred from the arrays."""
    try:
        if "config" in facts:
            return config_of(facts["config"])
        told = {"likelihood": facts["likelihood"]} if "likelihood" in facts else {}
        return config_of(recognise(arrays, facts.get("options", {})) | told)
    except KeyError as error:
        raise not_ours(path, f" lacks {error.args[0]}") from None
    except (IndexError, TypeError, ValueError, ZeroDivisionError, UserError):
        raise not_ours(path, ": its arrays or metadata do not match any model") from None


def not_ours(path, why):
    return UserError(f"{path}{why} — it is not a checkpoint of this family")
