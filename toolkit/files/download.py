"""Downloads of published files: streamed to disk, resumed where they broke off, verified before they take their name.

What is fetched and from which mirrors is the data sets' matter. A download grows in a hidden `.part` file beside its
target. Every attempt, of this run or a later one, continues it with a Range request, because the checksum decides at
the end: a part that turns out wrong is thrown away and fetched once more from the start.
"""

import hashlib
import http.client
import os
import re
import signal
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import UserError
from toolkit.files.progress import bar
from toolkit.files.reading import is_there
from toolkit.files.writing import end_of_links, flush_folder, locked, make_folder, reason

TIMEOUT = 10  # seconds without an answer before the connection is given up
WINDOW = 30  # seconds in which a connection has to answer, and then has to bring SLOWEST bytes again and again
SLOWEST = 2**15  # bytes
LONGEST = 2 * 3600  # seconds for all of it; the next run continues
TRIES = 20  # connections to one mirror, as long as each brings the download forward
LARGEST = 2**30  # bytes


def download(path: Path, addresses: Sequence[str], checksum: str, largest: int = LARGEST) -> Path:
    """Fetch a file of at most `largest` bytes with a known MD5 or SHA-256 from the first mirror that has it."""
    make_folder(path.parent)
    target = end_of_links(path)
    left = target.with_name(f".{target.name}.part")
    reasons = []
    try:
        with locked(path.parent, f"another process is downloading to {path.parent}: waiting for it"):
            if path.is_file():  # the other process has fetched it
                return path
            with open_part(left) as file:
                part = Part(file, checksum, time.monotonic() + LONGEST)
                done = part.complete() or any(fetch_from(address, part, largest, reasons) for address in addresses)
                os.fsync(file.fileno())
            if done:
                os.replace(left, target)
                flush_folder(target.parent)
                return path
            if part.size == 0:
                left.unlink()
    except OSError as error:
        raise cannot_write(path, error) from None
    again = f"run again to continue after {part.size / 1e6:.1f} MB, " if part.size else ""
    raise UserError(
        f"{path.name} is not in {path.parent} and cannot be downloaded ({'; '.join(dict.fromkeys(reasons))}) — "
        f"{again}put it there, or try --dataset synthetic, which needs no files"
    )


@contextmanager
def open_part(path: Path) -> Iterator[BinaryIO]:
    """The file that a download is continued in. Its name can be guessed, so a link that someone laid there goes."""

    def is_ours(facts):
        return stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1

    if is_there(path) and not is_ours(os.lstat(path)):
        path.unlink()
    with open(
        path, "ab+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    ) as file:
        if not is_ours(os.fstat(file.fileno())):
            raise OSError(f"{path.name} is a link")
        yield file


class Part:
    """The file that a download grows in, with its size and its checksum so far."""

    def __init__(self, file, expected, until):
        self.file, self.expected, self.until = file, expected, until
        self.size, self.resumed = 0, False  # resumed: its bytes came over more than one connection
        self.hash = self.new_hash()
        file.seek(0)
        while block := file.read(2**16):
            self.hash.update(block)
            self.size += len(block)

    def new_hash(self):
        return hashlib.new("md5" if len(self.expected) == 32 else "sha256", usedforsecurity=False)

    def clear(self):
        self.file.truncate(0)
        self.size, self.hash = 0, self.new_hash()

    def add(self, data):
        try:
            self.file.write(data)
            self.file.flush()
        except OSError as error:  # a full disk is not the network's fault
            raise cannot_write(self.file.name, error) from None
        self.hash.update(data)
        self.size += len(data)

    def complete(self):
        """Whether it is the file that is wanted; its size on disk shows whether another process wrote to it too."""
        return self.hash.hexdigest() == self.expected and os.fstat(self.file.fileno()).st_size == self.size


def fetch_from(address, part, largest, reasons):
    """Complete a part from one mirror; if that fails, add the reason to the list and return False."""
    restarted = False
    for tries_left in reversed(range(TRIES)):
        before = part.size
        try:
            fetch(address, part, largest)
        except (OSError, ValueError, http.client.HTTPException) as error:  # timeouts are OSErrors
            if part.size > before and tries_left and not isinstance(error, TooSlow):
                continue
            why = reason(getattr(error, "reason", error))
            reasons.append(" ".join(str(why).split())[:200])
            return False
        if part.complete():
            return True
        mixed = part.resumed
        part.clear()
        if restarted or not mixed:
            break
        restarted = True
    reasons.append("wrong checksum")
    return False


def fetch(address, part, largest):
    """Append the rest of a file to its part over one connection; raises if the connection ends early."""
    if time.monotonic() > part.until:
        raise TooSlow("out of time")
    request = urllib.request.Request(address, headers={"Range": f"bytes={part.size}-"} if part.size else {})
    try:
        with at_most(WINDOW):
            answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not part.size:
            raise
        part.clear()  # it is as long as the file, or longer, and wrong
        return fetch(address, part, largest)
    with answer:
        start = first_byte(answer)
        if start not in (0, part.size):
            if part.size == 0:
                raise ValueError("the server sent another range than asked for")
            part.clear()
            return fetch(address, part, largest)
        if start == 0:
            part.clear()
        part.resumed = part.size > 0
        length = answer.headers.get("Content-Length")
        total = part.size + int(length) if length else None
        if total and total > largest:
            raise too_large(part, largest)
        with bar(total, address.rsplit("/", 1)[1], unit="B", done=part.size) as shown:
            read = getattr(answer, "read1", answer.read)  # read1 returns what came before a break
            since, size = time.monotonic(), part.size
            while True:
                with at_most(WINDOW):
                    data = read(2**16)
                if not data:
                    break
                if time.monotonic() > part.until:
                    raise TooSlow(f"not done after {LONGEST / 3600:.2g} hours")
                if time.monotonic() - since > WINDOW:
                    if part.size - size < SLOWEST:
                        raise TooSlow(f"{part.size - size} bytes in {WINDOW} seconds")
                    since, size = time.monotonic(), part.size
                if part.size + len(data) > largest:
                    raise too_large(part, largest)
                part.add(data)
                shown.update(len(data))
    if total and part.size < total:
        raise ConnectionError(f"the connection ended after {part.size} of {total} bytes")


class TooSlow(OSError):
    """A server that answers, but so slowly that it would hold us for ever."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TooSlow once a block has taken so long: a socket's own timeout begins anew with every byte."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return

    def give_up(*_):
        raise TooSlow(f"no answer in {seconds} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def first_byte(answer):
    """Where in the file an answer begins: 0 for servers that ignore ranges, None where they do not say."""
    if answer.status != 206:
        return 0
    found = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range") or "")
    return int(found[1]) if found else None


def too_large(part, largest):
    part.clear()
    return ValueError(f"more than {largest} bytes")


def cannot_write(path, error):
    return UserError(f"cannot write {path}: {reason(error)} — make room or choose another place")
