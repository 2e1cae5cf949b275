"""A cache of decoded images: many files → one array on disk, decoded once on all cores.

The array is a plain `.npy` file; a `.json` file next to it describes the source files, so the cache is rebuilt when
they change. Data sets define the files of a split; `decoding.py` decodes a single file.
"""

import json
import math
import os
import shutil
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple, TypedDict

import numpy as np

from toolkit.datasets.decoding import Format, Picture, decode, strict_pillow
from toolkit.datasets.factors import Factors
from toolkit.errors import UserError
from toolkit.files.progress import bar, quiet_libraries
from toolkit.files.reading import contents, opened
from toolkit.files.records import Whole, record
from toolkit.files.writing import locked, make_folder, reason, replacing, write
from toolkit.machine import process
from toolkit.wording import as_text, counted

VERSION = 4  # of the pixels that decoding.py returns; a change rebuilds every cache
LARGEST_FACTS = 2**25  # bytes: labels of millions of pictures, and names of those that cannot be read
BLOCK = 1024  # pictures submitted to the threads at once


class Pictures(NamedTuple):
    """The image files of a split, before any is opened."""

    where: str  # where they are, for messages
    key: str  # the name of their folder in the cache
    stamp: str  # a hash that changes with the files or problems
    names: Callable  # () → file names, and a class number for each (or None)
    opener: Callable  # () → a function that opens the file of a name
    class_names: tuple | None = None
    total: int | None = None  # images that there should be; None for as many as there are
    problems: Sequence = ()  # (name, reason) of files and folders that could not be inspected
    left_out: Mapping[str, int] = MappingProxyType({})  # number of other files by kind
    factors: Factors | None = None  # that made the images


class Facts(TypedDict):
    """The metadata of a cached array."""

    version: int
    stamp: str
    checksum: Whole
    count: Whole
    total: Whole
    oblong: Whole  # how many were not square
    labels: list[Whole] | None
    skipped: list[tuple[str, str]]


class Stored:
    """An array in a file, read when indexed, without keeping it in memory.

    Compared with a memory map, a batch of 128 scattered images takes a third of the time when the file is not in the
    system's cache and half of it when it is, and no page counts as memory of this process.
    """

    def __init__(self, path: Path, checksum: int):
        self.path, self.checksum = path, checksum  # of its bytes
        with opened(path) as file:
            np.lib.format.read_magic(file)
            self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(file)
            self.offset = file.tell()
            self.row = math.prod(self.shape[1:])
            if self.dtype != np.uint8 or self.offset + len(self) * self.row != os.fstat(file.fileno()).st_size:
                raise ValueError("its size does not match its header")
            self.handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.handle)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        numbers = np.arange(len(self))[chosen]
        data = b"".join(os.pread(self.handle, self.row, self.offset + int(i) * self.row) for i in numbers)
        if len(data) != len(numbers) * self.row:
            raise UserError(f"{self.path} was truncated while it was read — run the command again")
        return np.frombuffer(data, np.uint8).reshape(-1, *self.shape[1:])


def load(
    pictures: Pictures, split: str, cache_dir: Path | str, limit: int | None, wanted: Format
) -> tuple[Stored, np.ndarray | None, Facts]:
    """Images (N, size, size, channels), labels or None, and facts: how many files there are and which were skipped."""
    size, some = wanted.size, f"_first_{limit}" if limit else ""
    how = "" if wanted.fit == "crop" else f"_{wanted.fit}"
    path = Path(cache_dir) / pictures.key / f"{split}_{size}x{size}x{wanted.channels}{how}{some}.npy"
    stored = read(path, pictures, wanted)
    if stored is None:
        make_folder(path.parent)
        with locked(path.parent, "another process is decoding the same images: waiting for it"):
            stored = read(path, pictures, wanted) or fill(path, pictures, limit, wanted)
    images, facts = stored
    labels = None if facts["labels"] is None else np.array(facts["labels"], np.int32)
    return images, labels, facts


