"""Writing files so that a crash leaves the old file or the new one, never half of one.

What goes into a file is decided elsewhere: checkpoint.py, images.py, training.py, datasets/cache.py.
"""

import fcntl
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from errors import UserError


def make_folder(folder):
    """Make a folder and its parents where they are missing."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder} cannot be a folder: a file is in its way — choose another name") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot make the folder {folder}: {reason(error)} — choose another place") from None


@contextmanager
def replacing(path):
    """A file to write to, beside its name; renamed into place at the end of the block, gone if that fails."""
    path = Path(path)
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    except IsADirectoryError:
        raise UserError(f"cannot write {path}: a folder is in its way — choose another name") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)} — make room or choose another place") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write(path, data, durable=False):
    """Put bytes into a file in one go, undisturbed by Ctrl-C; `durable` survives a power cut."""
    with uninterrupted(), replacing(path) as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def locked(folder, waiting=None):
    """Keep a folder to this process while the block runs; if another has it, say `waiting` and wait, or stop."""
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
def uninterrupted():
    """Hold back Ctrl-C until the block has ended, so that files that belong together stay together."""
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


def reason(error):
    """What the system says of an error, without its number and file name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
