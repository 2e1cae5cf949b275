"""Checkpoints: files that say all that is needed to use them. PyTorch's are read by pytorch.py.

Arrays carry the key names of the MLX example that this toolkit descends from, so `.npz` files travel both ways. What
these arrays cannot say (the model's configuration, data set, options, test metrics) is a dictionary of facts: JSON in
the comment of the zip archive, because an extra array would make other loaders refuse the file. The arrays of a fitted
prior travel in the comments of the archive's entries. In `.safetensors` both are metadata. Files from elsewhere have no
facts; their configuration is read off the shapes of their arrays. Nothing is unpickled.
"""

import base64
import io
import json
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.optimizers
import numpy as np
from mlx.utils import tree_flatten

from toolkit.errors import UserError
from toolkit.files.writing import reason, write
from toolkit.formats import hub, pytorch
from toolkit.model.mixture import Mixture
from toolkit.options import from_values
from vae import ARCHITECTURES, VAE, ModelConfig

ENDINGS = (".npz", ".safetensors")  # that are written
STRAY_KEYS = {"encoder.kl_div"}  # in published files of the family
MARK = b"vae "  # begins the comment of our files
FACTS_KEY, PRIOR_KEY = "vae_facts", "vae_prior"  # in the metadata of .safetensors
COMMENT = 2**16 - 1  # bytes that the comment of an entry may have
# What facts may say, and as what. `binarize` and `likelihood` stood alone before the whole configuration was written.
FACTS = {
    "config": dict,
    "dataset": str,
    "binarize": str,
    "likelihood": str,
    "classes": list,
    "collapsed": bool,
    "epoch": int,
    "options": dict,
    "images": list,
    "test": dict,
    "test_loss": (int, float),
    "best": (float, type(None)),
    "plateau": dict,
    "device": str,
}


class State(NamedTuple):
    """All that a run needs to go on as if it had never stopped."""

    model: VAE
    optimizer: dict[str, mx.array]  # its arrays, by the path of each
    facts: dict[str, Any]


def model_name(dataset: str, max_filters: int, latent_dims: int) -> str:
    """The name of a model's file, without its ending."""
    return f"vae_{dataset}_filters_{max_filters:04d}_dims_{latent_dims:04d}"


def save_model(path: Path | str, model: VAE, facts: dict[str, Any]) -> None:
    """Write weights, configuration and facts, as `.safetensors` or, with any other ending, as `.npz`."""
    arrays, config = dict(tree_flatten(model.parameters())), {"config": asdict(model.config)}
    facts = config | facts | config  # it comes first, and is the model's own
    packed = pack_safetensors if Path(path).suffix.lower() == ".safetensors" else pack
    prior = pack(model.mixture.arrays(), {}) if model.mixture else b""
    write(path, packed(arrays, facts, prior), durable=True)


def save_folder(folder: Path | str, model: VAE, facts: dict[str, Any], card: str, picture: bytes) -> list[str]:
    """Write a model folder for the Hub; returns the names of its files. A card that is there belongs to a person."""
    folder, written = Path(folder), {}
    written[hub.CONFIG] = hub.config_text(model.config, facts)
    written[hub.PICTURE] = picture
    if not (folder / hub.CARD).exists():
        written[hub.CARD] = card.encode()
    save_model(folder / hub.MODEL, model, facts)
    for name, data in written.items():
        write(folder / name, data)
    return [hub.MODEL, *written]


def load_model(path: Path | str) -> tuple[VAE, dict[str, Any]]:
    """Read a model, ready to use, and its facts."""
    arrays, facts, prior = read(path)
    if any(key.startswith("optimizer.") for key in arrays):
        model = Path(path).resolve().parent.with_suffix(".npz").name
        raise UserError(f"{path} is a training state — the model is {model}, beside its folder")
    model = model_from(path, arrays, facts)
    if prior:
        model.mixture = mixture_from(path, prior, model.config)
    return model, facts


def save_state(path: Path | str, model: VAE, optimizer: mlx.optimizers.Optimizer, facts: dict[str, Any]) -> None:
    """Write a training state."""
    arrays = dict(tree_flatten(model.parameters()))
    arrays |= {f"optimizer.{key}": array for key, array in tree_flatten(optimizer.state)}
    write(path, pack(arrays, {"config": asdict(model.config)} | facts), durable=True)


