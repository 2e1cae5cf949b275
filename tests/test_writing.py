"""Writing: whole files or none, clear errors, and Ctrl-C held back until a write is done."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from toolkit.errors import UserError
from toolkit.files import writing
from toolkit.shell.opening import ROOT


def test_writes_into_new_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "ein Ordner" / "größe.bin"
    writing.write(path, b"one")
    writing.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["größe.bin"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    writing.write(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        writing.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_temporary_names_cannot_be_guessed(tmp_path, monkeypatch):
    """Links that someone laid for this process are not followed, also where processes have the same number."""
    (tmp_path / "other").write_bytes(b"ours too")
    for name in (f".a.{os.getpid()}.part", ".a.part"):
        (tmp_path / name).symlink_to("other")
    names = set()
    for i in range(3):
        with writing.replacing(tmp_path / "a") as first, writing.replacing(tmp_path / "a") as second:
            names |= set(tmp_path.glob(f"{writing.PART}*"))
            first.write(b"first")
            second.write(b"second")
        assert len(names) == 2 * i + 2
    assert (tmp_path / "a").read_bytes() == b"first" and (tmp_path / "other").read_bytes() == b"ours too"


def test_the_longest_names_that_the_system_has(tmp_path):
    writing.write(tmp_path / ("x" * 255), b"new")
    assert os.listdir(tmp_path) == ["x" * 255]


def test_the_mode_of_what_is_replaced_stays(tmp_path):
    path = tmp_path / "a"
    writing.write(path, b"new")
    umask = os.umask(0o022)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    path.chmod(0o640)
    writing.write(path, b"newer")
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_next_command_removes_what_a_killed_one_left_and_nothing_that_is_in_use(tmp_path):
    write = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from toolkit.files import writing"
    hold = f"{write}\nwith writing.replacing({str(tmp_path / 'a')!r}): print(flush=True), sys.stdin.read()"
    start = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], **start) as living:
        with subprocess.Popen([sys.executable, "-c", hold], **start) as killed:
            living.stdout.readline(), killed.stdout.readline()
            killed.kill()
        assert len(os.listdir(tmp_path)) == 2
        (tmp_path / ".mine.part").touch()  # of another program
        writing.sweep.cache_clear()
        writing.write(tmp_path / "b", b"")
        assert len(os.listdir(tmp_path)) == 3
        living.stdin.close()
    assert sorted(os.listdir(tmp_path)) == [".mine.part", "a", "b"]


def test_what_is_durable_is_on_the_disk_with_its_name(tmp_path, monkeypatch):
    """A power cut keeps what was flushed: the file before it takes its name, the folder after."""
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle)), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("renamed"), replace(*names)))
    writing.write(tmp_path / "a", b"12345", durable=True)
    file, renamed, folder = done
    assert file.st_size == 5 and renamed == "renamed" and folder.st_ino == tmp_path.stat().st_ino


def test_names_in_the_way(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="a file is in the way"):
        writing.write(tmp_path / "file" / "x", b"")
    with pytest.raises(UserError, match="a folder is in the way"):
        writing.write(tmp_path / "folder", b"")
    with pytest.raises(UserError, match="cannot"):
        writing.write(tmp_path / ("x" * 300), b"")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_interrupt_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), writing.uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("all")
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, model_file):
    """A limit on file sizes stands for the full disk."""
    command = [sys.executable, "generate.py", "--model", str(model_file), "--outfile", str(tmp_path / "out.png")]

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files, cwd=ROOT)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: cannot write") and ended.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == [model_file.name]


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    for name in ("link", "dangling"):
        writing.write(tmp_path / name, b"new", durable=True)
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "link", "new", "target"]


def test_a_pipe_and_a_device_are_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        writing.write(tmp_path / "pipe", b"through")
        assert reader.stdout.read() == b"through"
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "null").symlink_to("/dev/null")
    writing.write(tmp_path / "null", b"gone", durable=True)
    assert (tmp_path / "null").is_char_device()
    with open(tmp_path / "file", "wb") as file:
        writing.write(f"/dev/fd/{file.fileno()}", b"by its number")
    assert (tmp_path / "file").read_bytes() == b"by its number"


@pytest.mark.slow
def test_standard_output_gets_the_result_and_nothing_else(tmp_path, model_file):
    command = [sys.executable, "generate.py", "--model", str(model_file), "--nsamples", "2", "--outfile", "-"]
    ended = subprocess.run(command, capture_output=True, cwd=ROOT)
    assert ended.returncode == 0 and ended.stdout.startswith(b"\x89PNG") and b"2 samples" in ended.stderr
    for place in ("/dev/stdout", "/dev/fd/1"):
        ended = subprocess.run([*command[:-1], place], capture_output=True, cwd=ROOT)
        assert ended.returncode == 0 and ended.stdout.startswith(b"\x89PNG")
    command = [sys.executable, "evaluate.py", "--model", str(model_file), "--limit", "5", "--importance_samples", "0"]
    ended = subprocess.run([*command, "--json", "-"], capture_output=True, cwd=ROOT, text=True)
    assert json.loads(ended.stdout)["images"] == 5 and "ELBO" in ended.stderr


def test_a_full_device_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot write .*full: No space left"):
        (tmp_path / "full").symlink_to("/dev/full")
        writing.write(tmp_path / "full", b"x")
