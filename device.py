"""Which device computes, and what must be set before MLX is imported.

On Linux the MLX wheel for CPUs multiplies matrices with a slow reference BLAS; a good one that is loaded first takes
its place. Memory that is kept instead of given back to the system saves another part of the time.
"""

import atexit
import ctypes
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from errors import UserError

# Name, file names, the function that sets its threads, and the one that tells its version.
LIBRARIES = (
    ("MKL", ("libmkl_rt.so.3", "libmkl_rt.so.2", "libmkl_rt.so"), "MKL_Set_Num_Threads", None),
    ("OpenBLAS", ("libopenblas.so.0", "libopenblas.so"), "openblas_set_num_threads", "openblas_get_config"),
    ("BLIS", ("libblis.so.4", "libblis.so"), "bli_thread_set_num_threads", "bli_info_get_version_str"),
)
# Parameters of glibc's mallopt, from its malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def start(cpu=False):
    """Choose the device and import MLX; returns what the options say of it. Nothing is compiled until `compile`."""
    blas = prepare_linux() if sys.platform == "linux" else None
    try:
        import mlx.core as mx
    except ImportError as error:
        package = "mlx" if sys.platform == "darwin" else "mlx[cpu]"
        raise UserError(f'MLX does not start: {error} — pip install "{package}"') from None
    if cpu:
        mx.set_default_device(mx.cpu)
    mx.disable_compile()
    if not on_cpu():
        name = mx.device_info().get("device_name", "")
        return f"GPU ({name})" if name else "GPU"
    details = [f"{cores()} core{'s' if cores() > 1 else ''}"]
    if sys.platform == "linux":
        details.append(blas or "reference BLAS: a good one is 7 times faster, apt install libopenblas0")
    return f"CPU, {', '.join(details)}"


def on_cpu():
    """Whether the default device is a CPU."""
    import mlx.core as mx

    return mx.default_device() == mx.Device(mx.cpu)


def cores():
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_linux():
    """Set the memory allocator and load the best BLAS there is; returns its name and version, None without one."""
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


def version(library, function):
    """The version that a BLAS tells of itself."""
    if function is None:
        return ""
    function = getattr(library, function)
    function.restype = ctypes.c_char_p
    words = function().decode().split()
    return next((word for word in words if word[0].isdigit()), "")


def compile(choice):
    """Let mx.compile compile, or not; returns what the options say of it.

    On a GPU it pays at once. On a CPU MLX writes C++ and calls g++, which takes 20 seconds for a training step and
    makes the forms of cpu.py no faster (bench/RESULTS.md), so there it must be asked for. What it builds goes to a
    folder of this process alone: MLX's own is shared, and two processes may write one file in it.
    """
    import mlx.core as mx

    if choice == "off" or (choice == "auto" and on_cpu()):
        return "no"
    if not on_cpu():
        mx.enable_compile()
        return "yes"
    if shutil.which("g++") is None:
        return "no, there is no g++; on a CPU no speed is lost"
    folder = tempfile.mkdtemp(prefix="vae-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TMPDIR"] = folder
    mx.enable_compile()
    with suppress(RuntimeError):
        mx.eval(mx.compile(lambda x: mx.exp(x) + x)(mx.ones(3)))
    if any(Path(folder).rglob("*.so")):
        return "yes"
    mx.disable_compile()
    return "no, g++ does not work; on a CPU no speed is lost"
