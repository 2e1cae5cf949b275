"""What is said of the device, and compiling where and when it pays."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from toolkit.layers import device, machine

ROOT = Path(device.__file__).parents[2]


@pytest.fixture(autouse=True)
def uncompiled_afterwards(monkeypatch):
    monkeypatch.setenv("TMPDIR", os.environ.get("TMPDIR", ""))
    yield
    mx.disable_compile()
    monkeypatch.undo()
    machine.prepare.cache_clear()


def prepared():
    machine.prepare.cache_clear()
    return machine.prepare()


def test_without_any_blas_it_works_and_says_so(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("only the Linux wheel comes with the reference BLAS")
    monkeypatch.setattr(machine, "LIBRARIES", ())
    machine.prepare.cache_clear()
    said = device.start(cpu=True)
    assert said.startswith("CPU, ") and "reference BLAS" in said and "libopenblas0" in said


def test_a_blas_of_the_system_is_found():
    import ctypes

    try:
        ctypes.CDLL("libopenblas.so.0")
    except OSError:
        pytest.skip("needs Debian's libopenblas0")
    assert prepared().startswith(("MKL", "OpenBLAS "))


def test_a_library_that_is_no_blas_is_passed_over(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("libraries are only looked for on Linux")
    monkeypatch.setattr(machine, "LIBRARIES", (("Maths", ("libm.so.6", "libnone.so"), "sin", None),))
    assert prepared() is None


def test_nothing_is_compiled_on_a_cpu_unless_asked_for():
    for choice in ("auto", "off"):
        assert "compiled" not in device.start(cpu=True, compile=choice)
        assert device.switch_compiling(choice) == "not compiled"


RUN = """
from toolkit.layers import device, machine
print(device.start(cpu=True, compile="on"))
import mlx.core as mx
print(mx.compile(lambda x: mx.sin(x) + x)(mx.zeros(3)).tolist())
"""


def compiled_with(path):
    """What a fresh process says that finds its programs in `path`, which has a compiler or has none."""
    command, environment = [sys.executable, "-c", RUN], os.environ | {"PATH": str(path)}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.returncode == 0, ended.stderr
    said, result = ended.stdout.splitlines()
    assert result == "[0.0, 0.0, 0.0]"
    return said


def test_a_missing_compiler_does_not_matter(tmp_path):
    assert "not compiled: there is no g++" in compiled_with(tmp_path)


def test_a_broken_compiler_does_not_matter(tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken.chmod(0o755)
    assert "not compiled: g++ does not work" in compiled_with(tmp_path)


def test_what_is_compiled_lies_in_a_folder_of_its_own(tmp_path, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert compiled_with(os.environ["PATH"]).endswith(", compiled")
    assert list(tmp_path.iterdir()) == []  # and the folder is gone at the end


@pytest.mark.parametrize("first", ["vae", "toolkit.formats.checkpoint", "toolkit.model.gaussians", "train"])
def test_importing_any_part_prepares_the_machine(first):
    """A library user gets the same BLAS as a command, unless MLX was imported before."""
    if sys.platform != "linux":
        pytest.skip("only the Linux wheel comes with the reference BLAS")
    for before, late in (("", False), ("import mlx.core; ", True)):
        code = f"{before}import {first}; from toolkit.layers import device; print(device.start(cpu=True))"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout
        assert said.startswith("CPU, ") and ("import toolkit before mlx" in said) == late
