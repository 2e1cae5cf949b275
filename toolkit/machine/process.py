"""The machine: its cores, its kind of device, and how it keeps memory."""

import ctypes
import functools
import os
import sys
from contextlib import suppress

# Parameters of glibc's mallopt, from its malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def on_cpu() -> bool:
    """Whether the default device is a CPU."""
    import mlx.core as mx

    return mx.default_device() == mx.Device(mx.cpu)


RANK = ("MLX_RANK", "OMPI_COMM_WORLD_RANK")  # variables in which mlx.launch and mpirun tell a process which one it is
neighbours = 1  # processes of this training on this machine, with this one
waiting_since: float | None = None  # when this one began to wait for others


def launched_as() -> int | None:
    """The rank that a launcher has given this process; None if it is alone."""
    hosts = os.environ.get("MLX_HOSTFILE")
    if hosts and os.path.isfile(hosts) and os.path.getsize(hosts) < 2:
        return None  # mlx.launch -n 1 writes an empty line there, which MLX cannot read
    return next((int(os.environ[name]) for name in RANK if os.environ.get(name, "").isdecimal()), None)


def cores() -> int:
    """Cores for this process: those that it may use, shared with its neighbours."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // neighbours)


@functools.cache
def keep_memory() -> None:
    """Keep freed memory instead of returning it to the system: element-wise work on Linux is 4 times faster with it."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # another C library than glibc has no mallopt
        libc = ctypes.CDLL(None)
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26), (ARENA_MAX, 1)):
            libc.mallopt(parameter, value)
