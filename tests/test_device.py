"""What is said of the device, and compiling where and when it pays."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from toolkit.layers import device

ROOT = Path(device.__file__).parents[2]


@pytest.fixture(autouse=True)
def uncompiled_afterwards(monkeypatch):
    monkeypatch.setenv("TMPDIR", os.environ.get("TMPDIR", ""))
    yield
    mx.disable_compile()


def test_nothing_is_compiled_on_a_cpu_unless_asked_for():
    for choice in ("auto", "off"):
        assert "compiled" not in device.start(cpu=True, compile=choice)
        assert device.switch_compiling(choice) == "not compiled"


RUN = """
from toolkit.layers import device
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
