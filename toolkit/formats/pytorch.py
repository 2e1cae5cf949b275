"""PyTorch's `.pth` files as NumPy arrays, under our names and in our order of axes. pickles.py reads their pickles."""

import math
import zipfile

import numpy as np

from toolkit.files.reading import unpacked
from toolkit.formats.pickles import Reader

LARGEST_PICKLE = 2**20  # bytes; that of a model has some thousands
OLD_FORMAT = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # begins files written before 2020


def read_torch(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The arrays in PyTorch's zip format: a pickle, and beside it the numbers of every tensor as plain bytes."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if entries[pickled].file_size > LARGEST_PICKLE:
        raise ValueError("its pickle is far too large")
    if (order := entries.get(f"{folder}byteorder")) and unpacked(archive, order) != b"little":
        raise ValueError("its byte order is that of another kind of machine")
    limit = 2 * sum(entry.file_size for entry in archive.infolist())  # bfloat16 becomes float32
    state = Reader(lambda key: unpacked(archive, entries[f"{folder}data/{key}"]), limit).run(
        unpacked(archive, entries[pickled])
    )
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(array, np.ndarray) for array in state.values()):
        raise ValueError("it is not a dictionary of tensors")
    return channels_last(state)


def channels_last(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's order of axes → ours: channels come last, in kernels and in what is flattened."""
    features = len(arrays["encoder.conv3.bias"])
    grid = math.isqrt(len(arrays["decoder.lin1.bias"]) // features)
    ours = {}
    for key, array in arrays.items():
        name = key.split(".")
        if name[-1] == "num_batches_tracked" or any(part.startswith("shortcut") for part in name):
            continue  # counted, or never used
        if array.ndim == 4:
            transposed = name[0] == "decoder" and name[1].startswith("conv")
            array = array.transpose(1, 2, 3, 0) if transposed else array.transpose(0, 2, 3, 1)
        elif name[1].startswith("proj") and name[-1] == "weight":
            array = array.reshape(len(array), features, grid, grid).transpose(0, 2, 3, 1).reshape(len(array), -1)
        elif name[:2] == ["decoder", "lin1"]:
            rest = array.shape[1:]
            array = array.reshape(features, grid, grid, *rest).swapaxes(0, 1).swapaxes(1, 2).reshape(-1, *rest)
        ours[key] = array
    return ours
