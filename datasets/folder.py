"""Your own pictures: any tree of image files. The first sub-folder of a picture is its class.

A tenth of the pictures is the test split. Which ones depends on their names alone, so it is the same for every seed,
and a picture that is added later moves no other one across.
"""

import hashlib
import os
from pathlib import Path

from datasets.cache import Pictures
from datasets.decoding import ENDINGS, LARGEST_FILE
from errors import UserError
from files import reason

TESTED = 10  # one picture in so many


def pictures(folder, split):
    """The pictures of one split of a folder, in an order by lot."""
    if not folder:
        raise UserError("--dataset folder: lacks the folder — say folder:PATH")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "not there"
        raise UserError(f"the folder of pictures {folder} is {what} — say --dataset folder:PATH")
    found = sorted(listing(folder))
    if len(found) < 2:
        raise UserError(f"{folder} holds {len(found)} picture(s), training and testing need two — add more")
    stamp = hashlib.sha1("\n".join(f"{name}\0{size}\0{time}" for name, size, time in found).encode("utf-8", "replace"))
    classes = tuple(sorted({name.split("/")[0] for name, *_ in found if "/" in name}))
    if any("/" not in name for name, *_ in found):
        classes = classes and ("", *classes)  # pictures beside the sub-folders are a class too
    numbers = {name: i for i, name in enumerate(classes)}

    def open_pictures():
        names = sorted((name for name, *_ in found), key=lot)
        tested = -(-len(names) // TESTED)
        names = names[:tested] if split == "test" else names[tested:]
        labels = [numbers[name.split("/")[0] if "/" in name else ""] for name in names] if classes else None
        return names, labels, lambda name: read(folder / name)

    place = folder.resolve()
    key = f"{place.name}-{hashlib.sha1(os.fsencode(place)).hexdigest()[:8]}"
    return Pictures(str(folder), key, stamp.hexdigest(), open_pictures, classes or None)


def listing(folder, inside=""):
    """All picture files in a tree but hidden ones: (name below the folder, size, time of its last change)."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"cannot look into {folder}: {reason(error)} — check its rights") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from listing(entry.path, f"{inside}{entry.name}/")
        elif os.path.splitext(entry.name)[1].lower() in ENDINGS and entry.is_file():
            facts = entry.stat()
            yield inside + entry.name, facts.st_size, facts.st_mtime_ns


def lot(name):
    """What sorts names by chance, always in the same way."""
    return hashlib.sha1(name.encode("utf-8", "replace")).digest()


def read(path):
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE // 2**20} MiB")
        return file.read()
