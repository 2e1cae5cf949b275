"""Your own pictures: any tree of image files. The first sub-folder of a picture is its class.

One picture in ten is for testing. Which ones depends on their names alone, so it is the same for every seed, and
pictures that are added later move no other one across (but where none of a few had drawn the lot, and one was taken).
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
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "not there"
        raise UserError(f"the folder of pictures {folder} is {what} — say --dataset folder:PATH")
    found, problems = listing(folder)
    if len(found) < 2:
        raise UserError(f"{folder} holds {len(found)} picture(s), training and testing need two — add more")
    classes = tuple(sorted({name.split("/")[0] for name, *_ in found if "/" in name}))
    if any("/" not in name for name, *_ in found):
        classes = classes and ("", *classes)  # pictures beside the sub-folders are a class too
    numbers = {name: i for i, name in enumerate(classes)}

    def open_pictures():
        names = sorted((name for name, *_ in found), key=lot)
        # Their order is by lot too, so those for testing come first; of few pictures each split has at least one.
        tested = min(max(1, sum(lot(name) < CUT for name in names)), len(names) - 1)
        names = names[:tested] if split == "test" else names[tested:]
        labels = [numbers[name.split("/")[0] if "/" in name else ""] for name in names] if classes else None
        return names, labels, lambda name: read(folder / name)

    key = f"{folder.name[:30]}-{path_hash(folder)}"
    return Pictures(str(folder), key, stamp(found), open_pictures, classes or None, problems=problems)


def listing(folder):
    """All picture files in a tree but hidden ones, as (name below the folder, size, time of its last change), sorted.

    Second comes what cannot be looked at, as (name, reason). Links are followed, to no folder twice.
    """
    found, problems, seen, waiting = [], [], set(), [("", folder)]
    while waiting:
        inside, place = waiting.pop()
        try:
            facts = os.stat(place)
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            entries = list(os.scandir(place))
        except OSError as error:
            if place == folder:
                raise UserError(f"cannot look into {folder}: {reason(error)} — check its rights") from None
            problems.append((inside.rstrip("/"), reason(error)))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = inside + entry.name
            try:
                if entry.is_dir():
                    waiting.append((f"{name}/", entry.path))
                elif os.path.splitext(entry.name)[1].lower() in ENDINGS:
                    facts = entry.stat()
                    found.append((name, facts.st_size, facts.st_mtime_ns))
            except OSError as error:
                problems.append((name, reason(error)))
    return sorted(found), sorted(problems)


def stamp(found):
    """A text that is another one when files have changed."""
    lines = (f"{name}\0{size}\0{time}\n" for name, size, time in found)
    return hashlib.sha1("".join(lines).encode("utf-8", "replace")).hexdigest()


def path_hash(path):
    return hashlib.sha1(os.fsencode(path.absolute())).hexdigest()[:8]


def lot(name):
    """A number below 2⁶⁴ that a name draws, always the same one."""
    return int.from_bytes(hashlib.sha1(name.encode("utf-8", "replace")).digest()[:8], "big")


CUT = 2**64 // TESTED  # draws below are for testing


def read(path):
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE // 2**20} MiB")
        return file.read()
