"""The table of data sets: a name → its images and labels in memory, as bytes."""

import difflib
from typing import NamedTuple

import numpy as np

import mnist
import synthetic
from errors import UserError

LOADERS = {"mnist": mnist.load, "synthetic": synthetic.load}


class Split(NamedTuple):
    images: np.ndarray  # (N, H, W, C) uint8
    labels: np.ndarray  # (N,) uint8


def check_name(name):
    """Stop where there is no data set of that name."""
    if name not in LOADERS:
        near = difflib.get_close_matches(name.lower(), LOADERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"take one of {', '.join(LOADERS)}"
        raise UserError(f"there is no data set {name!r} — {hint}")


def load(name, split, data_dir, limit=None):
    """Load "train" or "test" of a data set, at most `limit` images of it."""
    check_name(name)
    images, labels = LOADERS[name](split, data_dir, limit)
    if len(images) == 0:
        raise UserError(f"{name} has no {split} images — replace its files")
    return Split(images, labels)
