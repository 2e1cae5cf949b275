"""Which device computes, and what must be set before MLX is imported.

On Linux the MLX wheel for CPUs multiplies matrices with a slow reference BLAS; an OpenBLAS that is loaded first takes
its place. Memory that is kept instead of given back to the system saves another quarter of the time.
"""

import ctypes
import os
import sys
from contextlib import suppress

from errors import UserError

OPENBLAS = ("libopenblas.so.0", "libopenblas.so")
# Parameters of glibc's mallopt, from malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def start(cpu=False, compile="auto"):
    """Choose the device and import MLX; returns what the options print of it.

    Compiling pays on a GPU at once; on a CPU every function costs seconds of g++, so there it is asked for.
    """
    blas = prepare_linux() if sys.platform == "linux" else None
    try:
        import mlx.core as mx
    except ImportError as error:
        package = "mlx" if sys.platform == "darwin" else "mlx[cpu]"
        raise UserError(f'MLX does not start: {error} — pip install "{package}"') from None
    if cpu:
        mx.set_default_device(mx.cpu)
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    if compile == "off" or (compile == "auto" and on_cpu):
        mx.disable_compile()
    else:
        mx.enable_compile()
    if not on_cpu:
        name = mx.device_info().get("device_name", "")
        return f"GPU ({name})" if name else "GPU"
    details = [f"{cores()} core{'s' if cores() > 1 else ''}"]
    if sys.platform == "linux":
        details.append(blas or "reference BLAS: slow, see Troubleshooting in README.md")
    return f"CPU, {', '.join(details)}"


def prepare_linux():
    """Set the memory allocator and load OpenBLAS; returns its name and version, or None where there is none."""
    with suppress(OSError, AttributeError):  # another C library than glibc has no mallopt
        libc = ctypes.CDLL(None)
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26), (ARENA_MAX, 1)):
            libc.mallopt(parameter, value)
    for name in OPENBLAS:
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            library.openblas_set_num_threads(1)  # cpu.py keeps every core busy with a stream of its own
            library.openblas_get_config.restype = ctypes.c_char_p
            return " ".join(library.openblas_get_config().decode().split()[:2])
    return None


def cores():
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
