"""The table of data sets, one row each, their names, and the loading of splits.

Each data set has its own file. Small sets are kept in memory at their original size; image files are decoded once, at
the model's size, into a cache on disk (`cache.py`). A new data set is one loader and one row.
"""

import difflib
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

import mnist
from toolkit.datasets import cache, celeb_a, cifar, folder, given, synthetic
from toolkit.datasets.decoding import Format
from toolkit.datasets.factors import Factors
from toolkit.errors import UserError


class DataSet(NamedTuple):
    """One row of the table.

    `load(split, place, limit)` returns images (N, H, W, C) and labels (N,), or a `cache.Pictures`, files to be
    decoded. `place` is the data_dir, or the path in a name such as "folder:PATH". A loader may stop after
    `limit` images, but does not have to.
    """

    name: str
    load: Callable
    class_names: tuple | None = None  # None for Pictures, which contain theirs
    counts: dict | None = None  # images in each split as published
    crop: float = 1.0  # of image files: side of the central square, as a share of the shorter side
    augment: str = "none"  # what --augment auto means if images are few
    least_steps: int = 1  # in an epoch
    drawn: tuple[int, int] | None = None  # of digits: the sides of an image, and of the box that a digit fills, whose
    # centre of mass is that of the image


def of_mnist(name: str, **more) -> DataSet:
    """The row of a data set in the format of MNIST."""
    return DataSet(name, lambda split, place, _: mnist.load(split, place, name), mnist.CLASSES[name], **more)


def of_synthetic(split, _, limit):
    return synthetic.load(split, limit)


TABLE = (
    of_mnist("mnist", counts=mnist.COUNTS, drawn=mnist.DRAWN),
    of_mnist("fashion-mnist", counts=mnist.COUNTS),
    DataSet("cifar-10", lambda split, place, _: cifar.load_cifar_10(split, place), cifar.CIFAR_10, cifar.COUNTS),
    DataSet("cifar-100", lambda split, place, _: cifar.load_cifar_100(split, place), cifar.CIFAR_100, cifar.COUNTS),
    DataSet("celeb-a", lambda split, place, _: celeb_a.pictures(split, place), crop=celeb_a.CROP),
    DataSet("folder:PATH", lambda split, place, _: folder.pictures(split, place), augment="crop", least_steps=60),
    DataSet("synthetic", of_synthetic, synthetic.CLASSES, synthetic.COUNTS, drawn=mnist.DRAWN),
)
NAMES = tuple(row.name for row in TABLE)


class Split(NamedTuple):
    images: np.ndarray  # (N, H, W, C) uint8, or a cache.Stored, indexed by slices and arrays as well
    labels: np.ndarray | None  # (N,) the class of each image, where there are classes
    total: int  # images of the whole split, of which a limit, or missing or broken files, may leave fewer
    skipped: Sequence = ()  # (name, reason) of each file that could not be read
    class_names: tuple | None = None
    file_names: Callable[[], list[str]] | None = None  # if the images are files
    left_out: Mapping[str, int] = MappingProxyType({})  # number of other files by kind, as `tree.in_words` names them
    oblong: int = 0  # images that were not square
    factors: Factors | None = None  # that made the images, if they are known

    @property
    def names(self) -> list[str]:
        """The name of each image: that of its file, or its number in the split."""
        return self.file_names() if self.file_names else [str(i) for i in range(len(self.images))]

    def checksum(self) -> int:
        """A checksum that changes with images or labels."""
        stored = isinstance(self.images, cache.Stored)
        images = self.images.checksum if stored else zlib.crc32(np.ascontiguousarray(self.images))
        return images if self.labels is None else zlib.crc32(np.ascontiguousarray(self.labels), images)


