"""PyTorch's `.pth` files as NumPy arrays, with our names and axis order. pickles.py reads the pickles."""

import math
import zipfile
from typing import Any, NamedTuple

import numpy as np

from toolkit.files.reading import unpacked
from toolkit.formats.pickles import Reader

LARGEST_PICKLE = 2**20  # bytes; that of a model has a few thousand
OLD_FORMAT = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # begins files written before 2020


class Family(NamedTuple):
    """The arrays at the smallest feature maps of a system's models."""

    width: str  # whose length is the number of channels of the encoder's map
    reads: tuple[str, ...]  # the encoder's map
    writes: str  # the decoder's map: a layer


FAMILIES = (
    Family("encoder.conv3.bias", ("encoder.proj_mu.weight", "encoder.proj_log_var.weight"), "decoder.lin1"),
    Family("encoder.cnn3.bias", ("encoder.dense.weight",), "decoder.dense"),
)


def read_torch(archive: zipfile.ZipFile) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and facts in PyTorch's zip format: a pickle, and the values of each tensor as plain bytes."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if entries[pickled].file_size > LARGEST_PICKLE:
        raise ValueError("its pickle is far too large")
    if (order := entries.get(f"{folder}byteorder")) and unpacked(archive, order) != b"little":
        raise ValueError("its byte order is that of another kind of machine")
    limit = 4 * sum(entry.file_size for entry in archive.infolist())  # bfloat16 is converted to float32
    reader = Reader(lambda key: unpacked(archive, entries[f"{folder}data/{key}"]), limit)
    state = saved = reader.run(unpacked(archive, entries[pickled]))
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(array, np.ndarray) for array in state.values()):
        raise ValueError("it is not a dictionary of tensors")
    return channels_last(state), facts_of(saved)


def facts_of(saved: dict[str, Any]) -> dict[str, Any]:
    """The metadata in a checkpoint of the β-annealed VAE; other files have none.

    The states of optimizer and loss are not needed. Local paths are dropped.
    """
    args = saved.get("args")
    if not isinstance(args, dict):
        return {}
    facts: dict[str, Any] = {"dataset": "mnist"}  # that system supports no other
    if isinstance(likelihood := args.get("likelihood_type"), str):
        facts["likelihood"] = likelihood
    for ours, theirs, kind in (("epoch", "epoch", int), ("collapsed", "posterior_collapse", bool)):
        if type(value := saved.get(theirs)) is kind:
            facts[ours] = value
    loss = saved.get("test_loss")
    loss = loss.item() if isinstance(loss, np.ndarray) and loss.size == 1 else loss
    if isinstance(loss, float) and is_plain(loss):
        facts["test"] = {"loss": loss}
    options = {name: value for name, value in args.items() if is_plain(name) and is_plain(value)}
    return facts | {"options": options}


def is_plain(value: Any) -> bool:
    """Whether a value is a number, None, or a short text that is not a path."""
    if isinstance(value, str):
        return len(value) <= 100 and value.isprintable() and not set(value) & set("/\\")
    return value is None or (isinstance(value, (bool, int, float)) and abs(value) < 1e300)


def channels_last(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's order of axes → ours: channels come last, in kernels and in flattened features."""
    family = next((known for known in FAMILIES if known.width in arrays), None)
    if family is None:
        raise ValueError("its encoder is not supported")
    features = len(arrays[family.width])
    grid = math.isqrt(arrays[family.reads[0]].shape[1] // features)
    ours = {}
    for key, array in arrays.items():
        part, *layer = key.split(".")
        if layer[-1] == "num_batches_tracked" or any(name.startswith("shortcut") for name in layer):
            continue  # counters, or unused
        if array.ndim == 4:
            transposed = part == "decoder" and (layer[0].startswith("conv") or array.shape[2] == 4)
            array = array.transpose(1, 2, 3, 0) if transposed else array.transpose(0, 2, 3, 1)
        elif key in family.reads:
            array = array.reshape(len(array), features, grid, grid).transpose(0, 2, 3, 1).reshape(len(array), -1)
        elif f"{part}.{layer[0]}" == family.writes:
            rest = array.shape[1:]
            array = array.reshape(-1, grid, grid, *rest).swapaxes(0, 1).swapaxes(1, 2).reshape(-1, *rest)
        ours[key] = array
    return ours