def read(path, pictures, wanted):
    """The cached array and its facts; None if they are missing, damaged or out of date."""
    with suppress(Exception):
        facts = record(Facts, contents(path.with_suffix(".json"), LARGEST_FACTS))
        images, labels = Stored(path, facts["checksum"]), facts["labels"]
        if (
            (facts["version"], facts["stamp"]) == (VERSION, pictures.stamp)
            and images.shape == (facts["count"], wanted.size, wanted.size, wanted.channels)
            and (labels is None) == (pictures.class_names is None)
            and (labels is None or (len(labels) == len(images) and max(labels) < len(pictures.class_names)))
        ):
            return images, facts
    return None


def fill(path, pictures, limit, wanted):
    """Decode all files into one array on disk; unreadable ones are skipped and listed in the facts."""
    names, labels = pictures.names()
    total, names = pictures.total or len(names), names[:limit]
    shape = wanted.size, wanted.size, wanted.channels
    needed, free = len(names) * math.prod(shape), shutil.disk_usage(path.parent).free
    if needed > free:
        why = f"need {needed / 2**20:.0f} MiB in {path.parent}, {free / 2**20:.0f} MiB are free"
        ways = "make room, choose another --cache_dir, or use fewer images with --limit"
        raise UserError(f"the decoded images {why} — {ways}")
    print(f"Decoding {counted(len(names), 'image')} once, into {path}")
    path.with_suffix(".json").unlink(missing_ok=True)
    kept, skipped, is_unread, checksum, oblong = [], list(pictures.problems), False, 0, 0
    images = decoded(names, pictures.opener(), wanted)
    with replacing(path, durable=True) as file, closing(images):
        write_header(file, (len(names), *shape))
        for i, image in enumerate(images):
            if isinstance(image, str):
                skipped.append([names[i], image])
                is_unread |= isinstance(image, Unread)
            else:
                file.write(data := image.pixels.tobytes())
                checksum = zlib.crc32(data, checksum)
                oblong += not image.was_square
                kept.append(i)
        if not kept:
            why = skipped[-len(names)][1]
            raise UserError(f"none of the images in {pictures.where} can be read (first error: {why}) — replace them")
        write_header(file, (len(kept), *shape))
    facts = {"version": VERSION, "stamp": pictures.stamp, "checksum": checksum, "count": len(kept), "total": total}
    facts |= {"oblong": oblong, "labels": labels and [labels[i] for i in kept], "skipped": skipped}
    if not is_unread:  # otherwise the next run will try these files again
        write(path.with_suffix(".json"), json.dumps(facts).encode())
    return Stored(path, checksum), facts


def names(pictures: Pictures, limit: int | None, facts: dict) -> list[str]:
    """The names of the files that were decoded, in order."""
    skipped = {name for name, _ in facts["skipped"]}
    return [as_text(name) for name in pictures.names()[0][:limit] if name not in skipped]


def decoded(names: Sequence, open_picture: Callable[..., BinaryIO], wanted: Format) -> Iterator[Picture | str]:
    """Each file as a picture or the reason why it is unreadable, in order; decoded on all cores, with a bar."""

    def picture(name):
        try:
            with open_picture(name) as file:
                return decode(file, wanted)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises almost anything on broken files
            why = " ".join(reason(error).split())[:200]
            return Unread(why) if getattr(error, "errno", None) else why

    pool, shown = ThreadPoolExecutor(process.cores()), bar(len(names), "Decoding")
    with strict_pillow(), quiet_libraries(), pool, shown as counter:
        for start in range(0, len(names), BLOCK):
            for image in pool.map(picture, names[start : start + BLOCK]):
                yield image
                counter.update()


class Unread(str):
    """The reason for a read error, which may be temporary; a plain str is a fault in the contents."""


def write_header(file, shape):
    """Write the header of a `.npy` file, of the same length for any number of images."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