def load(
    name: str,
    split: str,
    data_dir: Path | str | None,
    limit: int | None = None,
    image_size: int = 64,
    channels: int | None = None,
    cache_dir: Path | str | None = None,
    fit: str = "crop",
) -> Split:
    """Load "train" or "test" of a data set, at most `limit` images.

    Image files are decoded to the model's size and channels (3 by default); arrays keep their own size, and the model
    resizes them on the device.
    """
    name = full_name(name)
    row, path = look_up(name)
    loaded = row.load(split, path or data_dir, limit)
    if isinstance(loaded, cache.Pictures):
        cache_dir = cache_dir or Path(data_dir) / "cache"
        wanted = Format(image_size, channels or 3, fit, row.crop)
        images, labels, facts = cache.load(loaded, split, cache_dir, limit, wanted)
        names = lambda: cache.names(loaded, limit, facts)  # noqa: E731
        oblong, known = facts["oblong"] if row.crop == 1 else 0, loaded.factors and loaded.factors.of(names())
        classes = loaded.class_names
        return Split(images, labels, facts["total"], facts["skipped"], classes, names, loaded.left_out, oblong, known)
    images, labels = loaded
    if len(images) == 0:
        raise UserError(f"{name} has no {split} images — replace its files")
    labels = None if labels is None else labels[:limit]
    total = row.counts[split] if row.counts else len(images)
    return Split(images[:limit], labels, total, class_names=row.class_names)


def load_files(
    paths: Sequence[str], image_size: int, channels: int, like: str | None = None, fit: str = "crop"
) -> Split:
    """Load given image files, and folders and zip files of them, cropped like those of the data set `like`."""
    row, _ = look_up(like or "")
    wanted = Format(image_size, channels, fit, row.crop if row else 1.0)
    images, labels, classes, names, skipped, left_out = given.load(paths, wanted)
    return Split(images, labels, len(images) + len(skipped), skipped, classes, lambda: names, left_out)


# Names


def plain(word: str) -> str:
    """A name without case and punctuation: `CIFAR_10` → `cifar10`."""
    return re.sub("[-_]", "", word.lower())


ROWS = {plain(row.name.partition(":")[0]): row for row in TABLE}  # "folder" → the row of folder:PATH


def look_up(name: str) -> tuple[DataSet | None, str]:
    """The row of a name in any spelling, and the path after its colon; None if there is no such row."""
    kind, colon, path = name.partition(":")
    row = ROWS.get(plain(kind))
    fits = row and (path if ":" in row.name else not colon)
    return (row, path) if fits else (None, "")


def full_name(name: str) -> str:
    """The canonical name of a data set, with an absolute path for a folder; raises UserError if it is unknown."""
    row, path = look_up(name)
    if row:
        kind, colon, _ = row.name.partition(":")
        return kind + colon + (path and os.path.abspath(os.path.expanduser(path)))
    near = difflib.get_close_matches(name.lower(), NAMES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(NAMES)}"
    if os.path.isdir(name):
        hint = f"did you mean folder:{name}?"
    raise UserError(f"there is no data set {name!r} — {hint}")


def inode_of(name: str) -> int | None:
    """A number that identifies a folder on this machine only; a path could be guessed."""
    path = name.partition(":")[2]
    return os.stat(path).st_ino if os.path.exists(path) else None


def file_name(name: str) -> str:
    """A full name as part of file names: `folder:/home/me/my pictures` → `folder-my_pictures`."""
    kind, colon, path = name.partition(":")
    last = re.sub(r"[^\w.-]+", "_", Path(path).name.removesuffix(".zip")).encode()[:60].decode(errors="ignore")
    return f"{kind}-{last or 'root'}" if colon else name


def resembles(word: str) -> str | None:
    """The data set with this or a similar name: `cifar` → `cifar-10`, `Fashion_MNIST` → `fashion-mnist`.

    None for all other words, including those that extend a name, such as `mnist2` or `mnist-beta4`.
    """
    row, path = look_up(word)
    if row:
        return row.name.replace("PATH", path)
    text = plain(word)
    if text in ROWS:
        return ROWS[text].name
    if any(text.startswith(known) for known in ROWS):
        return None
    without_path = [known for known, row in ROWS.items() if ":" not in row.name]
    near = difflib.get_close_matches(text, without_path, n=1, cutoff=0.8)
    return ROWS[near[0]].name if near else None
