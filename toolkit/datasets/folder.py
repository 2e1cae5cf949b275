"""Your own images: any tree of image files. The first sub-folder of an image is its class.

One image in ten goes to the test split, chosen by a hash of its file name, so the split is the same for every seed and
does not change when you add images (except that with few images, each split gets at least one).
"""

import hashlib
import os
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path

from toolkit.datasets.cache import Pictures
from toolkit.datasets.decoding import ENDINGS, LARGEST_FILE, REMEDIES
from toolkit.errors import UserError
from toolkit.files.reading import opened
from toolkit.files.targets import PICTURE, kind_of
from toolkit.files.writing import reason
from toolkit.wording import as_text, counted

TEST_ONE_IN = 10
OURS = "made by this toolkit"  # pictures such as the sheets of a run in the same folder
MOST_KINDS = 6  # of files left out, by name; the others are summed up
MOST_FOLDERS = 2**16  # in a tree of pictures; ImageNet-21k has 21,841


def pictures(split: str, folder: Path | str) -> Pictures:
    """The images of one split of a folder, ordered by the hashes of their names."""
    folder = Path(folder)
    if not os.path.isdir(folder):
        what = "is a file, not a folder" if os.path.exists(folder) else "does not exist"
        raise UserError(f"the image folder {folder} {what} — pass --dataset folder:PATH")
    everything, problems, left_out = listing(folder)
    found = [entry for entry in everything if not is_ours(folder / entry[0])]
    if ours := len(everything) - len(found):
        left_out[OURS] = ours
    if len(found) < 2:
        besides = f"; left out: {in_words(left_out)}" if left_out else ""
        few = f"contains {counted(len(found), 'image')}, training and testing need at least two{besides}"
        raise UserError(f"{folder} {few} — add some")
    classes = tuple(sorted({name.split("/")[0] for name, *_ in found if "/" in name}))
    if any("/" not in name for name, *_ in found):
        classes = classes and ("", *classes)  # images next to the sub-folders are a class, too
    numbers = {name: i for i, name in enumerate(classes)}

    def names_of_split():
        names = sorted((name for name, *_ in found), key=name_hash)
        # The order is that of the hashes, so the test images come first; each split has at least one.
        tests = min(max(1, sum(name_hash(name) < CUT for name in names)), len(names) - 1)
        names = names[:tests] if split == "test" else names[tests:]
        return names, [numbers[name.split("/")[0] if "/" in name else ""] for name in names] if classes else None

    key = f"{folder.name[:30]}-{path_hash(folder)}"
    stamped = stamp([*found, *((name, why, 0) for name, why in problems)])
    opener = lambda: lambda name: opened(folder / name, LARGEST_FILE)  # noqa: E731
    return Pictures(str(folder), key, stamped, names_of_split, opener, classes or None, None, problems, left_out)


def has_pictures(path: Path | str) -> bool:
    """Whether a path is a folder with pictures anywhere in it, also such as need an extra package."""
    entries = walk(path) if os.path.isdir(path) else ()
    return any(is_file and (is_picture(name) or kind_of_name(name) in REMEDIES) for name, is_file, _ in entries)


def listing(folder):
    """All image files in a tree except hidden ones, sorted: (name below the folder, size, time of last change).

    Also the entries that cannot be inspected: (name, reason); and the number of other files, by kind.
    """
    found, problems, others = [], [], Counter()
    for name, is_file, facts in walk(folder):
        if not is_file:
            problems.append((name, facts))
        elif is_picture(name):
            found.append((name, facts.st_size, facts.st_mtime_ns))
        else:
            others[kind_of_name(name)] += 1
    return sorted(found), sorted(problems), others


def walk(folder):
    """The files in a tree except hidden ones: (name below the folder, True, its facts).

    Also the pictures and folders that cannot be inspected: (name, False, reason). Links are followed, but no folder is
    visited twice, nor any parent of this one.
    """
    waiting, seen = [""], {identity(os.stat(above)) for above in Path(os.path.realpath(folder)).parents}
    while waiting:
        name = waiting.pop()
        path = os.path.join(folder, name)
        try:
            facts = os.stat(path)
            if stat.S_ISDIR(facts.st_mode):
                if identity(facts) not in seen:
                    seen.add(identity(facts))
                    waiting += [os.path.join(name, below) for below in os.listdir(path) if not below.startswith(".")]
            elif stat.S_ISREG(facts.st_mode):
                yield name, True, facts
            elif is_picture(name):  # a pipe could wait for ever, a device may have no end
                yield name, False, "it is not a regular file"
        except OSError as error:
            if not name:
                raise UserError(f"cannot read {folder}: {reason(error)} — check its permissions") from None
            if is_picture(name) or not isinstance(error, FileNotFoundError):  # a broken link
                yield name, False, reason(error)
        if len(seen) > MOST_FOLDERS:
            raise UserError(f"{folder} has more than {MOST_FOLDERS} folders — choose the one with the pictures")


def is_picture(name):
    """Whether a file name has an ending of pictures."""
    return os.path.splitext(name)[1].lower() in ENDINGS


def kind_of_name(name):
    """The kind of a file: its ending in capitals."""
    return as_text(os.path.splitext(name)[1][1:13].upper()) or "without an ending"


def in_words(left_out: dict[str, int], damaged: str = "") -> str:
    """The files that were left out, by kind, with what to do: `12 HEIC (pip install pillow-heif), 3 MOV`."""
    kinds = sorted(left_out, key=lambda kind: (kind not in REMEDIES, kind == OURS, -left_out[kind], kind))
    remedies = {kind: f" ({REMEDIES[kind]})" for kind in kinds if kind in REMEDIES}
    words = [f"{left_out[kind]} {kind}{remedies.get(kind, '')}" for kind in kinds[:MOST_KINDS]]
    if others := sum(left_out[kind] for kind in kinds[MOST_KINDS:]):
        words.append(counted(others, "other"))
    return ", ".join([*words, damaged] if damaged else words)


def is_ours(path):
    """Whether this toolkit made a picture, such as a sheet of a run in this folder: not data."""
    with suppress(OSError, ValueError):
        return kind_of(path) == PICTURE
    return False


def identity(facts):
    """The identity of a folder, whatever its name."""
    return facts.st_dev, facts.st_ino


def stamp(found):
    """A hash that changes with the files."""
    lines = (f"{name}\0{size}\0{time}\n" for name, size, time in found)
    return hashlib.sha1("".join(lines).encode("utf-8", "replace")).hexdigest()


def path_hash(path):
    return hashlib.sha1(os.fsencode(path.absolute())).hexdigest()[:8]


def name_hash(name):
    """A hash below 2⁶⁴, uniform over names."""
    return int.from_bytes(hashlib.sha1(name.encode("utf-8", "replace")).digest()[:8], "big")


CUT = 2**64 // TEST_ONE_IN  # images with smaller hashes go to the test split
