"""CelebA: 202,599 faces. Its makers limit downloads, so its two files are put into place by hand.

`img_align_celeba.zip` is read where it is; a folder `img_align_celeba` of its pictures does as well. The middle
148×148 pixels of a picture are kept, as is usual.
"""

import hashlib
import os
import zipfile
from pathlib import Path

from datasets.cache import Pictures
from datasets.decoding import LARGEST_FILE
from datasets.folder import listing, path_hash, stamp
from errors import UserError
from files import reason

ARCHIVE, FOLDER, PARTITION = "img_align_celeba.zip", "img_align_celeba", "list_eval_partition.txt"
MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"  # of the archive
SPLITS = {"train": "0", "test": "2"}  # 1 is for validation
CROP = 148


def pictures(data_dir, split):
    """The pictures of one split, in the order of the partition."""
    place = Path(data_dir) / "celeb-a"
    archive, folder, partition = place / ARCHIVE, place / FOLDER, place / PARTITION
    source = archive if archive.is_file() else folder if folder.is_dir() else None
    missing = ([] if source else [ARCHIVE]) + ([] if partition.is_file() else [PARTITION])
    if missing:
        raise UserError(
            f"CelebA is not whole in {place}: {' and '.join(missing)} missing — fetch {ARCHIVE} (1.4 GB) and "
            f"{PARTITION} from mmlab.ie.cuhk.edu.hk/projects/CelebA.html or graal.ift.ulaval.ca/public/celeba and put "
            "both there as they are"
        )
    try:
        text = partition.read_text()
        facts = source.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {place}: {reason(error)} — replace its files") from None
    wanted = names_of(partition, text, SPLITS[split])
    files = listing(folder)[0] if source == folder else [(ARCHIVE, facts.st_size, facts.st_mtime_ns)]

    def open_pictures():
        names, read = (opened if source == folder else unzipped)(source, wanted)
        if not names:
            raise UserError(f"{source} holds none of the {len(wanted)} {split} pictures of {PARTITION} — replace it")
        return names, None, read

    key = f"celeb-a-{path_hash(place)}"
    return Pictures(str(source), key, stamp([*files, (text, 0, 0)]), open_pictures, crop=CROP, total=len(wanted))


def names_of(path, partition, code):
    """The names that a partition puts into one split: lines of a name and 0, 1 or 2."""
    names = []
    for number, line in enumerate(partition.splitlines(), 1):
        name, _, said = line.partition(" ")
        if not line.strip():
            continue
        if not (name.endswith(".jpg") and name[:-4].isalnum() and said.strip() in ("0", "1", "2")):
            raise UserError(f"{path} is damaged in line {number} — it should read like '000001.jpg 0': replace it")
        if said.strip() == code:
            names.append(name)
    if not names:
        raise UserError(f"{path} names no pictures of the split {code} — replace it")
    return names


def opened(folder, wanted):
    """Those of the names that are files in a folder, and how to read one."""
    there = set(os.listdir(folder))
    return [name for name in wanted if name in there], lambda name: (folder / name).read_bytes()


def unzipped(path, wanted):
    """Those of the names that an archive holds, and how to read one; nothing is written anywhere."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is damaged: {reason(error)} — fetch it again") from None
    members = {entry.filename: entry for entry in archive.infolist()}
    if md5(path) != MD5:
        print(f"Note: {path} is not the published file, its MD5 is another one")

    def read(name):
        entry = members[f"{FOLDER}/{name}"]
        if (claimed := max(entry.file_size, entry.compress_size)) > LARGEST_FILE:
            raise ValueError(f"it claims {claimed} bytes")
        return archive.read(entry)

    return [name for name in wanted if f"{FOLDER}/{name}" in members], read


def md5(path):
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
