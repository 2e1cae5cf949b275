"""This process: its cores, its memory, and how it ends under mlx.launch.

MLX computes outside Python. If a rank is lost, a sum over the ranks may never return, and meanwhile Python's signal
handlers do not run. So a thread watches for signals, the end of the launcher, and long waits.
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

# Parameters of glibc's mallopt, from malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
PARENT_DEATH_SIGNAL = 1  # of prctl, from Linux's prctl.h
RANK = ("MLX_RANK", "OMPI_COMM_WORLD_RANK")  # environment variables set by mlx.launch and mpirun
LOST = "another rank was lost — start again; --resume continues a training after its last complete epoch"
PATIENCE = 5  # seconds for other ranks to print their error, or for this process to end by itself
SLOW = 30  # seconds of waiting before a message is printed

neighbours = 1  # processes of this training on this machine, including this one
waiting_since: float | None = None  # when this process began to wait for other ranks


def on_cpu() -> bool:
    """Whether the default device is a CPU."""
    import mlx.core as mx

    return mx.default_device() == mx.Device(mx.cpu)


def cores() -> int:
    """Cores for this process: its share of the usable ones."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // neighbours)


@functools.cache
def keep_memory() -> None:
    """Make glibc keep freed memory; otherwise a step of the default model takes 1.1 times as long."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # only glibc has mallopt
        libc = ctypes.CDLL(None)
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26), (ARENA_MAX, 1)):
            libc.mallopt(parameter, value)


def begin_phase() -> None:
    """Free the GPU's cached memory: training, scoring and fitting need blocks of different sizes."""
    import mlx.core as mx

    if not on_cpu():
        mx.clear_cache()


# Several processes


def launched_as() -> int | None:
    """The rank of this process under a launcher; None if it runs alone."""
    hosts = os.environ.get("MLX_HOSTFILE")
    if hosts and os.path.isfile(hosts) and os.path.getsize(hosts) < 2:
        return None  # mlx.launch -n 1 writes an empty line to it, which MLX cannot read
    ranks = (os.environ.get(name, "") for name in RANK)
    return next((int(rank) for rank in ranks if rank.isdecimal() and len(rank) < 10), None)


@contextmanager
def waiting() -> Iterator[None]:
    """Mark a block that may wait for other ranks, so that `watch` can report long waits."""
    global waiting_since
    waiting_since = time.monotonic()
    try:
        yield
    finally:
        waiting_since = None


@contextmanager
def watched() -> Iterator[None]:
    """Let signals, or the end of the launcher, end this process even while MLX waits for other ranks."""
    if launched_as() is None:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # only signals with a handler arrive in the pipe
    if sys.platform == "linux":  # also while ranks.join() blocks all Python threads
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
    watching = threading.Thread(target=watch, args=(reading, os.getppid()), daemon=True)
    watching.start()
    try:
        yield
    finally:
        # Rank 0 still has to print what happened before mlx.launch ends it.
        signal.signal(signal.SIGTERM, before if launched_as() else signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(writing)  # ends the thread
        watching.join()


def watch(signals: int, launcher: int) -> None:
    """Watch a process until the pipe of its signals is closed."""
    pressed = reported = None
    while True:
        ready, _, _ = select.select([signals], [], [], 1)
        numbers = os.read(signals, 64) if ready else b""
        if ready and not numbers:
            os.close(signals)
            return
        if signal.SIGTERM in numbers:  # from mlx.launch, after another rank has ended
            end(f"error: {LOST}")
        if signal.SIGINT in numbers:
            pressed = pressed or time.monotonic()
        if pressed and time.monotonic() - pressed > PATIENCE:
            end("interrupted — files written so far are kept; --resume continues a training", 130)
        if os.getppid() != launcher:
            end("")
        since = waiting_since
        if since and since != reported and time.monotonic() - since > SLOW:
            reported, why = since, "it is still loading its data, slow, or not responding; Ctrl-C ends all ranks"
            print(f"Waiting for another rank for {SLOW} s: {why}", file=sys.stderr)


def end(message: str, status: int = 2) -> None:
    """End this process at once, whatever its other threads do; files are complete at any time."""
    if message:
        with suppress(OSError, ValueError):
            print(message, file=sys.stderr)
    os._exit(status)
