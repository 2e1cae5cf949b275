"""What commands show on a terminal of 80 columns: lines that fit, bars that go away, colour where it helps."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from types import SimpleNamespace

import pytest
from conftest import make_model, save

import train
from toolkit.files import progress
from toolkit.shell.opening import ROOT
from toolkit.training.plan import make_plan
from toolkit.wording import duration, wrapped

# Runs lines in one process; bars appear at once, so that even short work has one.
CHILD = """
import importlib, os, sys
from toolkit.files import progress
progress.APPEARS, progress.STEP = 0, 0.01
for line in sys.argv[1:]:
    command, *words = line.split()
    print("$", line[:60], flush=True)
    if command == "NO_COLOR=1":
        os.environ["NO_COLOR"] = "1"
        command = words.pop(0)
    try:
        importlib.import_module(command).main(words)
    except SystemExit as end:
        print("status", end.code, flush=True)
"""


def typed(*lines, stdout=None):
    """What lines, run one after the other, write to a terminal; and to their standard output if that is a pipe."""
    here, there = os.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *lines],
        cwd=ROOT,
        stdin=there,
        stdout=stdout or there,
        stderr=there,
        env=environment | {"TERM": "xterm-256color", "PYTHONUTF8": "1"},
    ) as process:
        os.close(there)
        seen = b""
        with suppress(OSError):  # the terminal ends with the process
            while piece := os.read(here, 4096):
                seen += piece
        out = process.stdout.read().decode() if stdout else ""
    os.close(here)
    assert process.returncode == 0, seen.decode()
    return seen.decode(), out


def screen(seen):
    """The lines that a terminal shows in the end."""
    lines, column = [""], 0
    for piece in re.findall(r"\x1b\[[\d;]*[A-Za-z]|.", seen, re.S):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            lines.append("")
        elif piece == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif piece[0] == "\x1b":
            assert piece.endswith("m"), piece
        else:
            lines[-1] = lines[-1][:column].ljust(column) + piece + lines[-1][column + 1 :]
            column += 1
    return lines


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Every command once, in a folder with a long name; what it wrote to the terminal."""
    folder = tmp_path_factory.mktemp("a_folder_whose_name_is_long_enough_to_need_a_line_of_its_own")
    data = "--dataset synthetic --limit 64"
    model = f"{folder}/vae_synthetic_filters_0008_dims_0003.npz"
    tiny = f"train {data} --image_size 16 --max_filters 8 --latent_dims 3 --epochs 2 --keep_best --outdir {folder}"
    save(folder / "collapsed.npz", make_model(), dataset="synthetic", collapsed=True)
    seen, _ = typed(
        f"{tiny} --beta 2 --beta_warmup 1",
        f"{tiny} --batchsize 32 --free_bits 0.25",
        f"generate --model {model} --outfile {folder}/a.png",
        f"generate --model {model} --info",
        f"reconstruct --model {model} {data} --outdir {folder}/pairs",
        f"encode --model {model} {data} --outfile {folder}/codes.npz",
        f"evaluate --model {model} {data} --importance_samples 5 --json {folder}/metrics.json",
        f"visualize traversal --model {model} {data} --outfile {folder}/traversal.png",
        f"visualize explorer --model {model} {data} --outfile {folder}/explorer.html",
        f"convert {model} {folder}/hub/",
        f"generate --model {folder}/collapsed.npz --outfile {folder}/b.png",
        f"NO_COLOR=1 generate --model {folder}/collapsed.npz --outfile {folder}/b.png",
        "generate --model nothing.npz",
    )
    return seen


def test_no_line_is_wider_than_80_columns_but_those_to_copy(session):
    lines = screen(session)
    assert sum(line.startswith("$ ") for line in lines) == 13
    wide = [line for line in lines if len(line) > 80]
    assert wide and all(line.startswith("  python ") or len(line.split()) == 1 for line in wide), wide


def test_bars_show_and_none_is_left_behind(session):
    assert "\rWorking … " in session and re.search(r"\rEpoch \d/2: +\d+% ", session)
    assert "images/s, loss " in session and " left" in session
    bars = re.findall(r"\r([^\r\n]*)\x1b\[K", session)
    assert max(map(len, bars)) < 80
    for line in screen(session):
        assert "█" not in line and " left" not in line and not line.startswith("Working"), line
    assert "\nPrior for samples: " in "\n".join(screen(session))


