"""Checkpoints: `.npz` files that say all that is needed to use them. Files from elsewhere are read by foreign.py.

The arrays carry the key names of the MLX example that this toolkit descends from, so files travel both ways. Every
number of the configuration is read off their shapes. What shapes cannot say (data set, epochs, …) rides as JSON in the
comment of the zip archive: an extra array would make other loaders refuse the file, and they never look at a comment.
Nothing is unpickled.
"""

import io
import json
import math
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

import foreign
from errors import UserError
from files import reason, write
from vae import VAE, VAEConfig

# What files of the family may hold besides their weights.
STRAY_KEYS = {"encoder.kl_div"}
MARK = b"vae "  # begins the comment of our files
FACTS_KEY = "vae_facts"  # in the metadata of .safetensors
# What a description may say, and as what.
FACTS = {
    "dataset": str,
    "binarize": str,
    "likelihood": str,
    "classes": list,
    "collapsed": bool,
    "epoch": int,
    "options": dict,
    "images": list,
    "test": dict,
    "best": (float, type(None)),
    "plateau": dict,
}


def model_name(dataset, max_filters, latent_dims):
    """The name of a model's file, without its ending."""
    return f"vae_{dataset}_filters_{max_filters:04d}_dims_{latent_dims:04d}"


def save_model(path, model, facts):
    """Write the weights of a model and the facts that its shapes cannot say."""
    write(path, pack(dict(tree_flatten(model.parameters())), described(model) | facts), durable=True)


def save_safetensors(path, model, facts):
    """Write the weights of a model as `.safetensors`, with configuration and facts as texts in its metadata."""
    arrays = {key: np.array(array) for key, array in tree_flatten(model.parameters())}
    facts = described(model) | facts
    config = {name: str(value) for name, value in asdict(model.config).items()}
    write(path, foreign.write_safetensors(arrays, config | {FACTS_KEY: json.dumps(facts)}), durable=True)


def load_model(path):
    """Read a model, ready to use, and the facts in its file."""
    arrays, facts = read(path)
    if any(key.startswith("optimizer.") for key in arrays):
        model = Path(path).resolve().parent.with_suffix(".npz").name
        raise UserError(f"{path} is a training state — the model is {model}, beside its folder")
    return model_from(path, arrays, facts), facts


def save_state(path, model, optimizer, facts):
    """Write all that a run needs to go on as if it had never stopped."""
    arrays = dict(tree_flatten(model.parameters()))
    arrays |= {f"optimizer.{key}": array for key, array in tree_flatten(optimizer.state)}
    write(path, pack(arrays, described(model) | facts), durable=True)


def load_state(path):
    """Read a training state: the model, the optimizer's state, and the facts."""
    arrays, facts = read(path)
    optimizer = {k.removeprefix("optimizer."): a for k, a in arrays.items() if k.startswith("optimizer.")}
    if not optimizer or not facts.keys() >= {"options", "images", "epoch", "best", "plateau"}:
        raise UserError(f"{path} is not a training state — start without --resume")
    weights = {key: array for key, array in arrays.items() if not key.startswith("optimizer.")}
    return model_from(path, weights, facts), tree_unflatten([(k, mx.array(a)) for k, a in optimizer.items()]), facts


def described(model):
    """What a model's shapes do not say of its configuration."""
    return {"binarize": model.config.binarize, "likelihood": model.config.likelihood}


