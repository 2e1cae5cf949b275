"""What is said of the device, and compiling where and when it pays."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

import device

ROOT = Path(device.__file__).parent


@pytest.fixture(autouse=True)
def uncompiled_afterwards(monkeypatch):
    monkeypatch.setenv("TMPDIR", os.environ.get("TMPDIR", ""))
    yield
    mx.disable_compile()


def test_without_any_blas_it_works_and_says_so(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("only the Linux wheel comes with the reference BLAS")
    monkeypatch.setattr(device, "LIBRARIES", ())
    said = device.start(cpu=True)
    assert said.startswith("CPU, ") and "reference BLAS" in said and "libopenblas0" in said


def test_a_blas_of_the_system_is_found():
    import ctypes

    try:
        ctypes.CDLL("libopenblas.so.0")
    except OSError:
        pytest.skip("needs Debian's libopenblas0")
    assert device.prepare_linux().startswith(("MKL", "OpenBLAS "))


def test_a_library_that_is_no_blas_is_passed_over(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("libraries are only looked for on Linux")
    monkeypatch.setattr(device, "LIBRARIES", (("Maths", ("libm.so.6", "libnone.so"), "sin", None),))
    assert device.prepare_linux() is None


def test_nothing_is_compiled_on_a_cpu_unless_asked_for():
    device.start(cpu=True)
    assert device.compile("auto") == device.compile("off") == "no"


RUN = """
import device, os
device.start(cpu=True)
print(device.compile("on"))
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
    assert compiled_with(tmp_path).startswith("no, there is no g++")


def test_a_broken_compiler_does_not_matter(tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken.chmod(0o755)
    assert compiled_with(tmp_path).startswith("no, g++ does not work")


def test_what_is_compiled_lies_in_a_folder_of_its_own(tmp_path, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert compiled_with(os.environ["PATH"]) == "yes"
    assert list(tmp_path.iterdir()) == []  # and the folder is gone at the end
