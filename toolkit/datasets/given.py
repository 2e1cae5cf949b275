"""Image files that a person names, and folders of them: no split is cut of them, and nothing is cached.

They go through the same decoding as the files of data sets. The first sub-folder of a folder is a class, as it is in
`folder.py`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.datasets.cache import decoded
from toolkit.datasets.decoding import LARGEST_FILE
from toolkit.datasets.folder import listing
from toolkit.errors import UserError
from toolkit.files.reading import opened
from toolkit.wording import as_text, distinct


class Given(NamedTuple):
    name: str  # without the path of this machine
    path: Path
    label: str  # the first sub-folder; empty where there is none
    one: bool  # named itself, not found in a folder


def load(
    paths: Sequence[str], size: int, channels: int, crop: float = 1.0
) -> tuple[np.ndarray, np.ndarray | None, tuple | None, list[str], list]:
    """Images (N, size, size, channels), labels and class names or None, names, and (name, reason) of unreadable files.

    A file that was named itself must be readable.
    """
    files = [file for path in paths for file in found(Path(path))]
    images = decoded(files, lambda file: opened(file.path, LARGEST_FILE), size, channels, crop)
    made = list(zip(files, images, strict=True))
    skipped = [(file, why) for file, why in made if isinstance(why, str)]
    kept = [(file, image) for file, image in made if not isinstance(image, str)]
    for file, why in skipped:
        if file.one or not kept:
            raise UserError(f"{file.path} cannot be read: {why} — name a picture that Pillow reads")
    classes = tuple(sorted({file.label for file, _ in kept}))
    labels = None if classes == ("",) else np.array([classes.index(file.label) for file, _ in kept], np.int32)
    names, pixels = distinct([file.name for file, _ in kept]), np.stack([image for _, image in kept])
    return pixels, labels, None if labels is None else classes, names, [(file.name, why) for file, why in skipped]


def found(path: Path) -> Iterator[Given]:
    """The image files that a path names: itself, or all below it."""
    if not os.path.exists(path):
        raise UserError(f"there is no picture {path} — check the name")
    if not os.path.isdir(path):
        yield Given(as_text(path.name), path, "", True)
        return
    names = [name for name, *_ in listing(path)[0]]
    if not names:
        raise UserError(f"{path} contains no image — name another folder, or files")
    for name in names:
        first, slash, _ = as_text(name).partition("/")
        yield Given(as_text(name), path / name, first if slash else "", False)
