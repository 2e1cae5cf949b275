"""Flags as a person types them, and how commands end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cli

ROOT = Path(cli.__file__).parent
COMMANDS = ("train", "generate", "reconstruct")


def start(*argv, **options):
    command = [sys.executable, *map(str, argv)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_opens_with_the_line_to_type(run, command):
    status, out, _ = run(command, "-h")
    assert status == 0
    assert out.startswith(f"python {command}.py ")
    assert "(default: " in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_heavy_imports(command):
    code = f"import sys, {command}\ntry: {command}.main(['-h'])\nexcept SystemExit: print('mlx' in sys.modules)"
    assert start("-c", code).communicate()[0].endswith("False\n")


def test_hyphens_and_aliases_are_the_same_flags():
    import train

    args = train.parse(
        ["--latent-dims", "3", "--batch-size=7", "--num_epochs", "2", "--learning-rate", "0.5", "--save-dir", "a-b"]
    )
    assert (args.latent_dims, args.batchsize, args.epochs, args.lr, args.outdir) == (3, 7, 2, 0.5, "a-b")
    assert args.typed == {"latent_dims", "batchsize", "epochs", "lr", "outdir"}


@pytest.mark.parametrize(
    "argv",
    [
        "--latent_dims 0",
        "--latent_dims -3",
        "--latent_dims eight",
        "--latent_dims 1.5",
        "--latent_dims",
        "--latent_dims 999999999999999999999",
        "--batchsize 0",
        "--epochs -1",
        "--epochs " + "9" * 5000,
        "--max_filters 2",
        "--max_filters 99999999",
        "--image_size 60",
        "--image_size 80000",
        "--lr 0",
        "--lr -1",
        "--lr nan",
        "--lr inf",
        "--lr fast",
        "--seed -1",
        "--seed 99999999999",
        "--limit 0",
        "--dataset",
        "--dataset mnits",
        "--latent_dim 8",
        "two words",
        "..",
        "a/b",
        "cifar-10",
        "--beta -1",
        "--beta_start 0.1",
        "--free_bits nan",
        "--arch mlp --decoder transpose",
        "--arch mlp --decoder upsample",
        "--arch mlp --max_filters 4",
        "--arch transformer",
        "--init nothing.npz",
    ],
)
def test_wrong_flags_end_in_one_line(fails, tmp_path, argv):
    fails("train", "--dataset", "synthetic", *argv.split(), "--outdir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mistyped_flag_gets_a_hint(fails):
    assert "did you mean --latent_dims?" in fails("train", "--latent_dim", 8)
    assert "did you mean --nsamples?" in fails("generate", "--n-sample=8")


def test_a_batch_that_no_memory_holds(fails, tmp_path):
    flags = ["--dataset", "synthetic", "--batchsize", "60000", "--max_filters", "1024", "--image_size", "256"]
    assert "smaller --batchsize" in fails("train", *flags, "--outdir", tmp_path)


def test_interrupt_says_how_to_go_on(tmp_path):
    flags = [
        "--dataset",
        "synthetic",
        "--limit",
        "200",
        "--image_size",
        "16",
        "--max_filters",
        "8",
        "--epochs",
        "100000",
        "--outdir",
    ]
    process = start("train.py", *flags, tmp_path)
    while not list(tmp_path.glob("*/log.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().startswith("interrupted in epoch") and "--resume" in err and "Traceback" not in err


def test_closed_pipe_ends_quietly(model_file):
    with start("generate.py", "--model", model_file, "--info") as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_names_outside_ascii_print_anywhere(model_file, tmp_path):
    odd = tmp_path / "süß 数字.npz"
    model_file.rename(odd)
    process = start("generate.py", "--model", odd, "--info", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and err == "" and "Model: " in out
