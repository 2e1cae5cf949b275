"""Write files so that a crash leaves the old or the new version, never a partial one.

`targets.py` decides whether a file may be replaced. Symbolic links are followed, devices and pipes are written to
directly, and `-` is standard output.
"""

import errno
import fcntl
import functools
import os
import re
import secrets
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import UserError

STDOUT = "-"
PART = ".vae-"  # prefix of files that are being written
DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/(self|thread-self|\d+)/fd/\d+")


def make_folder(folder: Path | str) -> None:
    """Create a folder and its parents if they are missing."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder} cannot be a folder: a file is in the way — choose another name") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot create the folder {folder}: {reason(error)} — choose another place") from None


@contextmanager
def replacing(path: Path | str, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write to, in the folder of `path`; renamed into place at the end of the block, removed if that fails.

    With `durable`, the file and its name are on the disk when the block ends, even after a power failure.
    """
    make_folder(Path(path).parent)
    part = None
    try:
        with writing_errors(path):
            target = end_of_links(path)
            sweep(target.parent)
            part, handle = new_part(target.parent)
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                with suppress(OSError):  # there is no old file, or its mode cannot be set
                    os.fchmod(handle, os.stat(target).st_mode & 0o777)
                if durable:
                    os.fsync(handle)
                os.replace(part, target)  # while it is still open and locked
            if durable:
                flush_folder(target.parent)
    finally:
        if part:
            with suppress(OSError):
                part.unlink(missing_ok=True)


@contextmanager
def writing_errors(path: Path | str) -> Iterator[None]:
    """Turn errors of writing a file into one line; a broken pipe passes."""
    try:
        yield
    except IsADirectoryError:
        raise UserError(f"cannot write {path}: a folder is in the way — choose another name") from None
    except BrokenPipeError:
        raise
    except OSError as error:
        room = "make room or " if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        raise UserError(f"cannot write {path}: {reason(error)} — {room}choose another place") from None


def end_of_links(path: Path | str) -> Path:
    """The target of a link, which is written while the link stays. Folders on the way keep their names, as
    those below /proc/PID/root mean something else in another place."""
    path = Path(path)
    with suppress(FileNotFoundError):
        os.stat(path)  # raises for circular links
    while path.is_symlink():
        path = path.parent / os.readlink(path)
    return path


def new_part(folder: Path) -> tuple[Path, int]:
    """A new file with an unpredictable name, locked so that other processes see that it is in use."""
    while True:
        part = folder / f"{PART}{secrets.token_hex(8)}.part"
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return part, handle
        os.close(handle)  # another process removed it before it was locked


@functools.cache
def sweep(folder: Path) -> None:
    """Remove the files that killed processes left unfinished in a folder; once in each process."""
    for part in folder.glob(f"{PART}{'[0-9a-f]' * 16}.part"):
        with suppress(OSError):
            handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is being written
                part.unlink()
            finally:
                os.close(handle)


def flush_folder(folder: Path) -> None:
    """Flush a folder's names to the disk."""
    with suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write(path: Path | str, data: bytes, durable: bool = False) -> None:
    """Write bytes to a file at once, deferring Ctrl-C; `durable` survives a power failure."""
    if is_stream(path):
        out = str(path) == STDOUT
        with writing_errors(path), open(1 if out else path, "wb", closefd=not out) as file:
            file.write(data)
        return
    with uninterrupted(), replacing(path, durable) as file:
        file.write(data)


def is_stream(path: Path | str) -> bool:
    """Whether a path is a stream, not a regular file: standard output, a pipe, a device, or a file descriptor."""
    if str(path) == STDOUT:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISDIR(mode) and (not stat.S_ISREG(mode) or DESCRIPTOR.fullmatch(str(path)) is not None)


@contextmanager
def locked(folder: Path | str, waiting: str | None = None) -> Iterator[None]:
    """Lock a folder during the block. If another process holds it: print `waiting` and wait, or raise UserError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise UserError(f"another process is writing to {folder} — wait for it, or choose another") from None
            print(waiting, file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C until the block ends, so files that belong together stay consistent."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def reason(error: BaseException) -> str:
    """The message of an error, without its number and file name."""
    with suppress(Exception):  # some errors of libraries cannot be printed
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return type(error).__name__
