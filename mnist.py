"""MNIST and Fashion-MNIST: four IDX files each, plain or gzipped, downloaded if missing.

Existing files are checked for their structure, downloads against the published MD5 (toolkit/files/download.py).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from toolkit.errors import UserError
from toolkit.files.download import download
from toolkit.files.reading import opened
from toolkit.files.writing import reason

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    "fashion-mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
}
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": tuple("T-shirt,trousers,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot".split(",")),
}
NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MD5 = {  # of the gzipped files
    ("mnist", "train-images-idx3-ubyte"): "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ("mnist", "train-labels-idx1-ubyte"): "d53e105ee54ea40749a09fcbcd1e9432",
    ("mnist", "t10k-images-idx3-ubyte"): "9fb629c4189551a2d022fa330f9573f3",
    ("mnist", "t10k-labels-idx1-ubyte"): "ec29112dd5afa0611ce80d1b7f02629c",
    ("fashion-mnist", "train-images-idx3-ubyte"): "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ("fashion-mnist", "train-labels-idx1-ubyte"): "25c81989df183df01b3e8a0aad5dffbe",
    ("fashion-mnist", "t10k-images-idx3-ubyte"): "bef4ecab320f06d8554ea6380940ec79",
    ("fashion-mnist", "t10k-labels-idx1-ubyte"): "bb300cfdad3c16e7a12a480ee83cd310",
}
COUNTS = {"train": 60_000, "test": 10_000}
DRAWN = (28, 20)  # pixels: the side of an image, and of the box around a digit
LARGEST_DOWNLOAD = 2**25  # bytes


def load(split: str, data_dir: Path | str, dataset: str = "mnist") -> tuple[np.ndarray, np.ndarray]:
    """Load one split, "train" or "test": images (N, 28, 28, 1) as bytes, and labels (N,)."""
    images_file, labels_file = (find(Path(data_dir) / dataset, name) for name in NAMES[split])
    images = read_idx(images_file, (28, 28), COUNTS[split])
    labels = read_idx(labels_file, (), COUNTS[split])
    if len(images) != len(labels):
        has = f"{len(images)} {split} images and {len(labels)} labels"
        raise UserError(f"{images_file.parent} has {has} — replace its files")
    if len(labels) and labels.max() >= len(CLASSES[dataset]):
        raise damaged(labels_file, f"it has a label {labels.max()}")
    return images[..., None], labels


def find(folder, name):
    """The path of a file, plain or gzipped; downloads it if it is missing."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    addresses = [f"{mirror}{name}.gz" for mirror in MIRRORS[folder.name]]
    return download(folder / f"{name}.gz", addresses, MD5[folder.name, name], LARGEST_DOWNLOAD)


def read_idx(path, item, most):
    """Read an array of at most `most` items from an IDX file.

    The header is two zeros, the type 8 (bytes), the number of dimensions and their sizes; the values follow.
    """
    dimensions = 1 + len(item)
    length = 4 + 4 * dimensions
    try:
        with opened(path) as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            header = file.read(length)
            if len(header) < length or header[:4] != bytes([0, 0, 8, dimensions]):
                raise damaged(path, f"its header is not that of an IDX file with {dimensions} dimension(s)")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            if shape[1:] != item:
                raise damaged(path, f"its images are {shape[1]}×{shape[2]}, not {item[0]}×{item[1]}")
            if shape[0] > most:
                raise damaged(path, f"its header states {shape[0]} items, more than the {most} of this split")
            size = math.prod(shape)
            data = file.read(size + 1)  # one more byte is enough to see that the file is too long
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, f"gzip: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)} — check its permissions, or replace it") from None
    if len(data) != size:
        raise damaged(path, f"its header states {size} values, it contains {'fewer' if len(data) < size else 'more'}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def damaged(path, what):
    return UserError(f"{path} is damaged: {what} — delete it to have it downloaded again")
