"""A fast BLAS for MLX on a Linux CPU.

MLX's wheel for Linux CPUs multiplies matrices with the reference BLAS, at about 5 GFLOP/s on a core that can do 100.
OpenBLAS reaches that; the package scipy-openblas32 provides it, with kernels for every CPU and names that begin with
`scipy_`. MLX calls `cblas_sgemm` through one jump slot of libmlx.so, where the dynamic linker stores the function's
address. `connect` writes the address of OpenBLAS's function there.

    code of MLX  →  slot of cblas_sgemm in libmlx.so  →  reference BLAS     (before)
                                                      →  OpenBLAS           (after)

It checks first. There must be exactly one such slot, and it must point to a `cblas_sgemm` in a reference BLAS; matrix
products before and after must agree with NumPy's. If anything differs (another C library or system, a future MLX with a
faster BLAS, memory that cannot be made writable), MLX stays as it is, and the `Device:` line gives the reason.
"""

import ctypes
import functools
import importlib.util
import mmap
import os
import platform
import sys
from collections.abc import Iterator
from ctypes import c_uint32, c_uint64, c_void_p
from pathlib import Path

import mlx.core as mx
import numpy as np

NAME = b"cblas_sgemm"
# From elf.h: tags of the dynamic section, types of relocations, and the sizes of Elf64_Sym and Elf64_Rela.
DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_PLTREL, DT_JMPREL, DT_RELA = 2, 5, 6, 10, 11, 20, 23, 7
JUMP_SLOT = {"x86_64": 7, "aarch64": 1026}
SYMBOL, RELOCATION = 24, 24
PROT_READ, PROT_WRITE = 1, 2
# The kernels to request by CPU flag: an old OpenBLAS of the system may not recognise the CPU itself.
KERNELS = (("avx512_bf16", "COOPERLAKE"), ("avx512f", "SKYLAKEX"), ("avx2", "HASWELL"))


class Unexpected(ValueError):
    """The reason why MLX is left as it is."""


@functools.cache
def connect() -> str:
    """Make MLX use OpenBLAS, once; returns a description of the BLAS in use."""
    try:
        slot = find_slot()
        check_product()  # this also lets the linker fill the slot
        before = slot.value
        file = library_of(before)
        if "libblas" not in file:
            return f"MLX's own BLAS, {Path(file).name}"
        words, sgemm = openblas()
        write(slot, sgemm)
        try:
            check_product()
        except Unexpected:
            write(slot, before)
            raise
        return words
    except (OSError, AttributeError, ValueError, KeyError, IndexError) as error:  # some come from ctypes
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        return f"reference BLAS, 7 times slower ({reason})"


# The slot


def find_slot() -> c_uint64:
    """The slot of `cblas_sgemm` in libmlx.so, as an integer in memory."""
    kind = JUMP_SLOT.get(platform.machine())
    if sys.platform != "linux" or kind is None or sys.maxsize < 2**32 or platform.libc_ver()[0] != "glibc":
        raise Unexpected(f"not supported on {platform.machine()} with {platform.libc_ver()[0] or 'this C library'}")
    path = next((name for *_, name in mappings() if name.endswith("/libmlx.so")), None)
    if path is None:
        raise Unexpected("libmlx.so is not loaded")
    with open(path, "rb") as file:
        if file.read(6) != b"\x7fELF\x02\x01":  # 64 bits, little-endian
            raise Unexpected("libmlx.so is not an ELF64 library")
    # A handle of glibc's dlopen points to a struct link_map, which begins with these fields (link.h).
    handle = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)._handle
    base, name, dynamic = (c_uint64 * 3).from_address(handle)
    if not name or not os.path.samefile(ctypes.string_at(name), path):
        raise Unexpected("the linker's list of libraries has another format")
    sections = dynamic_section(dynamic)
    if sections.get(DT_PLTREL) != DT_RELA or sections.get(DT_SYMENT) != SYMBOL:
        raise Unexpected("libmlx.so has no jump slots in the usual format")
    found = []
    count = sections[DT_PLTRELSZ] // RELOCATION
    for offset, info, _ in (c_uint64 * 3 * count).from_address(sections[DT_JMPREL]):
        name = c_uint32.from_address(sections[DT_SYMTAB] + (info >> 32) * SYMBOL).value
        known = name + len(NAME) < sections[DT_STRSZ]
        if known and ctypes.string_at(sections[DT_STRTAB] + name, len(NAME) + 1) == NAME + b"\0":
            if info & 0xFFFFFFFF != kind:
                raise Unexpected("libmlx.so does not call cblas_sgemm through a jump slot")
            found.append(base + offset)
    if len(found) != 1:
        raise Unexpected(f"libmlx.so has {len(found)} slots of cblas_sgemm")
    return c_uint64.from_address(found[0])


