"""This process: its cores, its memory, and how it ends where mlx.launch has started it.

MLX computes outside of Python. There the sum that a lost rank should have joined may never end, and then no signal
handler of Python runs either. So a thread looks after signals, the launcher, and waiting that takes long.
"""

import ctypes
import functools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Parameters of glibc's mallopt, from its malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
RANK = ("MLX_RANK", "OMPI_COMM_WORLD_RANK")  # variables in which mlx.launch and mpirun tell a process which one it is
LOST = "another rank was lost — start again; a training goes on with --resume from its last whole epoch"
PATIENCE = 5  # seconds that others have to speak, or this process to end by itself
SLOW = 30  # seconds of waiting after which a line says so

neighbours = 1  # processes of this training on this machine, with this one
waiting_since: float | None = None  # when this one began to wait for others


def on_cpu() -> bool:
    """Whether the default device is a CPU."""
    import mlx.core as mx

    return mx.default_device() == mx.Device(mx.cpu)


def cores() -> int:
    """Cores for this process: those that it may use, shared with its neighbours."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // neighbours)


@functools.cache
def keep_memory() -> None:
    """Have glibc keep freed memory instead of returning it to the system."""
    # Without it a step of the default model takes 1.1 times as long, although MLX 0.32 keeps some memory itself.
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # another C library than glibc has no mallopt
        libc = ctypes.CDLL(None)
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26), (ARENA_MAX, 1)):
            libc.mallopt(parameter, value)


# Several processes


def launched_as() -> int | None:
    """The rank that a launcher has given this process; None if it is alone."""
    hosts = os.environ.get("MLX_HOSTFILE")
    if hosts and os.path.isfile(hosts) and os.path.getsize(hosts) < 2:
        return None  # mlx.launch -n 1 writes an empty line there, which MLX cannot read
    return next((int(os.environ[name]) for name in RANK if os.environ.get(name, "").isdecimal()), None)


@contextmanager
def waiting() -> Iterator[None]:
    """A block that may wait for other ranks; the thread beside it sees how long."""
    global waiting_since
    waiting_since = time.monotonic()
    try:
        yield
    finally:
        waiting_since = None


@contextmanager
def watched() -> Iterator[None]:
    """Let this process end by a signal, and with its launcher, even while MLX waits for other ranks."""
    if launched_as() is None:
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
        signal.signal(signal.SIGTERM, before if launched_as() else signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(writing)  # ends the thread
        watching.join()


def watch(signals: int, launcher: int) -> None:
    """Look after a process until the pipe of its signals is closed."""
    pressed = said = None
    while True:
        ready, _, _ = select.select([signals], [], [], 1)
        numbers = os.read(signals, 64) if ready else b""
        if ready and not numbers:
            os.close(signals)
            return
        if signal.SIGTERM in numbers:  # from mlx.launch, which has seen another one end
            end(f"error: {LOST}")
        if signal.SIGINT in numbers:
            pressed = pressed or time.monotonic()
        if pressed and time.monotonic() - pressed > PATIENCE:
            end("interrupted — files written so far are kept; a training goes on with --resume", 130)
        if os.getppid() != launcher:
            end("")
        since = waiting_since
        if since and since != said and time.monotonic() - since > SLOW:
            said, why = since, "it prepares its data, is slow, or does not answer; Ctrl-C ends all"
            print(f"Waiting for another rank for {SLOW} s: {why}", file=sys.stderr)


def end(message: str, status: int = 2) -> None:
    """End this process at once, whatever its other threads do: files are whole at any time."""
    if message:
        with suppress(OSError, ValueError):
            print(message, file=sys.stderr)
    os._exit(status)
