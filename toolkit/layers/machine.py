"""The machine, and what must be done before MLX is imported.

On Linux the MLX wheel for CPUs multiplies matrices with a slow reference BLAS; a better one that is loaded before MLX
takes its place. Keeping freed memory instead of returning it to the system saves time as well.
"""

import ctypes
import functools
import os
import sys
from contextlib import suppress
from pathlib import Path

MLX_CAME_FIRST = "mlx.core" in sys.modules
# Name, file names, the function that sets its threads, and the one that tells its version.
LIBRARIES = (
    ("MKL", ("libmkl_rt.so.3", "libmkl_rt.so.2", "libmkl_rt.so"), "MKL_Set_Num_Threads", None),
    ("OpenBLAS", ("libopenblas.so.0", "libopenblas.so"), "openblas_set_num_threads", "openblas_get_config"),
    ("BLIS", ("libblis.so.4", "libblis.so"), "bli_thread_set_num_threads", "bli_info_get_version_str"),
)
# Parameters of glibc's mallopt, from its malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


@functools.cache
def prepare() -> str | None:
    """Set the memory allocator and load the best BLAS there is; returns its name and version, None without one."""
    if sys.platform != "linux" or MLX_CAME_FIRST:
        return None
    with suppress(OSError, AttributeError):  # another C library than glibc has no mallopt
        libc = ctypes.CDLL(None)
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26), (ARENA_MAX, 1)):
            libc.mallopt(parameter, value)
    os.environ.setdefault("MKL_THREADING_LAYER", "SEQUENTIAL")
    own = Path(sys.prefix, "lib")  # where packages from PyPI and Conda put theirs
    for name, files, set_threads, get_version in LIBRARIES:
        for file in [own / file for file in files if (own / file).exists()] + list(files):
            with suppress(OSError, AttributeError):  # not there, or not what its name says
                library = ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
                library.cblas_sgemm  # noqa: B018  (raises where there is none)
                getattr(library, set_threads)(1)  # cpu.py keeps every core busy with a stream of its own
                return f"{name} {version(library, get_version)}".strip()
    return None


def version(library: ctypes.CDLL, function: str | None) -> str:
    """The version that a BLAS tells of itself."""
    if function is None:
        return ""
    tell = getattr(library, function)
    tell.restype = ctypes.c_char_p
    words = tell().decode().split()
    return next((word for word in words if word[0].isdigit()), "")


def on_cpu() -> bool:
    """Whether the default device is a CPU."""
    import mlx.core as mx

    return mx.default_device() == mx.Device(mx.cpu)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
