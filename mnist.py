"""MNIST: reads the four IDX files, plain or gzipped, and downloads what is missing.

Files that are in place are checked for their structure; downloads are checked against the published MD5 before they
take their name.
"""

import gzip
import hashlib
import http.client
import struct
import sys
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from errors import UserError
from files import reason, write

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
TIMEOUT = 10  # seconds without an answer before the next mirror is tried
LARGEST = 2**30  # bytes of one unpacked file


def load(split, data_dir, limit=None):
    """One split, "train" or "test": images (N, 28, 28, 1) as bytes, and labels (N,)."""
    folder = Path(data_dir) / "mnist"
    prefix = "train" if split == "train" else "t10k"
    images = read_idx(find(folder, f"{prefix}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(find(folder, f"{prefix}-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels):
        raise UserError(f"{folder} has {len(images)} {split} images and {len(labels)} labels — replace its files")
    return images[:limit, :, :, None], labels[:limit]


def find(folder, name):
    """The file of that name, plain or gzipped, downloaded if need be."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return download(folder, name)


def download(folder, name):
    """Fetch one file from the first mirror that has it."""
    path = folder / f"{name}.gz"
    reasons = []
    for mirror in MIRRORS:
        try:
            data = fetch(f"{mirror}{name}.gz")
        except (OSError, ValueError, http.client.HTTPException) as error:  # time-outs are OSErrors
            reasons.append(reason(getattr(error, "reason", error)))
            continue
        if hashlib.md5(data, usedforsecurity=False).hexdigest() == MD5[name]:
            write(path, data)
            return path
        reasons.append("wrong checksum")
    raise UserError(
        f"MNIST is not in {folder} and cannot be downloaded ({reasons[0]}) — put {name}.gz there, "
        "or try --dataset synthetic, which needs no files"
    )


def fetch(url):
    """The bytes behind an address, with a bar."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        chunks = []
        bar = tqdm(
            total=total or None,
            desc=url.rsplit("/", 1)[1],
            unit="B",
            unit_scale=True,
            leave=False,
            disable=not sys.stderr.isatty(),
        )
        with bar:
            while chunk := answer.read(2**16):
                chunks.append(chunk)
                bar.update(len(chunk))
                if bar.n > LARGEST:
                    raise ValueError("the answer is far too large")
    return b"".join(chunks)


def read_idx(path, dimensions):
    """An IDX file of bytes: two zeros, type 8, the number of dimensions, their sizes, the values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read(LARGEST)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, f"gzip: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes([0, 0, 8, dimensions]):
        raise damaged(path, f"it does not begin like an IDX file of {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if (size := int(np.prod(shape, dtype=object))) != len(data) - header:
        raise damaged(path, f"its header says {size} values, it holds {len(data) - header}")
    if dimensions == 3 and shape[1:] != (28, 28):
        raise damaged(path, f"its images are {shape[1]}×{shape[2]} instead of 28×28")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def damaged(path, what):
    return UserError(f"{path} is damaged: {what} — delete it, and it is downloaded again")
