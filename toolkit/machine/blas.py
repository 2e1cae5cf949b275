"""A fast BLAS for MLX on a Linux CPU.

MLX's wheel for Linux CPUs multiplies matrices with the reference BLAS, at about 5 GFLOP/s on a core that can do 100.
OpenBLAS can; the package scipy-openblas32 brings it, with kernels for every CPU, under names that begin with `scipy_`.
MLX calls `cblas_sgemm` through one slot of libmlx.so: an entry of its table of jump slots, where the dynamic linker
keeps the address of the function. `connect` puts the address of OpenBLAS's function there.

    code of MLX  →  slot of cblas_sgemm in libmlx.so  →  reference BLAS     (before)
                                                      →  OpenBLAS           (after)

It looks before it leaps. The slot must be the only one of that name and point to a function of that name in a library
that is a reference BLAS; a product before and one after must agree with NumPy's. Where anything is otherwise (another
C library, another system, a future MLX with a good BLAS of its own, memory that cannot be made writable), MLX is left
as it is, and the reason is said in the `Device:` line.
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
# Of the dynamic section and of relocations, from elf.h; and the sizes of Elf64_Sym and Elf64_Rela.
DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_PLTREL, DT_JMPREL, DT_RELA = 2, 5, 6, 10, 11, 20, 23, 7
JUMP_SLOT = {"x86_64": 7, "aarch64": 1026}
SYMBOL, RELOCATION = 24, 24
PROT_READ, PROT_WRITE = 1, 2
# What an old OpenBLAS of the system is asked for by what the CPU can do: it may not know the CPU by its name.
KERNELS = (("avx512_bf16", "COOPERLAKE"), ("avx512f", "SKYLAKEX"), ("avx2", "HASWELL"))


class Unexpected(ValueError):
    """Says why MLX is left as it is."""


@functools.cache
def connect() -> str:
    """Make MLX use OpenBLAS, once; returns in words what multiplies matrices now."""
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
    except (OSError, AttributeError, ValueError, KeyError, IndexError) as error:  # also those of ctypes and the system
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        return f"reference BLAS, 7 times slower ({reason})"


# The slot


def find_slot() -> c_uint64:
    """The slot of `cblas_sgemm` in libmlx.so, as a number in memory."""
    kind = JUMP_SLOT.get(platform.machine())
    if sys.platform != "linux" or kind is None or sys.maxsize < 2**32 or platform.libc_ver()[0] != "glibc":
        raise Unexpected(f"not known on {platform.machine()} with {platform.libc_ver()[0] or 'this C library'}")
    path = next((name for *_, name in mappings() if name.endswith("/libmlx.so")), None)
    if path is None:
        raise Unexpected("libmlx.so is not loaded")
    with open(path, "rb") as file:
        if file.read(6) != b"\x7fELF\x02\x01":  # 64 bits, little-endian
            raise Unexpected("libmlx.so is not an ELF64 library")
    # A handle of glibc's dlopen points to its struct link_map, which begins so (link.h).
    handle = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)._handle
    base, name, dynamic = (c_uint64 * 3).from_address(handle)
    if not name or not os.path.samefile(ctypes.string_at(name), path):
        raise Unexpected("the linker's list looks unfamiliar")
    sections = dynamic_section(dynamic)
    if sections.get(DT_PLTREL) != DT_RELA or sections.get(DT_SYMENT) != SYMBOL:
        raise Unexpected("libmlx.so has no jump slots of the usual form")
    found = []
    count = sections[DT_PLTRELSZ] // RELOCATION
    for offset, info, _ in (c_uint64 * 3 * count).from_address(sections[DT_JMPREL]):
        name = c_uint32.from_address(sections[DT_SYMTAB] + (info >> 32) * SYMBOL).value
        known = name + len(NAME) < sections[DT_STRSZ]
        if known and ctypes.string_at(sections[DT_STRTAB] + name, len(NAME) + 1) == NAME + b"\0":
            if info & 0xFFFFFFFF != kind:
                raise Unexpected("cblas_sgemm is reached in another way")
            found.append(base + offset)
    if len(found) != 1:
        raise Unexpected(f"libmlx.so has {len(found)} slots of cblas_sgemm")
    return c_uint64.from_address(found[0])


def dynamic_section(address: int) -> dict[int, int]:
    """The tags and values of a loaded library's dynamic section; glibc has made addresses of offsets."""
    sections = {}
    for tag, value in (c_uint64 * 2 * 1000).from_address(address):
        if tag == 0:
            return sections
        sections.setdefault(tag, value)
    raise Unexpected("its dynamic section does not end")