def pack(arrays, facts):
    """Arrays and facts as the bytes of an `.npz` file: the same ones always give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.array(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), entry.getvalue())  # without the time of day
        text = json.dumps(facts)
        archive.comment = MARK + f"{zlib.crc32(text.encode()):08x} {text}".encode()
    return buffer.getvalue()


def read(path):
    """Read arrays and facts; whatever a broken file does to its readers becomes one line."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such file: {path} — check the name, or train a model with train.py")
    if path.is_dir():
        raise UserError(f"{path} is a folder — name a checkpoint (.npz) in it")
    try:
        size = path.stat().st_size
        if size == 0:
            raise UserError(f"{path} is empty — train or copy it again")
        with open(path, "rb") as file:
            start = file.read(16)
        if start.startswith(foreign.TORCH_OLD):
            raise UserError(
                f"{path} is in PyTorch's format of before 2020 — load it with PyTorch and save it again, torch.save "
                "writes the newer one"
            )
        if foreign.is_safetensors(start, size):
            arrays, metadata = foreign.read_safetensors(path.read_bytes())
            return arrays, checked(json.loads(metadata.get(FACTS_KEY, "{}")))
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            claimed = sum(entry.file_size for entry in entries)
            if claimed > 16 * size + 2**20 or any(entry.compress_size > size for entry in entries):
                raise ValueError("it claims far more data than it holds")
            if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
                raise ValueError("it is compressed in an unusual way")
            if any(entry.filename.endswith("data.pkl") for entry in entries):
                return foreign.read_torch(archive), {}
            arrays = {entry.filename.removesuffix(".npy"): read_array(archive.read(entry)) for entry in entries}
            return arrays, read_facts(archive.comment)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)} — check its rights, or copy it again") from None
    except Exception as error:  # zipfile and NumPy raise nearly anything on damaged files
        said = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path} is no checkpoint or is damaged ({said}) — train or copy it again") from None


def read_array(data):
    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"it holds values of type {array.dtype}")
    return array


def read_facts(comment):
    """The JSON of the archive's comment; none in files from elsewhere."""
    if not comment.startswith(MARK):
        return {}
    checksum, _, text = comment.removeprefix(MARK).partition(b" ")
    if int(checksum, 16) != zlib.crc32(text):
        raise ValueError("the checksum of its description is wrong")
    return checked(json.loads(text))


def checked(facts):
    """A description, if every fact in it is of its kind."""
    if not isinstance(facts, dict):
        raise ValueError("its description is none")
    for name, kind in FACTS.items():
        if name in facts and not isinstance(facts[name], kind):
            raise ValueError(f"its description says {facts[name]!r} of its {name}")
    return facts


def model_from(path, arrays, facts):
    """Build the model that the arrays and facts describe, and check every one of them."""
    arrays = {key: array for key, array in arrays.items() if key not in STRAY_KEYS}
    model = VAE(config_of(path, arrays, facts))
    expected = {key: array.shape for key, array in tree_flatten(model.parameters())}
    problem = None
    if missing := expected.keys() - arrays.keys():
        problem = f"lacks {min(missing)}"
    elif unknown := arrays.keys() - expected.keys():
        problem = f"holds {min(unknown)}, which the model has not"
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
            raise UserError(f"{path}: {key} holds impossible values — train or copy it again")
        weights.append((key, mx.array(array)))
    model.load_weights(weights)
    model.eval()
    return model


def config_of(path, arrays, facts):
    """Read the configuration off the names and shapes of the arrays, and what they do not say off the facts."""
    try:
        latent_dims = len(arrays["encoder.proj_mu.bias"])
        rest = {
            "latent_dims": latent_dims,
            "classes": arrays["decoder.lin1.weight"].shape[1] - latent_dims,
            "binarize": facts.get("binarize", "none"),
            "likelihood": facts.get("likelihood", "mse"),
        }
        if "encoder.lin1.weight" in arrays:
            pixels = len(arrays["decoder.lin3.bias"])
            channels = 1 if math.isqrt(pixels) ** 2 == pixels else 3
            size = math.isqrt(pixels // channels)
            wide = len(arrays["encoder.lin1.bias"])
            return VAEConfig(arch="mlp", max_filters=wide, image_size=size, channels=channels, **rest)
        max_filters = len(arrays["encoder.conv3.bias"])
        return VAEConfig(
            arch="transpose" if "decoder.conv1.weight" in arrays else "conv",
            max_filters=max_filters,
            image_size=8 * math.isqrt(len(arrays["decoder.lin1.bias"]) // max_filters),
            channels=arrays["encoder.conv1.weight"].shape[3],
            **rest,
        )
    except KeyError as error:
        raise UserError(f"{path} lacks {error.args[0]} — it is not a checkpoint of this family") from None
    except (IndexError, TypeError, ZeroDivisionError, UserError):
        raise UserError(f"{path}: its arrays or description fit no model — it is not of this family") from None
