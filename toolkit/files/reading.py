"""Reading what others wrote: regular files only, and never more than is allowed or claimed.

What the bytes mean is the readers' matter. A file that is not what it should be raises ValueError, one that the system
cannot read OSError.
"""

import hashlib
import os
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO


def is_there(path: Path | str) -> bool:
    """Whether a name exists; raises OSError if that cannot be found out."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def opened(path: Path | str, most: int | None = None) -> BinaryIO:
    """A regular file of at most `most` bytes. A pipe would wait for ever, a device may have no end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer opens at once
    file = os.fdopen(handle, "rb") if stat.S_ISREG(os.fstat(handle).st_mode) else os.close(handle)
    if file is None:
        raise ValueError("it is not a regular file")
    if most is not None and os.fstat(handle).st_size > most:
        file.close()
        raise ValueError(f"it is larger than {most / 2**20:.3g} MiB")
    return file


def contents(path: Path | str, most: int) -> bytes:
    """All bytes of a file, at most `most`."""
    with opened(path, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # and no more, should it grow


def checksum_of(file: BinaryIO, like: str) -> str:
    """The MD5 or SHA-256 of an open file in hexadecimal digits, whichever `like` is."""
    digest = hashlib.new("md5" if len(like) == 32 else "sha256", usedforsecurity=False)
    file.seek(0)
    while block := file.read(2**16):
        digest.update(block)
    return digest.hexdigest()


def check_directory(file: BinaryIO, most: int) -> None:
    """Stop at a zip file whose directory has more than `most` bytes: ZipFile reads it all, into ten times its room."""
    if (end := zipfile._EndRecData(file)) and end[zipfile._ECD_SIZE] > most:
        raise ValueError("it has far too many entries")


def unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry of a zip file, as long as its directory claims; ZipFile.read unpacks a gigabyte before it compares."""
    with archive.open(entry) as file:
        data = file.read(entry.file_size)
    if len(data) != entry.file_size:
        raise ValueError(f"{entry.filename} holds less than it claims")
    return data
