"""Given image files, and folders and zip files of them, without a train/test split or a cache.

They are decoded like the files of data sets. The first sub-folder of a folder is a class, as in `folder.py`.
"""

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from toolkit.datasets import tree
from toolkit.datasets.cache import decoded
from toolkit.datasets.decoding import LARGEST_FILE, Format
from toolkit.errors import UserError
from toolkit.files.reading import opened
from toolkit.wording import as_text, distinct


def load(
    paths: Sequence[str], wanted: Format
) -> tuple[np.ndarray, np.ndarray | None, tuple | None, list[str], list, Counter]:
    """Images (N, size, size, channels), labels and class names or None, names, (name, reason) of unreadable files, and
    the number of other files by kind.

    A file that is given itself must be readable.
    """
    named, left_out = list(map(Path, paths)), Counter()
    files = [file for path in named for file in found(path, left_out)]
    images = decoded(files, lambda file: file[2](), wanted)
    made = [(path, name, image) for (path, name, _), image in zip(files, images, strict=True)]
    skipped = [file for file in made if isinstance(file[2], str)]
    kept = [(name, image.pixels) for _, name, image in made if not isinstance(image, str)]
    for path, _, why in skipped:
        if path in named or not kept:
            raise UserError(f"{path} cannot be read: {why} — name a picture that Pillow reads")
    folders = [name.partition("/")[0] if "/" in name else "" for name, _ in kept]
    classes = tuple(sorted(set(folders)))
    labels = None if classes == ("",) else np.array([classes.index(folder) for folder in folders], np.int32)
    names, pixels = distinct([name for name, _ in kept]), np.stack([image for _, image in kept])
    named_classes = None if labels is None else classes
    return pixels, labels, named_classes, names, [(name, why) for _, name, why in skipped], left_out


def found(path: Path, left_out: Counter) -> list[tuple]:
    """The image files of a path: the file itself, or all below it: path, name below it, and a function that opens it.

    Counts other files in `left_out`.
    """
    if not os.path.exists(path):
        raise UserError(f"no such file: {path} — check the name")
    if not tree.is_tree(path):
        return [(path, as_text(path.name), lambda: opened(path, LARGEST_FILE))]
    files, _, others = tree.listing(path)
    if not files:
        besides = f"; left out: {tree.in_words(others)}" if others else ""
        raise UserError(f"{path} contains no images{besides} — give another folder, or files")
    left_out.update(others)
    open_picture = tree.opener(path)
    return [(path / name, as_text(name), partial(open_picture, name)) for name, *_ in files]
