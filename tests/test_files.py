"""Writing: whole files or none, clear errors, and Ctrl-C held back until a write is done."""

import os
import resource
import signal
import subprocess
import sys

import pytest

import files
from errors import UserError


def test_writes_into_new_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "ein Ordner" / "größe.bin"
    files.write(path, b"one")
    files.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["größe.bin"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    files.write(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_names_in_the_way(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="a file is in its way"):
        files.write(tmp_path / "file" / "x", b"")
    with pytest.raises(UserError, match="a folder is in its way"):
        files.write(tmp_path / "folder", b"")
    with pytest.raises(UserError, match="cannot"):
        files.write(tmp_path / ("x" * 300), b"")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_interrupt_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), files.uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("all")
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, model_file):
    """A limit on file sizes stands for the full disk."""
    command = [sys.executable, "generate.py", "--model", str(model_file), "--outfile", str(tmp_path / "out.png")]

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    ended = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=small_files, cwd=os.path.dirname(files.__file__)
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: cannot write") and ended.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == [model_file.name]