def load_state(path: Path | str) -> State:
    """Read a training state."""
    arrays, facts, _ = read(path)
    optimizer = {k.removeprefix("optimizer."): mx.array(a) for k, a in arrays.items() if k.startswith("optimizer.")}
    if not optimizer or not facts.keys() >= {"options", "images", "epoch", "best", "plateau"}:
        raise UserError(f"{path} is not a training state — start without --resume")
    weights = {key: array for key, array in arrays.items() if not key.startswith("optimizer.")}
    return State(model_from(path, weights, facts), optimizer, facts)


# Packing


def pack(arrays: dict[str, Any], facts: dict[str, Any], prior: bytes = b"") -> bytes:
    """Arrays and facts as the bytes of an `.npz` file: the same ones always give the same bytes.

    `prior` are bytes that go into the comments of the entries, a piece in each.
    """
    pieces = [prior[i : i + COMMENT] for i in range(0, len(prior), COMMENT)]
    if len(pieces) > len(arrays):
        raise ValueError("the prior is too large for the comments of the file")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, (key, array) in enumerate(arrays.items()):
            data, entry = io.BytesIO(), zipfile.ZipInfo(f"{key}.npy")  # without the time of day
            np.lib.format.write_array(data, np.array(array), allow_pickle=False)
            entry.comment = pieces[i] if i < len(pieces) else b""
            archive.writestr(entry, data.getvalue())
        text = json.dumps(facts)
        archive.comment = MARK + f"{zlib.crc32(text.encode()):08x} {text}".encode()
    return buffer.getvalue()


def pack_safetensors(arrays: dict[str, mx.array], facts: dict[str, Any], prior: bytes = b"") -> bytes:
    """Arrays and facts as the bytes of a `.safetensors` file, the configuration also as texts that others can read."""
    buffer = io.BytesIO()
    config = {name: str(value) for name, value in facts.get("config", {}).items()}
    metadata = config | {FACTS_KEY: json.dumps(facts)}
    if prior:
        metadata[PRIOR_KEY] = base64.b64encode(prior).decode()
    mx.save_safetensors(buffer, dict(sorted(arrays.items())), metadata)
    return buffer.getvalue()


# Reading