def dynamic_section(address: int) -> dict[int, int]:
    """The tags and values of a loaded library's dynamic section; glibc has turned its offsets into addresses."""
    sections = {}
    for tag, value in (c_uint64 * 2 * 1000).from_address(address):
        if tag == 0:
            return sections
        sections.setdefault(tag, value)
    raise Unexpected("the dynamic section of libmlx.so has no end")


def library_of(address: int) -> str:
    """The file of the library with `cblas_sgemm` at this address."""
    info = (ctypes.c_char_p * 4)()  # Dl_info: file, base, symbol, address
    if not ctypes.CDLL(None).dladdr(c_void_p(address), info) or info[2] != NAME:
        raise Unexpected("the slot does not point to a cblas_sgemm")
    return os.fsdecode(info[0])


def write(slot: c_uint64, address: int) -> None:
    """Write an address into the slot, making its page writable for that if necessary."""
    at = ctypes.addressof(slot)
    writable = any(start <= at < end and "w" in rights for start, end, rights, _ in mappings())
    if not writable:
        protect(at - at % mmap.PAGESIZE, PROT_READ | PROT_WRITE)
    slot.value = address  # eight aligned bytes, written at once
    if not writable:
        protect(at - at % mmap.PAGESIZE, PROT_READ)


def protect(page: int, rights: int) -> None:
    """Change the access rights of a page of memory."""
    if ctypes.CDLL(None, use_errno=True).mprotect(c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), rights):
        raise Unexpected(f"the page of its slot cannot be made writable: {os.strerror(ctypes.get_errno())}")


def mappings() -> Iterator[tuple[int, int, str, str]]:
    """Start, end, access rights and file of every memory mapping of this process."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            span, rights, _, _, _, *file = line.rstrip("\n").split(maxsplit=5)
            start, end = (int(number, 16) for number in span.split("-"))
            yield start, end, rights, file[0] if file else ""


def check_product() -> None:
    """Raise Unexpected if MLX's products of plain or transposed matrices differ from NumPy's."""
    random = np.random.default_rng(0)
    a, b = (random.normal(size=shape).astype(np.float32) for shape in ((37, 65), (65, 29)))
    with mx.stream(mx.cpu):
        x, y = mx.array(a), mx.array(b)
        products = (x @ y, (y.T @ x.T).T, mx.array(a.T.copy()).T @ y, x @ mx.array(b.T.copy()).T)
        if not all(np.allclose(np.array(product), a.astype(np.float64) @ b, atol=1e-4) for product in products):
            raise Unexpected("its products are wrong")


# The library


def openblas() -> tuple[str, int]:
    """Load OpenBLAS from the package or, without it, from the system; returns what `load` does."""
    package = importlib.util.find_spec("scipy_openblas32")
    if package is not None and package.origin:
        return load(str(Path(package.origin).parent / "lib" / "libscipy_openblas.so"), "scipy_")
    before = os.environ.get("OPENBLAS_CORETYPE")
    try:
        if before is None and (kernels := kernels_for_this_cpu()):
            os.environ["OPENBLAS_CORETYPE"] = kernels
        return load("libopenblas.so.0", "")
    except OSError:
        raise Unexpected("pip install scipy-openblas32") from None
    finally:
        if before is None:
            os.environ.pop("OPENBLAS_CORETYPE", None)


def load(file: str, prefix: str) -> tuple[str, int]:
    """Load an OpenBLAS whose names begin with a prefix: its version and kernels, and the address of its cblas_sgemm.

    It gets one thread, as cpu.py keeps every core busy with a stream.
    """
    library = ctypes.CDLL(file)  # stays loaded: ctypes never closes a library
    library[f"{prefix}openblas_set_num_threads"](1)
    config, core = (library[f"{prefix}openblas_get_{what}"] for what in ("config", "corename"))
    config.restype = core.restype = ctypes.c_char_p
    version = next((word for word in config().decode().split() if word[0].isdigit()), "")
    words = f"OpenBLAS {'.'.join(version.split('.')[:3])}, {core().decode()} kernels"
    return words, ctypes.cast(library[f"{prefix}cblas_sgemm"], c_void_p).value


def kernels_for_this_cpu() -> str | None:
    """OpenBLAS's name of the best kernels for this CPU; None leaves the choice to OpenBLAS."""
    with open("/proc/cpuinfo") as lines:
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return next((kernels for flag, kernels in KERNELS if flag in flags), None)