def library_of(address: int) -> str:
    """The file of the library whose `cblas_sgemm` is at an address."""
    info = (ctypes.c_char_p * 4)()  # Dl_info: file, base, symbol, address
    if not ctypes.CDLL(None).dladdr(c_void_p(address), info) or info[2] != NAME:
        raise Unexpected("the slot does not point to a cblas_sgemm")
    return os.fsdecode(info[0])


def write(slot: c_uint64, address: int) -> None:
    """Put an address into the slot; its page is made writable for that where it is not."""
    at = ctypes.addressof(slot)
    writable = any(start <= at < end and "w" in rights for start, end, rights, _ in mappings())
    if not writable:
        protect(at - at % mmap.PAGESIZE, PROT_READ | PROT_WRITE)
    slot.value = address  # eight aligned bytes, written at once
    if not writable:
        protect(at - at % mmap.PAGESIZE, PROT_READ)


def protect(page: int, rights: int) -> None:
    """Change the rights of a page of memory."""
    if ctypes.CDLL(None, use_errno=True).mprotect(c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), rights):
        raise Unexpected(f"its page cannot be made writable: {os.strerror(ctypes.get_errno())}")


def mappings() -> Iterator[tuple[int, int, str, str]]:
    """Start, end, rights and file of every mapping of this process's memory."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            span, rights, _, _, _, *file = line.rstrip("\n").split(maxsplit=5)
            start, end = (int(number, 16) for number in span.split("-"))
            yield start, end, rights, file[0] if file else ""


def check_product() -> None:
    """Stop where MLX's products are not those of NumPy, for matrices as they are and transposed."""
    random = np.random.default_rng(0)
    a, b = (random.normal(size=shape).astype(np.float32) for shape in ((37, 65), (65, 29)))
    with mx.stream(mx.cpu):
        x, y = mx.array(a), mx.array(b)
        products = (x @ y, (y.T @ x.T).T, mx.array(a.T.copy()).T @ y, x @ mx.array(b.T.copy()).T)
        if not all(np.allclose(np.array(product), a.astype(np.float64) @ b, atol=1e-4) for product in products):
            raise Unexpected("its products are wrong")


# The library


def openblas() -> tuple[str, int]:
    """OpenBLAS from the package, or the one of the system: as `loaded` returns it."""
    package = importlib.util.find_spec("scipy_openblas32")
    if package is not None and package.origin:
        return loaded(str(Path(package.origin).parent / "lib" / "libscipy_openblas.so"), "scipy_")
    before = os.environ.get("OPENBLAS_CORETYPE")
    try:
        if before is None and (kernels := kernels_for_this_cpu()):
            os.environ["OPENBLAS_CORETYPE"] = kernels
        return loaded("libopenblas.so.0", "")
    except OSError:
        raise Unexpected("pip install scipy-openblas32") from None
    finally:
        if before is None:
            os.environ.pop("OPENBLAS_CORETYPE", None)


def loaded(file: str, prefix: str) -> tuple[str, int]:
    """Name, version and kernels of an OpenBLAS whose names begin with a prefix, and the address of its cblas_sgemm.

    It gets one thread: cpu.py keeps every core busy with a stream.
    """
    library = ctypes.CDLL(file)  # stays loaded: ctypes closes none
    library[f"{prefix}openblas_set_num_threads"](1)
    config, core = (library[f"{prefix}openblas_get_{what}"] for what in ("config", "corename"))
    config.restype = core.restype = ctypes.c_char_p
    version = next((word for word in config().decode().split() if word[0].isdigit()), "")
    words = f"OpenBLAS {'.'.join(version.split('.')[:3])}, {core().decode()} kernels"
    return words, ctypes.cast(library[f"{prefix}cblas_sgemm"], c_void_p).value


def kernels_for_this_cpu() -> str | None:
    """The best kernels for what this CPU can do, by OpenBLAS's name for them; None where it knows best."""
    with open("/proc/cpuinfo") as lines:
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return next((kernels for flag, kernels in KERNELS if flag in flags), None)
