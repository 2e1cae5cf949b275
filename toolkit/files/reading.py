"""Read untrusted files: regular files only, and never more than the limit or the size they claim.

Callers interpret the bytes. An invalid file raises ValueError; a file that the system cannot read raises OSError.
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
    """Open a regular file of at most `most` bytes: a pipe could wait for ever, a device may have no end."""
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
        return file.read(os.fstat(file.fileno()).st_size)  # no more, even if it grows


def checksum_of(file: BinaryIO, like: str) -> str:
    """The MD5 or SHA-256 of an open file as hexadecimal digits, the same kind as `like`."""
    digest = hashlib.new("md5" if len(like) == 32 else "sha256", usedforsecurity=False)
    file.seek(0)
    while block := file.read(2**16):
        digest.update(block)
    return digest.hexdigest()


def check_directory(file: BinaryIO, most: int) -> None:
    """Reject a zip file whose directory exceeds `most` bytes: ZipFile reads all of it, into ten times the memory."""
    if (end := zipfile._EndRecData(file)) and end[zipfile._ECD_SIZE] > most:
        raise ValueError("it has far too many entries")


def unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Unpack an entry of a zip file, up to the size its directory claims; ZipFile.read checks only afterwards."""
    with archive.open(entry) as file:
        data = file.read(entry.file_size)
    if len(data) != entry.file_size:
        raise ValueError(f"{entry.filename} is shorter than it claims")
    return data
