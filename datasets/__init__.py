"""The table of data sets: a name → its images and labels, as bytes.

Small sets are held in memory at their own size. Pictures that come as files are decoded once, at the model's size, into
a cache on disk.
"""

import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

import mnist
from datasets import cache, celeb_a, cifar, folder, synthetic
from errors import UserError

IN_MEMORY = {  # a name → a function from split and data_dir to images and labels
    "mnist": mnist.load,
    "fashion-mnist": lambda split, data_dir: mnist.load(split, data_dir, "fashion-mnist"),
    "cifar-10": cifar.load_cifar_10,
    "cifar-100": cifar.load_cifar_100,
}
CLASSES = mnist.CLASSES | {
    "cifar-10": cifar.CIFAR_10,
    "cifar-100": cifar.CIFAR_100,
    "synthetic": mnist.CLASSES["mnist"],
}
NAMES = (*IN_MEMORY, "celeb-a", "folder:PATH", "synthetic")
PUBLISHED = {  # images in the training and test splits
    "mnist": (60_000, 10_000),
    "fashion-mnist": (60_000, 10_000),
    "cifar-10": (50_000, 10_000),
    "cifar-100": (50_000, 10_000),
    "synthetic": (60_000, 10_000),
}


class Split(NamedTuple):
    images: np.ndarray  # (N, H, W, C) uint8, or a cache.Stored, indexed by slices and arrays as well
    labels: np.ndarray | None  # (N,) the class of each image, where there are classes
    total: int  # images of the whole split, of which a limit, or missing or broken files, may leave fewer
    skipped: list = ()  # (name, reason) of each file that could not be read
    classes: tuple | None = None  # their names


def full_name(name):
    """The name of a data set, that of a folder with its whole path; stops where there is no such data set."""
    if name.startswith("folder:") and name != "folder:":
        return "folder:" + os.path.abspath(os.path.expanduser(name.removeprefix("folder:")))
    if name in IN_MEMORY or name in ("celeb-a", "synthetic"):
        return name
    near = difflib.get_close_matches(name.lower(), NAMES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"take one of {', '.join(NAMES)}"
    if name.lower().startswith("folder:"):
        hint = f"say folder:{name[7:] or 'PATH'}"
    elif name and Path(name).is_dir():
        hint = f"did you mean folder:{name}?"
    raise UserError(f"there is no data set {name!r} — {hint}")


def file_name(name):
    """The name of a data set as part of the names of files: `folder:/home/me/my pictures` → `folder-my_pictures`."""
    kind, colon, path = name.partition(":")
    if not colon:
        return name
    last = re.sub(r"[^\w.-]+", "_", Path(path).name).encode()[:60].decode(errors="ignore")
    return f"{kind}-{last or 'root'}"


def load(name, split, data_dir, limit=None, image_size=64, channels=None, cache_dir=None):
    """Load "train" or "test" of a data set, at most `limit` images of it.

    Size and channels are what the model wants. Files of pictures are decoded to them (3 channels if not said); arrays
    come as they are, for the model to resize on the device.
    """
    name = full_name(name)
    if name == "celeb-a" or name.startswith("folder:"):
        path = name.removeprefix("folder:")
        pictures = celeb_a.pictures(data_dir, split) if name == "celeb-a" else folder.pictures(path, split)
        cache_dir = cache_dir or Path(data_dir) / "cache"
        images, labels, facts = cache.load(pictures, split, cache_dir, limit, image_size, channels or 3)
        return Split(images, labels, facts["total"], facts["skipped"], pictures.classes)
    images, labels = synthetic.load(split, limit) if name == "synthetic" else IN_MEMORY[name](split, data_dir)
    if len(images) == 0:
        raise UserError(f"{name} has no {split} images — replace its files")
    total = PUBLISHED[name][split == "test"]
    return Split(images[:limit], labels[:limit], total, classes=CLASSES[name])
