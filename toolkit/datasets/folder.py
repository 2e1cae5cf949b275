"""Your own images: a folder or zip file of image files, in any tree. The first sub-folder of an image is its class.

One image in ten goes to the test split, chosen by a hash of its file name, so the split is the same for every seed and
does not change when you add images (except that with few images, each split gets at least one).
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from toolkit.datasets import factors
from toolkit.datasets.cache import Pictures
from toolkit.datasets.tree import OURS, in_words, is_tree, listing, opener
from toolkit.errors import UserError
from toolkit.files.targets import PICTURE, kind_of
from toolkit.files.writing import reason
from toolkit.wording import counted

TEST_ONE_IN = 10


def pictures(split: str, folder: Path | str) -> Pictures:
    """The images of one split of a folder or zip file, ordered by the hashes of their names."""
    folder = Path(folder)
    if not is_tree(folder):
        what = "is neither a folder nor a zip file" if os.path.exists(folder) else "does not exist"
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

    known = None
    if left_out.pop(factors.FILE, 0):
        with open_factors(folder) as file:
            known = factors.read(file, folder, [name for name, *_ in found])
    key = f"{folder.name[:30]}-{path_hash(folder)}"
    stamped = stamp([*found, *((name, why, 0) for name, why in problems)])
    more = {"class_names": classes or None, "problems": problems, "left_out": left_out, "factors": known}
    return Pictures(str(folder), key, stamped, names_of_split, lambda: opener(folder), **more)


def open_factors(tree):
    """Open the file with the factors of its pictures."""
    try:
        return opener(tree)(factors.FILE)
    except (OSError, ValueError) as error:
        raise UserError(f"{tree / factors.FILE} cannot be read: {reason(error)} — move it away") from None


def is_ours(path):
    """Whether this toolkit made a picture, such as a sheet of a run in this folder: not data."""
    with suppress(OSError, ValueError):
        return kind_of(path) == PICTURE
    return False


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
