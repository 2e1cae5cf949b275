"""What a process that mlx.launch has started does when the others fail it: it ends, and says why where it can.

MLX computes outside of Python. There the sum that a lost rank should have joined may never end, and then no signal
handler of Python runs either. So a thread looks after signals, the launcher, and waiting that takes long.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from toolkit.machine import process

LOST = "another rank was lost — start again; a training goes on with --resume from its last whole epoch"
PATIENCE = 5  # seconds that others have to speak, or this process to end by itself
SLOW = 30  # seconds of waiting after which a line says so


def is_quiet() -> bool:
    """Whether another one of several processes that work together prints."""
    return bool(process.launched_as())


@contextmanager
def watched() -> Iterator[None]:
    """Let this process end by a signal, and with its launcher, even while MLX waits for other ranks."""
    if process.launched_as() is None:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # a signal with a handler arrives in the pipe
    watching = threading.Thread(target=watch, args=(reading, os.getppid()), daemon=True)
    watching.start()
    try:
        yield
    finally:
        # Who prints can say what happened before mlx.launch ends it.
        signal.signal(signal.SIGTERM, before if is_quiet() else signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(writing)  # ends the thread
        watching.join()


def watch(signals: int, launcher: int) -> None:
    """Look after a process until the pipe of its signals is closed."""
    pressed = said = None
    while True:
        ready, _, _ = select.select([signals], [], [], 1)
        if ready and not (numbers := os.read(signals, 64)):
            os.close(signals)
            return
        if ready and signal.SIGTERM in numbers:  # from mlx.launch, which has seen another one end
            end(f"error: {LOST}")
        if ready and signal.SIGINT in numbers:
            pressed = pressed or time.monotonic()
        if pressed and time.monotonic() - pressed > PATIENCE:
            end("interrupted — files written so far are kept; a training goes on with --resume", 130)
        if os.getppid() != launcher:
            end("")
        since = process.waiting_since
        if since and since != said and time.monotonic() - since > SLOW:
            said = since
            print(
                f"Waiting for another rank for {SLOW} s: it prepares its data, is slow, or does not answer; Ctrl-C "
                "ends all",
                file=sys.stderr,
            )


def end(message: str, status: int = 2) -> None:
    """End this process at once, whatever its other threads do: files are whole at any time."""
    if message:
        with suppress(OSError, ValueError):
            print(message, file=sys.stderr)
    os._exit(status)