def read(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any], bytes]:
    """Read arrays, facts and the bytes of a prior; whatever a broken file does to its readers becomes one line."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such file: {path} — check the name, or train a model with train.py")
    if path.is_dir():
        return read_folder(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(16)
        if start.startswith(pytorch.OLD_FORMAT):
            raise UserError(
                f"{path} is in PyTorch's format of before 2020 — load it with PyTorch and save it again, torch.save "
                "writes the newer one"
            )
        if start[8:9] == b"{":
            return read_safetensors(path, size)
        return read_zip(path, size)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)} — check its rights, or copy it again") from None
    except Exception as error:  # zipfile, NumPy and MLX raise nearly anything on damaged files
        raise UserError(
            f"{path} is not a checkpoint, or is damaged ({in_short(error)}) — train or copy it again"
        ) from None


def read_folder(path):
    """What a model folder holds: its weights say all, or else its configuration is asked."""
    if not hub.is_folder(path):
        raise UserError(f"{path} is a folder without {hub.MODEL} — name a checkpoint (.npz) in it")
    arrays, facts, prior = read(path / hub.MODEL)
    if "config" not in facts and (path / hub.CONFIG).exists():
        try:
            facts = checked(facts | hub.facts_of((path / hub.CONFIG).read_bytes()))
        except Exception as error:  # as above
            raise UserError(f"{path / hub.CONFIG} is damaged ({in_short(error)}) — copy it again") from None
    return arrays, facts, prior


def read_zip(path, size):
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        claimed = sum(entry.file_size for entry in entries)
        if claimed > 16 * size + 2**20 or any(entry.compress_size > size for entry in entries):
            raise ValueError("it claims far more data than it holds")
        if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
            raise ValueError("it is compressed in an unusual way")
        if any(entry.filename.endswith("data.pkl") for entry in entries):
            arrays, facts = pytorch.read_torch(archive)
            return arrays, checked(facts), b""
        arrays = read_arrays(archive, entries)
        facts = read_comment(archive.comment)
        return arrays, facts, b"".join(entry.comment for entry in entries) if facts else b""


def in_short(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:100] or type(error).__name__


def read_arrays(archive, entries):
    return {entry.filename.removesuffix(".npy"): read_array(archive.read(entry)) for entry in entries}


def read_array(data):
    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"it holds values of type {array.dtype}")
    return array


def read_comment(comment):
    """The facts in the comment of an archive; there are none in files from elsewhere."""
    if not comment.startswith(MARK):
        return {}
    checksum, _, text = comment.removeprefix(MARK).partition(b" ")
    if int(checksum, 16) != zlib.crc32(text):
        raise ValueError("the checksum of its metadata is wrong")
    return checked(json.loads(text))


def read_safetensors(path, size):
    arrays, metadata = mx.load(str(path), format="safetensors", return_metadata=True)
    if any(n < 0 for array in arrays.values() for n in array.shape):
        raise ValueError("its header has impossible shapes")
    if sum(array.nbytes for array in arrays.values()) > size:
        raise ValueError("its header claims more than the file holds")
    arrays = {key: np.array(array.astype(mx.float32)) for key, array in arrays.items()}
    kernel = arrays.get("encoder.conv2.weight")
    if kernel is not None and kernel.shape[2:] == (3, 3) and kernel.shape[1] != 3:
        arrays = pytorch.channels_last(arrays)
    prior = base64.b64decode(metadata.get(PRIOR_KEY, ""))
    return arrays, checked(json.loads(metadata.get(FACTS_KEY, "{}"))), prior


def checked(facts):
    """Facts, if each of them is of its kind."""
    if not isinstance(facts, dict):
        raise ValueError("its metadata is not a JSON object")
    for name, kind in FACTS.items():
        if name in facts and not isinstance(facts[name], kind):
            raise ValueError(f"its metadata says {facts[name]!r} of its {name}")
    return facts


# From arrays to a model


def model_from(path: Path | str, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> VAE:
    """Build the model that facts and arrays describe, and check every one of them."""
    arrays = {key: array for key, array in arrays.items() if key not in STRAY_KEYS}
    model = VAE(config_from(path, arrays, facts))
    expected = {key: array.shape for key, array in tree_flatten(model.parameters())}
    problem = None
    if missing := expected.keys() - arrays.keys():
        problem = f"lacks {min(missing)}"
    elif unknown := arrays.keys() - expected.keys():
        problem = f"contains an unexpected array {min(unknown)}"
    if problem:
        raise UserError(f"{path} {problem} — it is not a checkpoint of this family")
    weights = []
    for key, shape in expected.items():
        with np.errstate(over="ignore"):  # the next lines see what has become infinite
            array = arrays[key].astype(np.float32)
        if key.endswith(("running_mean", "running_var")) and array.shape == (1, 1, 1, *shape):
            array = array.reshape(shape)
        if array.shape != shape:
            raise UserError(f"{path}: {key} has shape {array.shape} instead of {shape} — it fits no model")
        if not np.isfinite(array).all() or (key.endswith("running_var") and (array < 0).any()):
            raise UserError(f"{path}: {key} contains impossible values — train or copy it again")
        weights.append((key, mx.array(array)))
    model.load_weights(weights)
    model.eval()
    return model


def mixture_from(path: Path | str, prior: bytes, config: ModelConfig) -> Mixture:
    """The prior that a file holds beside its model."""
    try:
        with zipfile.ZipFile(io.BytesIO(prior)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > len(prior):
                raise ValueError("its prior claims far more data than it holds")
            return Mixture.from_arrays(read_arrays(archive, entries), config.latent_dims, config.decoder_classes)
    except Exception as error:  # as in `read`
        raise UserError(f"{path} is damaged ({in_short(error)}) — train or copy it again") from None


def config_from(path, arrays, facts):
    """The configuration that the facts hold; without them, as the architectures recognise it in the arrays."""
    try:
        if "config" in facts:
            return from_values(ModelConfig, facts["config"])
        options = facts.get("options", {})
        found = [(name, known.recognise(arrays, options)) for name, known in ARCHITECTURES.items()]
        arch, seen = next((pair for pair in found if pair[1]), ("", None))
        if seen is None:
            raise KeyError("the weights of an encoder or a decoder that is known here")
        told = {name: facts[name] for name in ("binarize", "likelihood") if name in facts}
        return from_values(ModelConfig, {"arch": arch} | seen | told)
    except KeyError as error:
        raise UserError(f"{path} lacks {error.args[0]} — it is not a checkpoint of this family") from None
    except (IndexError, TypeError, ValueError, ZeroDivisionError, UserError):
        raise UserError(
            f"{path}: its arrays or metadata fit no model — it is not a checkpoint of this family"
        ) from None