def test_a_run_says_which_epoch_it_kept_and_what_to_type_next(session):
    shown = "\n".join(screen(session))
    kept = re.search(r"^Kept: epoch (\d) of 2, ", shown, re.M)[1]
    assert ("Trained for: 2 epochs" if kept == "2" else f"Trained for: epoch {kept} of 2") in shown
    assert re.search(
        r"^Next:\n  python generate.py --model \S+\n  python visualize.py explorer --model \S+$", shown, re.M
    )
    assert re.search(r"^epoch +loss = +recon \+ +KL +β +held out +test +images/s +time$", shown, re.M)


def test_warnings_and_errors_have_a_colour_and_none_with_no_color(session):
    with_colour, without = session.split("$ NO_COLOR=1")
    assert "\x1b[1;33mWarning:\x1b[0m in this model" in with_colour
    assert "\x1b[1;31merror:\x1b[0m" in with_colour
    shown = "\n".join(screen(without))
    assert "\nWarning: in this model" in shown and "\nerror: " in shown
    assert not re.search(r"\x1b\[[\d;]*m", without)


def test_bars_show_on_stderr_while_stdout_is_piped(tmp_path):
    flags = "--dataset synthetic --limit 200 --epochs 2 --image_size 16 --max_filters 8"
    seen, out = typed(f"train {flags} --outdir {tmp_path}", stdout=subprocess.PIPE)
    assert re.search(r"\rEpoch \d/2: ", seen) and "".join(screen(seen)) == ""
    assert "\n  2/2 " in out and "\x1b" not in out and "left" not in out


@pytest.mark.parametrize("beta", [{}, {"beta": 0.25}])
@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_the_table_of_epochs_fits_whatever_its_numbers(capsys, beta, held_out, objective):
    trainer = SimpleNamespace(plan=make_plan({"epochs": 300, "objective": objective} | beta))
    trainer.config, before = trainer.plan.train, None
    for loss in (-12345.67, 181.8, 9876543.21):
        entry = {
            "epoch": 200,
            "loss": loss,
            "reconstruction": loss - 9.6,
            "kl": 9.6,
            "beta": 0.0123,
            "collapsed": False,
        }
        entry |= {"test": {"loss": loss}, "images_per_second": 123456.7, "first_step_seconds": 0.1}
        entry |= {"held_out": {"loss": loss}} if held_out else {}
        train.print_epoch(entry, before, trainer, 83.25 if loss > 0 else 4000)
        before = entry
    varies = bool(beta) and objective == "elbo"
    head, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3 and {len(row) for row in (head, *rows)} == {len(head)} and len(head) <= 79
    assert rows[0].split()[:2] == ["200/300", "-12345.7" if varies and held_out else "-12345.67"]
    assert rows[1].endswith("123,457  83.2 s") and rows[0].endswith(" 1:06:40")
    assert ("β" in head, "held out" in head, "=" in head) == (varies, held_out, objective == "elbo")


def test_words_of_times_and_lines():
    assert [duration(seconds) for seconds in (0.4, 99.4, 99.6, 125, 3725)] == ["0 s", "99 s", "1:40", "2:05", "1:02:05"]
    text = "Warning: one two three\n  Title: four five\n  python generate.py --model x\n"
    expected = "Warning: one\n  two three\n  Title: four\n    five\n  python generate.py --model x\n"
    assert wrapped(text, 14) == expected
    assert wrapped("猫の写真 二枚目", 14) == "猫の写真\n  二枚目"


def test_a_bar_fits_and_tells_the_time_left(monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)
    made = progress.Bar(SimpleNamespace(encoding="utf-8"), 200, "Epoch 1/2", " images", 0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: 110.0)
    made.update(49.5)
    made.update(0.5)
    assert made.text(79) == "Epoch 1/2:  25% |" + ("█" * 8 + "▌").ljust(34) + "| 00:30 left,  5.00 images/s"
    assert made.text(20) == "Epoch 1/2:  25% |▎| "
    loading = progress.Bar(SimpleNamespace(encoding="ascii"), None, "Loading", " images", 0)
    assert loading.text(79).rstrip() == "Loading … 00:00"
