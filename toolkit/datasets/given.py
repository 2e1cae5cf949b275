"""Given image files and folders of them, without a train/test split or a cache.

They are decoded like the files of data sets. The first sub-folder of a folder is a class, as in `folder.py`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.datasets.cache import decoded
from toolkit.datasets.decoding import LARGEST_FILE
from toolkit.datasets.folder import listing
from toolkit.errors import UserError
from toolkit.files.reading import opened
from toolkit.wording import as_text, distinct


def load(
    paths: Sequence[str], size: int, channels: int, crop: float = 1.0
) -> tuple[np.ndarray, np.ndarray | None, tuple | None, list[str], list]:
    """Images (N, size, size, channels), labels and class names or None, names, and (name, reason) of unreadable files.

    A file that is given itself must be readable.
    """
    named = list(map(Path, paths))
    files = [file for path in named for file in found(path)]
    images = decoded(files, lambda file: opened(file[0], LARGEST_FILE), size, channels, crop)
    made = [(*file, image) for file, image in zip(files, images, strict=True)]
    skipped = [file for file in made if isinstance(file[2], str)]
    kept = [(name, image) for _, name, image in made if not isinstance(image, str)]
    for path, _, why in skipped:
        if path in named or not kept:
            raise UserError(f"{path} cannot be read: {why} — name a picture that Pillow reads")
    folders = [name.partition("/")[0] if "/" in name else "" for name, _ in kept]
    classes = tuple(sorted(set(folders)))
    labels = None if classes == ("",) else np.array([classes.index(folder) for folder in folders], np.int32)
    names, pixels = distinct([name for name, _ in kept]), np.stack([image for _, image in kept])
    return pixels, labels, None if labels is None else classes, names, [(name, why) for _, name, why in skipped]


def found(path: Path) -> list[tuple[Path, str]]:
    """The image files of a path: the file itself, or all below it, with their relative names."""
    if not os.path.exists(path):
        raise UserError(f"no such file: {path} — check the name")
    if not os.path.isdir(path):
        return [(path, as_text(path.name))]
    files = [(path / name, as_text(name)) for name, *_ in listing(path)[0]]
    if not files:
        raise UserError(f"{path} contains no images — give another folder, or files")
    return files
