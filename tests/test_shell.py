"""Flags as a person types them, and how commands end."""

import dataclasses
import importlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from sample_models import make_model, save

import toolkit
from toolkit.architectures import ModelConfig
from toolkit.errors import UserError
from toolkit.formats import checkpoint
from toolkit.options import count, from_values, option, options_of, path, text, weight
from toolkit.shell.command import command
from toolkit.shell.opening import ROOT, find_model
from toolkit.shell.parser import parse, selectors
from toolkit.training.plan import TrainConfig

TINY = "--dataset synthetic --limit 40 --image_size 16 --max_filters 8 --epochs 1".split()
COMMANDS = ("train", "generate", "reconstruct", "encode", "evaluate", "visualize", "convert", "doctor")


def start(*argv, **options):
    command = [sys.executable, *map(str, argv)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_shows_one_name_a_flag(run, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run(command, "--help-all")
    assert status == 0 and out.startswith(f"usage: python {command}.py ") and out.count(f"  python {command}.py") == 2
    assert max(map(len, out.splitlines())) <= 80
    declared = importlib.import_module(command).options()
    rows = [row.Options for _, _, known in selectors(declared) for row in known.rows().values() if row.Options]
    options = [option for part in (*declared, *rows) for option in options_of(part)]
    listed = re.findall(r"^  (--\w+)", out, re.M)
    shown = [f"--{name}" for name, _, known in options if not (known.hidden or known.positional)]
    assert set(listed) == {*shown, "--help", "--version"}
    own = [f"--{name}" for part in declared for name, _, known in options_of(part) if not known.hidden]
    assert all(listed.count(flag) == 1 for flag in own if flag in listed)
    earlier = [s for name, _, known in options for s in (*known.aliases, *([name] if known.hidden else ()))]
    assert not {f"--{spelling}" for spelling in earlier} & set(listed)
    assert not earlier or "earlier flags: docs/compatibility.md" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_page_of_help_fits_a_screen(run, command):
    """With two examples, the most used flags, and the way to all of them; that of visualize.py lists the kinds too."""
    status, out, _ = run(command, "-h")
    lines = out.splitlines()
    assert status == 0 and len(lines) <= (29 if command == "visualize" else 24) and max(map(len, lines)) <= 80
    assert len(re.findall(rf"^  python {command}\.py\b", out, re.M)) == 2
    assert lines[-1] == f"all flags: python {command}.py --help-all"
    assert "most used flags:" in lines and "--cache_dir" not in out


def test_the_first_page_of_train_is_what_a_newcomer_needs(run):
    flags = re.findall(r"^  (--\w+)", run("train", "--help")[1], re.M)
    assert flags == "--dataset --latent_dims --arch --conditional --beta --epochs --seed --minutes --resume".split()


def test_groups_come_in_a_newcomers_order(run):
    _, out, _ = run("train", "--help-all")
    titles = re.findall(r"^(\S[^:\n]+):$", out, re.M)
    assert titles[:6] == ["data", "model", "objective", "optimisation", "output", "general"]
    rows = ["--arch resnet", "--arch bounded", "--prior flow", "--objective elbo", "--objective iwae"]
    assert titles[6:] == [*rows, "help"]
    assert run("train", "--help_all")[1] == out


HEAVY = ("mlx", "numpy", "PIL", "tqdm", "vae", "urllib.request")


def test_help_and_wrong_flags_import_nothing_heavy():
    """The gate for the time of -h. bench/commands.py measures it; train.py and visualize.py list rows that need MLX."""
    code = f"""
import importlib, sys
for name in {[name for name in COMMANDS if name not in ("train", "visualize")]}:
    for flag in ("-h", "--x"):
        try: importlib.import_module(name).main([flag])
        except SystemExit: print(name, [module for module in {HEAVY} if module in sys.modules], file=sys.stderr)
"""
    lines = [line for line in start("-c", code).communicate()[1].splitlines() if not line.startswith("error: ")]
    assert len(lines) == 12 and all(line.endswith(" []") for line in lines), lines


def test_samples_need_neither_training_nor_metrics(model_file, tmp_path):
    """The gate for the time of generate.py: it imports what it uses."""
    argv = ["--model", str(model_file), "--outfile", str(tmp_path / "a.png")]
    code = f"import sys, generate\ngenerate.main({argv})\nprint(*sys.modules, sep='\\n')"
    modules = start("-c", code).communicate()[0].splitlines()
    assert "toolkit.pictures.images" in modules and (tmp_path / "a.png").exists()
    rooms = ("toolkit.training.trainer", "toolkit.metrics", "toolkit.datasets", "toolkit.pictures.kinds.")
    assert not [name for name in modules if name.startswith((*rooms, "urllib.request", "IPython", "tensorboardX"))]


def test_a_missing_package_is_named():
    process = start("-c", "import sys\nsys.modules['mlx'] = None\nimport generate\ngenerate.main([])")
    assert process.communicate()[1].startswith("error: mlx") and process.returncode == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_version(run, command):
    status, out, _ = run(command, "--version")
    assert status == 0 and out == f"{toolkit.__version__}\n"


def test_hyphens_and_aliases_are_the_same_flags():
    argv = "--latent-dims 3 --batch-size=7 --num_epochs 2 --learning-rate 0.5 --hidden-dim 4".split()
    typed = parse("python train.py", argv, ModelConfig, TrainConfig)
    assert typed.values == {"latent_dims": 4, "batchsize": 7, "epochs": 2, "lr": 0.5}
    config = typed.of(TrainConfig)
    assert (config.batchsize, config.epochs, config.lr, config.seed) == (7, 2, 0.5, 0)


def test_an_option_is_one_field(capsys):
    """A new field is a flag, has a help line and a default, and is checked when it comes from a file."""

    @dataclasses.dataclass(frozen=True)
    class Extended(TrainConfig):
        swirl: float = option(0.5, "how much to swirl", "objective", kind=weight, unit="X", aliases=("twirl",))

    assert parse("python train.py", ["--swirl", "2"], Extended).of(Extended).swirl == 2
    assert parse("python train.py", ["--twirl", "3"], Extended).of(Extended).swirl == 3
    with pytest.raises(SystemExit):
        parse("python train.py", ["--help-all"], Extended)
    assert "  --swirl X           how much to swirl (default: 0.5)" in capsys.readouterr().out
    assert from_values(Extended, {"swirl": 1.5, "epochs": 3}).swirl == 1.5
    for wrong in ({"swirl": -1.0}, {"swirl": "1"}, {"swirl": None}, {"swirl": True}, {"whirl": 1}, {"batchsize": 1.5}):
        with pytest.raises(ValueError):
            from_values(Extended, wrong)


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
        "cifar10",
        "fashion_mnist",
        "mnits",
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
    fails("train", *"--dataset synthetic --limit 64".split(), *argv.split(), "--outdir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line, said",
    {
        "generate samples.png": "samples.png is not a flag — for the output, use --outfile samples.png",
        "generate codes.csv": "--outfile codes.csv",
        "generate m.npz": "for the model, use --model m.npz",
        "generate last": "for the model, use --model last",
        "generate 16": "16 is not a flag — see python generate.py --help-all",
        "generate --device cpu": "--device is not a flag — did you mean --cpu?",
        "generate --device=cpu": "did you mean --cpu?",
        "generate --device gpu": "leave it out: a GPU is used if there is one",
        "generate -o x.png": "-o is not a flag — did you mean --outfile?",
        "generate -m x.npz": "-m is not a flag — did you mean --model?",
        "generate -n 5": "-n is not a flag — did you mean --nsamples?",
        "generate --cpu=3": "--cpu takes no value",
        "evaluate m.json": "for the output, use --json m.json",
        "reconstruct cat.jpg": "for pictures, use --images cat.jpg",
        "reconstruct -o x": "did you mean --outdir?",
        "visualize x.png": "KIND is missing — for the output, use --outfile x.png",
        "visualize everything": "KIND 'everything' is not one of traversal, interpolate",
        "visualize samples -n 5": "did you mean --nsamples?",
        "convert a.npz": "missing: OUT — see python convert.py --help-all",
        "train -e 5": "-e is not a flag — did you mean --epochs?",
        "train -epochs 5": "did you mean --epochs?",
        "train --latent_dim 8": "did you mean --latent_dims?",
        "train --workers 4": "--workers is not a flag — see python train.py --help-all",
        "train --dropout 0.1": "--dropout is not a flag — see",
        "train --epochs": "--epochs needs a value",
        "train --epochs 0": "--epochs must be above 0 — see",
        "train --num_epochs 0": "--num_epochs must be above 0",
        "train --epochs x": "--epochs needs a number, not 'x' — see",
        "train --batchsize 1.5": "--batchsize needs a whole number, not '1.5'",
        "train --epochs 99999999999": "--epochs must be below 1e+09",
        "train --max_filters 2": "--max_filters must be 4 or more with --arch conv — it is 2",
        "train --image_size 30": "--image_size 30 is not a multiple of 8 — use 24 or 32",
        "train --limit 0": "--limit must be 1 or more",
        "train --lr -1": "--lr must be above 0 — see",
        "train --lr nan": "--lr needs a number, not 'nan'",
        "train --lr inf": "--lr must be below 1e+30",
        "train --beta -1": "--beta must be 0 or more",
        "train --seed -1": "--seed must be 0 or more",
        "train --channels 2": "--channels '2' is not one of 1, 3",
        "train --likelihood norml": "not one of mse, bce, normal, logistic — did you mean normal",
        "train docs": "docs is a folder without pictures — name pictures, or choose another name for the run",
        "train last": "--model last stands for the run trained last — choose another name",
        "train --config docs": "docs is a folder — name a .toml or .json file",
        "generate --model nix": "one of cifar-10, conditional, likelihood/cifar-10, likelihood/mnist",
        "visualize traversal --image -1 --dataset synthetic --limit 9": "there is no test image -1 — choose 0 to",
        "visualize training": "this model has no run folder next to it",
        "train docs/": "docs/ is a folder without pictures — name pictures",
        "train a/b": "must be a folder or zip file that exists, or a plain name, not 'a/b'",
        "train assets --dataset mnist": "assets is a folder, and --dataset names another",
    }.items(),
)
def test_errors_name_what_was_meant(fails, monkeypatch, line, said):
    monkeypatch.chdir(ROOT)
    assert said in fails(*line.split())


@pytest.mark.parametrize("likelihood", ["logistic", "normal"])
@pytest.mark.parametrize("binarize", ["threshold", "dynamic"])
def test_grey_levels_and_binary_pixels_exclude_each_other(run, fails, tmp_path, likelihood, binarize):
    """Also where a run is there, whose differing flags are of no interest then."""
    (tmp_path / "vae_mnist_filters_0064_dims_0008.npz").touch()
    flags = ["--likelihood", likelihood, "--binarize", binarize, "--outdir", tmp_path]
    said = f"--likelihood {likelihood} needs grey levels, not pixels of 0 and 1 — leave --binarize {binarize} out"
    assert said in fails("train", *flags)


# Names of models


def test_models_by_the_names_that_people_type(run, fails, tmp_path, monkeypatch):
    """A run by its name, its folder, or as the last one; an included model by that of its folder or data."""
    monkeypatch.chdir(tmp_path)
    name = "vae_synthetic_filters_0008_dims_0008"
    for i, run_name in enumerate(("b1", "b4")):
        assert run("train", run_name, *TINY)[0] == 0
        os.utime(f"models/{run_name}/{name}/state.npz", (i, i))
    for typed, file in {
        "b1": f"models/b1/{name}.npz",
        "models/b1": f"models/b1/{name}.npz",
        f"models/b1/{name}": f"models/b1/{name}.npz",
        f"models/b1/{name}/": f"models/b1/{name}.npz",
        "last": f"models/b4/{name}.npz",
        "conditional": f"{ROOT}/pretrained/conditional/vae_mnist_filters_0064_dims_0008.npz",
        "cifar-10": f"{ROOT}/pretrained/vae_cifar-10_filters_0128_dims_0128.npz",
        "likelihood/mnist": f"{ROOT}/pretrained/likelihood/vae_mnist_filters_0032_dims_0032.npz",
    }.items():
        status, out, err = run("generate", "--model", typed, "--info")
        assert (status, err) == (0, "") and f"{typed} is {file}\nModel: {file}\n" in out
    assert " is " not in run("generate", "--model", f"models/b1/{name}.npz", "--info")[1].splitlines()[0]
    os.utime(f"models/b1/{name}/state.npz", (9, 9))
    assert str(find_model("last")) == f"models/b1/{name}.npz"

    assert f"did you mean models/b4/{name}.npz?" in fails("generate", "--model", f"models/b3/{name}.npz")
    assert "did you mean conditional?" in fails("generate", "--model", "conditionl")
    assert "name a file, a run's folder, last, or one of cifar-10, conditional" in fails("generate", "--model", "x")
    assert "name one of likelihood/vae_cifar-10" in fails("generate", "--model", "likelihood")
    assert "mnist matches 2 models — name one of vae_mnist" in fails("generate", "--model", "mnist")
    assert f"such as models/b1/{name}.npz" in fails("generate", "--model", "models")
    shutil.copy(f"models/b1/{name}.npz", "models/b1/other.npz")
    assert f"name one of models/b1/other.npz, models/b1/{name}.npz" in fails("generate", "--model", "b1")
    shutil.copy(f"models/b1/{name}.npz", "last")  # what is there wins
    assert find_model("last") == pathlib.Path("last")


@pytest.mark.slow
def test_every_command_takes_such_names(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "last is models/vae_synthetic_filters_0008_dims_0008.npz\n"
    assert run("train", *TINY)[0] == 0
    few = ["--model", "last", "--limit", 9]
    for line in (
        ["generate", "--model", "last", "--nsamples", 2],
        ["encode", *few],
        ["reconstruct", *few, "--rec_testdata"],
        ["evaluate", *few, "--importance_samples", 0],
        ["visualize", "latents", *few],
        ["visualize", "curves", "--model", "last"],
        ["visualize", "curves", "--logs", "last", "--overwrite"],
        ["convert", "last", "a.npz"],
        ["train", "again", *TINY, "--init", "last"],
    ):
        status, out, err = run(*line)
        assert status == 0 and out.count(said) == 1, (line, out, err)
    shutil.rmtree("models/again")
    assert run("train", "like", "--like", "last")[0] == 0


def test_without_a_run_there_is_no_last_model(fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no model in models/ yet — train one, or name a file" in fails("generate", "--model", "last")


def test_files_for_others_name_the_file_of_a_model(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", *TINY)[0] == 0 and run("convert", "last", "card/")[0] == 0
    assert "vae_synthetic_filters_0008_dims_0008" in (tmp_path / "card/README.md").read_text()


def test_a_mistyped_flag_gets_a_hint(fails):
    assert "did you mean --nsamples?" in fails("generate", "--n-sample=8")


@pytest.mark.slow
def test_a_batch_larger_than_memory_is_rejected(fails, tmp_path):
    flags = "--dataset synthetic --limit 4000 --batchsize 4000 --max_filters 1024 --image_size 256".split()
    assert "smaller --batchsize" in fails("train", *flags, "--outdir", tmp_path)


@pytest.mark.slow
def test_interrupt_prints_how_to_resume(tmp_path):
    flags = "--dataset synthetic --limit 200 --image_size 16 --max_filters 8 --epochs 100000 --outdir".split()
    process = start("train.py", *flags, tmp_path)
    while not list(tmp_path.glob("*/log.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (
        err.strip().startswith("interrupted in epoch")
        and "--resume continues after epoch" in err
        and "Traceback" not in err
    )


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


def test_a_run_may_be_named_nearly_like_a_data_set(run, fails, tmp_path):
    flags = "--dataset synthetic --limit 20 --epochs 1 --image_size 16 --max_filters 8".split()
    line = fails("train", "cifar10", *flags, "--outdir", tmp_path)
    assert "did you mean --dataset cifar-10?" in line and f"--outdir {tmp_path / 'cifar10'}" in line
    assert run("train", "mnist-beta4", *flags, "--outdir", tmp_path)[0] == 0
    assert run("train", *flags, "--outdir", tmp_path / "cifar10")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path, closed):
    line = f"{sys.executable} train.py {' '.join(TINY)} --outdir {tmp_path} {closed}"
    ended = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr
    assert len(list(tmp_path.glob("*/*"))) == 4 and list(tmp_path.glob("*.npz"))


@pytest.mark.slow
def test_ctrl_c_at_any_moment_and_many_times_is_one_line_at_most(tmp_path):
    """Also while modules are imported, while the first press is being handled, and while the command ends."""
    random = np.random.default_rng(0)
    traced = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}  # so that we see when our first module is there
    for i in range(TIMES := 4):
        process = start("train.py", *TINY, "--epochs", 3, "--cpu", "--outdir", tmp_path / str(i), env=traced)
        while process.stderr.readline().split()[-1:] != ["toolkit"]:
            pass
        reader = threading.Thread(target=lambda to, of: to.append(of.stderr.read()), args=(read := [], process))
        reader.start()
        time.sleep(0.8 * i / TIMES)
        for _ in range(i % 3 + 1):
            process.send_signal(signal.SIGINT)
            time.sleep(random.uniform(0, 0.02))
        assert process.wait(60) in (0, 130)
        reader.join()
        said = [line for line in read[0].splitlines() if not line.startswith("import time:")]
        assert len(said) <= 1 and "Traceback" not in read[0], said
        process.stdout.close(), process.stderr.close()


def test_a_ctrl_c_that_python_drops_is_not_lost(capsys):
    """As it does where a signal comes while an object is deleted."""

    class Deleted:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    @command
    def main(argv):
        del argv[0]
        time.sleep(20)

    with pytest.raises(SystemExit) as ended:
        main([Deleted()])
    assert ended.value.code == 130 and capsys.readouterr().err.count("\n") == 1


def test_what_others_wrote_cannot_act_on_the_terminal(run, fails, tmp_path):
    evil = "\x1b]0;title\x07\x9b31mred\u202e\nline\r"
    model = make_model(num_classes=2)
    save(tmp_path / "a.npz", model, dataset=evil, class_names=[evil, "b"], options={evil: evil})
    _, out, _ = run("generate", "--model", tmp_path / "a.npz", "--info")
    shown = out + fails("generate", "--model", tmp_path / "a.npz", "--label", f"{evil}?")
    (tmp_path / f"{evil}.npz").write_bytes(b"nothing")
    shown += fails("generate", "--model", tmp_path / f"{evil}.npz")
    arrays = {evil: np.zeros(3)}
    (tmp_path / "b.npz").write_bytes(checkpoint.pack(arrays, {}))
    shown += fails("generate", "--model", tmp_path / "b.npz") + fails("train", evil + "/")
    assert not [
        character for character in shown if unicodedata.category(character) in ("Cc", "Cf") and character != "\n"
    ]
    assert "\\x1b]0;title\\x07\\x9b31mred\\u202e line" in shown


@pytest.mark.parametrize(
    "command, flags",
    [("generate", ["--label", "9" * 5000]), ("train", ["--dataset", "synthetic", "--epochs", "9" * 401])],
)
def test_numbers_of_thousands_of_digits(fails, tmp_path, command, flags):
    save(tmp_path / "a.npz", make_model(num_classes=2))
    flags += ["--model", tmp_path / "a.npz"] if command == "generate" else ["--outdir", tmp_path / "out"]
    assert len(fails(command, *flags)) < 300


# Rows that bring options of their own


@dataclass(frozen=True)
class Deep:
    depth: int = option(2, "blocks", "model", kind=count, aliases=("blocks",))


class Net(NamedTuple):
    name: str
    words: str
    Options: type | None = None


NETS = {"plain": Net("plain", "three layers"), "deep": Net("deep", "many layers", Deep)}


@dataclass(frozen=True)
class Shared:
    arch: str = option("plain", "the network", "model", kind=text, rows=lambda: NETS)
    codes: str | None = option(None, "decode these", "sampling", kind=path)
    names: str | None = option(None, "only these rows", "sampling", kind=text, only_with=("codes",))
    seed: int = option(0, "random seed", "sampling", kind=count, not_with=("codes",))


def parse_words(*argv, given=None):
    return parse("python train.py --arch deep\n\nTrain.", list(argv), Shared, given=given)


@pytest.mark.parametrize(
    "words", ["--arch deep --depth 3", "--depth=3 --arch=deep", "--arch plain --arch deep --blocks 3"]
)
def test_a_row_brings_its_options(words):
    typed = parse_words(*words.split())
    assert typed.of(Shared).arch == "deep" and typed.of(Deep).depth == 3


def test_a_row_may_be_chosen_elsewhere():
    assert parse_words("--depth", "3", given={"arch": "deep"}).of(Deep).depth == 3
    assert "depth" not in parse_words(given={"arch": "deep"})


@dataclass(frozen=True)
class Positional:
    arch: str = option(..., "the network", "model", kind=text, unit="ARCH", rows=lambda: NETS, positional=True)
    fast: bool = option(False, "do less", "model")
    names: tuple[str, ...] = option((), "rows", "model", kind=text, several=True)


@pytest.mark.parametrize("words", ["deep --depth 3", "--fast deep --depth 3", "--names=x deep --depth 3"])
def test_a_row_may_be_a_word_of_its_own(words):
    typed = parse("python train.py deep", words.split(), Positional)
    assert typed.of(Positional).arch == "deep" and typed.of(Deep).depth == 3
    assert parse("python train.py", "deep --names a plain".split(), Positional).of(Positional).arch == "deep"


def test_without_a_word_that_it_needs_a_command_lists_the_rows(capsys):
    with pytest.raises(SystemExit) as ended:
        parse("python train.py deep", [], Positional)
    out = capsys.readouterr().out
    assert not ended.value.code and "  plain  three layers\n  deep   many layers\n" in out
    assert "Flags of one ARCH: python train.py ARCH -h" in out
    with pytest.raises(UserError, match="--depth is an option of deep — leave it out"):
        parse("python train.py deep", ["--depth", "3", "plain"], Positional)


@pytest.mark.parametrize(
    "words, said",
    {
        "--depth 3": "--depth is an option of --arch deep — leave it out, or add --arch deep",
        "--arch plain --blocks=3": "--blocks is an option of --arch deep",
        "--arch flat": "'flat' is not one of plain, deep",
        "--names a": "--names has no effect without --codes",
        "--seed 2 --codes x": "--seed has no effect with --codes",
    }.items(),
)
def test_options_that_mean_nothing(words, said):
    with pytest.raises(UserError, match=said):
        parse_words(*words.split())


@pytest.mark.parametrize(
    "line, other",
    {
        "generate --codes a.npz --nsamples 3": "with --codes",
        "generate --codes a.npz --temperature 2": "with --codes",
        "generate --codes a.npz --seed 2": "with --codes and --pixels mean",
        "generate --names x": "without --codes",
        "generate --info --nsamples 3": "with --info",
        "generate --outfile x.png --info": "with --info",
        "generate --vis_lat_space --temperature 2": "with --vis_lat_space",
        "generate --vis_lat_space --codes a.npz": "without|with --codes",
        "encode a.png --split train": "with IMAGE",
        "encode --data_dir x a.png": "with IMAGE",
        "encode --label dog": "without IMAGE",
        "reconstruct --images a.png --limit 3": "with --images",
        "reconstruct --rec_testdata --images a.png": "with --images",
        "reconstruct --label 3": "without --images",
        "convert a.npz b.npz --license mit": "with an OUT that is a file",
        "convert a.npz b.npz --data_dir x": "without --fit_prior",
        "train --reset_optimizer": "without --resume",
        "train --beta_start 0.1": "without --beta_warmup",
    }.items(),
)
def test_flags_without_effect_are_refused(fails, line, other):
    assert re.search(f"error: --\\w+ has no effect ({other}) — leave it out", fails(*line.split()))


def test_the_help_of_a_row_shows_its_options_alone(capsys):
    with pytest.raises(SystemExit):
        parse_words("--arch", "deep", "-h")
    own = capsys.readouterr().out
    assert "--depth" in own and "--seed" not in own and "python train.py -h" in own
    with pytest.raises(SystemExit):
        parse_words("-h")
    shared = " ".join(capsys.readouterr().out.split())
    assert "--depth" in shared and "plain: three layers; deep: many layers" in shared
    assert "with --codes: only these rows" in shared
