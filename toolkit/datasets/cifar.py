"""CIFAR-10 and CIFAR-100 in their binary form: a record per image, its label, then its red, green and blue planes.

The files can be in a folder or in the published archive, which is verified by its checksum and read without unpacking
it to disk; `download.py` downloads it if it is missing. The pickled form of the data sets is never read.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from toolkit.errors import UserError
from toolkit.files.download import download
from toolkit.files.reading import checksum_of, contents, opened
from toolkit.files.writing import reason

HUAWEI = "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/"
TORONTO = "https://www.cs.toronto.edu/~kriz/"  # the original, last because it is throttled to under 100 kB/s
MIRRORS = {
    "cifar-10": ("https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/", HUAWEI, TORONTO),
    "cifar-100": (HUAWEI, TORONTO),
}
SHA256 = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
}
CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_100 = tuple(
    (
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
        "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
        "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
        "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
        "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
        "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
        "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
    ).split()
)
COUNTS = {"train": 50_000, "test": 10_000}
PIXELS = 32 * 32 * 3
LARGEST_ARCHIVE = 2**28  # bytes; the published ones have 170 million


def load_cifar_10(split: str, data_dir: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """One split: images (N, 32, 32, 3) as bytes, and labels (N,)."""
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    return read(Path(data_dir) / "cifar-10", "cifar-10-batches-bin", names, (len(CIFAR_10),), 10_000)


def load_cifar_100(split: str, data_dir: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """One split: images (N, 32, 32, 3) as bytes, and their fine labels (N,)."""
    return read(Path(data_dir) / "cifar-100", "cifar-100-binary", [f"{split}.bin"], (20, len(CIFAR_100)), COUNTS[split])


def read(folder, inner, names, labels, most):
    """Images and labels from some files of at most `most` records each.

    A record begins with label bytes of `labels` classes; the last one is used.
    """
    largest = most * (len(labels) + PIXELS)
    files = found(folder, inner, names, largest) or unpacked(folder, names)
    parts = [records(name, data, labels) for name, data in files]
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def records(name, data, labels):
    """The images and labels in the bytes of one file."""
    length = len(labels) + PIXELS
    if not data or len(data) % length:
        raise damaged(name, f"its {len(data)} bytes are not a whole number of records of {length}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, length)
    for column, classes in enumerate(labels):
        if (largest := rows[:, column].max()) >= classes:
            raise damaged(name, f"it has a label {largest}")
    planes = rows[:, len(labels) :].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), rows[:, len(labels) - 1].copy()


def found(folder, inner, names, largest):
    """The files that exist in a folder: (path, bytes)."""
    paths = [path for name in names for path in (folder / inner / name, folder / name) if path.is_file()]
    files = {}
    for path in paths:
        with reading(path):
            files.setdefault(path.name, (path, contents(path, largest)))
    return list(files.values())


def unpacked(folder, names):
    """Some files of the published archive, which is downloaded if it is missing: (name, bytes)."""
    path, files = folder / f"{folder.name}-binary.tar.gz", {}
    expected = SHA256[path.name]
    if not path.is_file():
        download(path, [mirror + path.name for mirror in MIRRORS[folder.name]], expected, LARGEST_ARCHIVE)
    with reading(path), opened(path, LARGEST_ARCHIVE) as file:
        if checksum_of(file, expected) != expected:  # so its contents are trusted
            raise ValueError("it is not the published archive")
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r|gz") as members:  # read as a stream, never written to disk
            for member in members:
                if (name := member.name.rpartition("/")[2]) in names:
                    files[name] = members.extractfile(member).read()
    return [(f"{path}: {name}", files[name]) for name in names]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into one line."""
    try:
        yield
    except ValueError as error:
        raise damaged(path, error) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)} — check its permissions, or replace it") from None


def damaged(path, what):
    return UserError(f"{path} is damaged: {what} — replace it")
