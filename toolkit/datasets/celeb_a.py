"""CelebA: 202,599 faces, as image files for `cache.py` to decode.

Its publishers limit downloads, so its two files must be downloaded by hand. `img_align_celeba.zip` is read without
being unpacked; a folder `img_align_celeba` of its images works too. As is usual, the central 148×148 pixels are kept.
"""

import io
import os
import re
from pathlib import Path

from toolkit.datasets.cache import Pictures
from toolkit.datasets.folder import path_hash, stamp
from toolkit.datasets.tree import listing, unzipped
from toolkit.errors import UserError
from toolkit.files.reading import checksum_of, contents, opened, unpacked
from toolkit.files.writing import reason

ARCHIVE, FOLDER, PARTITION = "img_align_celeba.zip", "img_align_celeba", "list_eval_partition.txt"
MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"  # of the archive
SPLITS = {"train": "0", "test": "2"}  # 1 is the validation split
CROP = 148 / 178  # of the width of its images
LARGEST_PICTURE = 2**20  # bytes; one has 7,000 on average
LARGEST_PARTITION = 2**24  # bytes; the published one has 2.8 million


def pictures(split: str, data_dir: Path | str) -> Pictures:
    """The images of one split, in the order of the partition file."""
    place = Path(data_dir) / "celeb-a"
    archive, folder, partition = place / ARCHIVE, place / FOLDER, place / PARTITION
    source = archive if archive.is_file() else folder if folder.is_dir() else None
    missing = ([] if source else [ARCHIVE]) + ([] if partition.is_file() else [PARTITION])
    if missing:
        sites = "mmlab.ie.cuhk.edu.hk/projects/CelebA.html or graal.ift.ulaval.ca/public/celeba"
        ways = f"download {ARCHIVE} (1.4 GB) and {PARTITION} from {sites} and put both there as they are"
        raise UserError(f"CelebA is incomplete in {place}: {' and '.join(missing)} missing — {ways}")
    try:
        text = contents(partition, LARGEST_PARTITION).decode()
        facts = source.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {place}: {reason(error)} — replace its files") from None
    wanted = names_of(partition, text, split)
    files = listing(folder)[0] if source == folder else [(ARCHIVE, facts.st_size, facts.st_mtime_ns)]

    def names():
        """Those that are there. The archive is hashed when pictures are opened, not when they are listed."""
        if source == folder:
            there = set(os.listdir(folder))
        else:
            with unzipped(archive) as members:
                there = {name.removeprefix(f"{FOLDER}/") for name in members.namelist()}
        if not (found := [name for name in wanted if name in there]):
            raise UserError(f"{source} contains none of the {len(wanted)} {split} images of {PARTITION} — replace it")
        return found, None

    def opener():
        return from_archive(archive) if source == archive else lambda name: opened(folder / name, LARGEST_PICTURE)

    key = f"celeb-a-{path_hash(place)}"
    return Pictures(str(source), key, stamp([*files, (text, 0, 0)]), names, opener, total=len(wanted))


def names_of(path, partition, split):
    """The names of one split, from the partition file: lines of a name and 0, 1 or 2."""
    names = []
    for number, line in enumerate(filter(str.strip, partition.splitlines()), 1):
        if not (match := re.fullmatch(r"(\w+\.jpg) +([012])\s*", line, re.ASCII)):
            raise UserError(f"{path} is damaged in line {number} — replace it; lines look like '000001.jpg 0'")
        if match[2] == SPLITS[split]:
            names.append(match[1])
    if not names:
        raise UserError(f"{path} lists no images of the {split} split — replace it")
    return names


def from_archive(path):
    """A function that opens a picture in the archive."""
    archive = unzipped(path)
    with opened(path) as file:
        if checksum_of(file, MD5) != MD5:
            print(f"Note: {path} is not the published file (its MD5 differs)")

    def open_picture(name):
        entry = archive.getinfo(f"{FOLDER}/{name}")
        if entry.file_size > LARGEST_PICTURE:
            raise ValueError(f"it claims {entry.file_size} bytes")
        return io.BytesIO(unpacked(archive, entry))

    return open_picture
