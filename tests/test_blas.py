"""MLX on a fast BLAS: right products, and a way back wherever something is not as expected."""

import platform
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest

from toolkit.machine import blas
from toolkit.shell.opening import ROOT

KNOWN = sys.platform == "linux" and platform.machine() in blas.JUMP_SLOT and platform.libc_ver()[0] == "glibc"
pytestmark = pytest.mark.skipif(not KNOWN, reason="only MLX's Linux wheels for CPUs come with the reference BLAS")
PRELUDE = """
import ctypes, sys
import mlx.core as mx
from toolkit.machine import blas
mx.set_default_device(mx.cpu)
"""


def run_fresh(code):
    """What a fresh process prints, in which nothing is connected yet."""
    ended = subprocess.run([sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_importing_changes_nothing_and_starting_the_device_does():
    code = "import vae, train, toolkit.formats.checkpoint, toolkit.notebook\nfrom toolkit.machine import blas, device\n"
    code += "print(blas.connect.cache_info().currsize)\nprint(device.start(cpu=True))"
    before, started = run_fresh(code).splitlines()
    assert before == "0" and "OpenBLAS " in started and started.endswith(" kernels")


@pytest.mark.parametrize("m, k, n", [(1, 1, 1), (1, 700, 3), (513, 1, 2), (129, 257, 65), (64, 2048, 9)])
def test_products_are_right(m, k, n):
    assert blas.connect().startswith("OpenBLAS ")
    random = np.random.default_rng(0)
    a, b, c = (random.normal(size=shape).astype(np.float32) for shape in ((m, k), (k, n), (3, n, m)))
    exact = a.astype(np.float64) @ b
    x, y, z = mx.array(a), mx.array(b), mx.array(c)
    transposed = mx.array(np.ascontiguousarray(a.T)), mx.array(np.ascontiguousarray(b.T))
    for product in (x @ y, transposed[0].T @ y, x @ transposed[1].T, mx.addmm(mx.zeros(n), x, y), (y.T @ x.T).T):
        np.testing.assert_allclose(np.array(product), exact, atol=1e-4 * k**0.5)
    np.testing.assert_allclose(np.array(z @ x), c.astype(np.float64) @ a, atol=1e-4 * m**0.5)


REASONS = {  # what is made of the machine, and what is said of it
    "pip install scipy-openblas32": """
blas.importlib.util.find_spec = lambda name: None
def missing(*_): raise OSError("no such file")
blas.load = missing
""",
    "not supported on riscv64": "blas.platform.machine = lambda: 'riscv64'",
    "this C library": "blas.platform.libc_ver = lambda: ('', '')",
    "libmlx.so is not loaded": "blas.mappings = lambda: iter([])",
    "libmlx.so has 0 slots": "blas.NAME = b'cblas_zgemm'",
    "the slot does not point to a cblas_sgemm": """
blas.find_slot = lambda: ctypes.c_uint64(ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value)
""",
    "file too short": """
import pathlib, tempfile
file = tempfile.NamedTemporaryFile(); file.write(b"no library"); file.flush()
real = blas.load
blas.load = lambda name, prefix: real(file.name, prefix)
""",
    "the page of its slot cannot be made writable": """
blas.mappings, real = (lambda: ((a, b, r.replace("w", "-"), f) for a, b, r, f in real())), blas.mappings
def refused(page, rights): raise blas.Unexpected("the page of its slot cannot be made writable: Permission denied")
blas.protect = refused
""",
    "its products are wrong": """
wrong = ctypes.CFUNCTYPE(None)(lambda: None)
address = ctypes.cast(wrong, ctypes.c_void_p).value
blas.openblas = lambda: ("a BLAS that does nothing", address)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("reason", REASONS)
def test_where_anything_is_unexpected_mlx_stays_as_it_is(reason):
    said = run_fresh(f"""{REASONS[reason]}
print(blas.connect())
import numpy as np
a = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
assert np.allclose(np.array(mx.array(a) @ mx.array(a).T), a @ a.T, atol=1e-4)
""")
    assert said.startswith("reference BLAS") and reason in said and said.count("\n") == 1


def test_a_good_blas_of_mlx_itself_is_left_alone():
    said = run_fresh("""
blas.library_of = lambda address: "/usr/lib/libopenblas.so.0"
print(blas.connect())
""")
    assert said == "MLX's own BLAS, libopenblas.so.0\n"


def test_memory_has_the_rights_it_had():
    said = run_fresh("""
slot = blas.find_slot()
at = ctypes.addressof(slot)
def rights(): return [r for a, b, r, _ in blas.mappings() if a <= at < b]
before = rights()
print(blas.connect().split()[0], rights() == before, len(before))
""")
    assert said == "OpenBLAS True 1\n"


def test_an_old_openblas_of_the_system_is_asked_for_the_best_kernels(monkeypatch):
    asked = []
    monkeypatch.setattr(blas.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(blas, "kernels_for_this_cpu", lambda: "HASWELL")
    monkeypatch.setattr(blas, "load", lambda *_: asked.append(blas.os.environ.get("OPENBLAS_CORETYPE")))
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    blas.openblas()
    assert asked == ["HASWELL"] and "OPENBLAS_CORETYPE" not in blas.os.environ  # programs started later choose anew
    monkeypatch.setenv("OPENBLAS_CORETYPE", "ZEN")
    blas.openblas()
    assert asked[1] == blas.os.environ["OPENBLAS_CORETYPE"] == "ZEN"  # what a person says counts


def test_kernels_by_what_a_cpu_can_do(monkeypatch):
    for flags, kernels in (("fpu avx2 avx512f avx512_bf16", "COOPERLAKE"), ("avx2", "HASWELL"), ("sse3", None)):
        monkeypatch.setattr("builtins.open", lambda *_, flags=flags: FakeFile(["model : x\n", f"flags : {flags}\n"]))
        assert blas.kernels_for_this_cpu() == kernels
        monkeypatch.undo()


class FakeFile(list):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_the_system_library_connects_too():
    """Where the package is missing, Debian's libopenblas0 serves, with kernels for this CPU."""
    said = run_fresh("""
blas.importlib.util.find_spec = lambda name: None
print(blas.connect())
""")
    if "pip install" in said:
        pytest.skip("needs Debian's libopenblas0")
    assert said.startswith("OpenBLAS ") and "Prescott" not in said
