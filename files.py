"""Writing files so that a crash leaves the old file or the new one, never half of one.

What goes into a file is decided elsewhere: checkpoint.py, images.py and training.py.
"""

import os
import signal
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


def write(path, data, durable=False):
    """Put bytes into a file: written beside its name, then renamed into place; `durable` survives a power cut."""
    path = Path(path)
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with uninterrupted():
        try:
            with open(part, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(part, path)
        except IsADirectoryError:
            raise UserError(f"cannot write {path}: a folder is in its way — choose another name") from None
        except OSError as error:
            raise UserError(f"cannot write {path}: {reason(error)} — make room or choose another place") from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


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
