"""Downloads of published files: streamed to disk, resumed after a break, verified before they get their final name.

The data sets define files and mirrors. A download is collected in a hidden `.part` file next to its target. Every
attempt, now or in a later run, continues it with a Range request; if the checksum of the complete file is wrong, it is
downloaded again from the start.
"""

import errno
import http.client
import os
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import UserError
from toolkit.files.progress import bar
from toolkit.files.reading import checksum_of, is_there
from toolkit.files.writing import end_of_links, flush_folder, locked, make_folder, reason, writing_errors

TIMEOUT = 10  # seconds without data before a connection is dropped
WINDOW = 30  # seconds after which a connection slower than SLOWEST is dropped
SLOWEST = 4000  # bytes a second
TRIES = 20  # connections to one mirror, while each makes progress
LARGEST = 2**30  # bytes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a full disk


def download(path: Path, addresses: Sequence[str], checksum: str, largest: int = LARGEST) -> Path:
    """Fetch a file of at most `largest` bytes with a known MD5 or SHA-256 from the first mirror that provides it."""
    make_folder(path.parent)
    target = end_of_links(path)
    part = target.with_name(f".{target.name}.part")
    reasons: dict[str, None] = {}
    waiting = f"another process is downloading to {path.parent}: waiting for it"
    with writing_errors(path), locked(path.parent, waiting):
        if path.is_file():  # the other process has fetched it
            return path
        with open_part(part) as file:
            done = checksum_of(file, checksum) == checksum or any(
                fetch_from(address, file, checksum, largest, reasons) for address in addresses
            )
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
        if done:
            os.replace(part, target)
            flush_folder(target.parent)
            return path
        if not size:
            part.unlink()
    again = f"run again to continue after {size / 1e6:.1f} MB, " if size else ""
    why = f"is not in {path.parent} and cannot be downloaded ({'; '.join(reasons)})"
    raise UserError(f"{path.name} {why} — {again}put it there, or try --dataset synthetic, which needs no files")


def open_part(path: Path) -> BinaryIO:
    """The file in which a download continues. Its name is predictable, so a link planted there is removed."""
    if is_there(path) and not (stat.S_ISREG((facts := os.lstat(path)).st_mode) and facts.st_nlink == 1):
        path.unlink()
    return open(path, "ab+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666))


def fetch_from(address, file, checksum, largest, reasons):
    """Complete a part from one mirror; if that fails, add the reason and return False."""
    whole = False  # whether this mirror sent the whole file
    for _ in range(TRIES):
        before = file.seek(0, os.SEEK_END)
        whole |= not before
        try:
            fetch(address, file, largest)
        except (OSError, ValueError, http.client.HTTPException) as error:  # timeouts are OSErrors
            if getattr(error, "errno", None) in FULL:
                raise  # not a network error
            why = " ".join(str(reason(getattr(error, "reason", error))).split())[:200]
            if file.seek(0, os.SEEK_END) == before or isinstance(error, TooSlow):
                break
            continue
        if checksum_of(file, checksum) == checksum:
            return True
        file.truncate(0)
        why = "wrong checksum"
        if whole:
            break
    reasons[why] = None
    return False


def fetch(address, file, largest):
    """Append the rest of a file to its part over one connection; raises if the connection ends early."""
    size = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(address, headers={"Range": f"bytes={size}-"} if size else {})
    begun = time.monotonic()
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is as long as the file, or longer, and wrong
            file.truncate(0)
        raise
    with answer:
        start = size if answer.status == 206 else 0  # other servers ignore ranges
        file.truncate(start)
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        done = start
        with bar(total, address.rsplit("/", 1)[1], unit="B", done=done) as shown:
            read = getattr(answer, "read1", answer.read)  # read1 returns data received before a break
            while max(done, total or 0) <= largest and (data := read(2**16)):
                file.write(data)
                file.flush()
                done += len(data)
                shown.update(len(data))
                if done - start < SLOWEST * (time.monotonic() - begun - WINDOW):
                    raise TooSlow(f"{done - start} bytes in {time.monotonic() - begun:.0f} seconds")
    if max(done, total or 0) > largest:
        file.truncate(0)
        raise ValueError(f"more than {largest} bytes")
    if total and done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


class TooSlow(OSError):
    """A server that answers too slowly to finish."""
