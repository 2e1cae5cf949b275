"""Training runs as a person meets them: what is printed and written, and that it can be stopped anywhere."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from PIL import Image
from selection import slow_but

import train
from toolkit import datasets
from toolkit.architectures import ModelConfig, build
from toolkit.errors import UserError
from toolkit.files import writing
from toolkit.formats import checkpoint
from toolkit.model import inputs
from toolkit.random import SCORE, image_keys
from toolkit.shell.opening import ROOT
from toolkit.training import folder, schedules
from toolkit.training.plan import make_plan
from toolkit.training.trainer import Trainer, check_batches

TINY = "--dataset synthetic --limit 300 --image_size 16 --max_filters 8 --latent_dims 2 --batchsize 64 --epochs".split()
NAME = "vae_synthetic_filters_0008_dims_0002"


def digest(folder):
    return hashlib.sha256((folder / f"{NAME}.npz").read_bytes()).hexdigest()


def read_log(folder):
    return [json.loads(line) for line in (folder / NAME / "log.jsonl").read_text().splitlines()]


def test_prints_and_writes_what_it_promises(run, tmp_path):
    status, out, err = run("train", *TINY, 2, "--outdir", tmp_path)
    assert (status, err) == (0, "")
    assert "  Device: CPU, " in out
    assert "  Data set: synthetic, 300 of 60,000 training and 300 of 10,000 test images" in out
    assert "Parameters: 1,0" in out
    assert out.count("\nepoch      loss =     recon +      KL      test images/s    time\n") == 1
    rows = re.findall(r"^  \d/2 +([\d.]+) = +([\d.]+) \+ +([\d.]+) +([\d.]+) +[\d,]+ +[\d.]+ s$", out, re.M)
    assert len(rows) == 2
    loss, reconstruction, kl, test = map(float, rows[-1])
    entry = read_log(tmp_path)[-1]
    assert loss == pytest.approx(reconstruction + kl, abs=0.02) and test == pytest.approx(
        entry["test"]["loss"], abs=0.01
    )
    model = tmp_path / f"{NAME}.npz"
    generate, explorer = (
        re.search(rf"^  python \S*{script} --model {model}$", out, re.M)
        for script in ("generate.py", "visualize.py explorer")
    )
    assert generate and explorer and out.index("\nNext:\n") < generate.start() < explorer.start()

    sheets = [f"epoch_000{e}_{kind}.png" for e in (1, 2) for kind in ("reconstructions", "samples")]
    assert sorted(path.name for path in (tmp_path / NAME).iterdir()) == sorted([*sheets, "log.jsonl", "state.npz"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, f"{NAME}.npz"]
    loaded = checkpoint.load(tmp_path / f"{NAME}.npz")
    assert loaded.dataset == "synthetic" and loaded.epoch == 2
    assert loaded.test == read_log(tmp_path)[-1]["test"]


@pytest.mark.slow
def test_it_learns(run, tmp_path):
    run("train", *TINY, 8, "--lr", 0.01, "--outdir", tmp_path)
    first, *_, last = read_log(tmp_path)
    assert last["test"]["loss"] < 0.7 * first["test"]["loss"]
    assert last["loss"] == pytest.approx(last["reconstruction"] + last["kl"])


def test_sheets_show_the_same_originals_every_epoch(run, tmp_path):
    run("train", *TINY, 2, "--outdir", tmp_path)

    def originals(epoch):
        with Image.open(tmp_path / NAME / f"epoch_000{epoch}_reconstructions.png") as picture:
            return np.array(picture)[:16, :16]

    np.testing.assert_array_equal(originals(1), originals(2))
    assert originals(1).max() > 100


def test_same_seed_same_bits_other_seed_other_bits(run, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("train", *TINY, 1, "--seed", seed, "--outdir", tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    a, c = (checkpoint.load(tmp_path / name / f"{NAME}.npz").model for name in "ac")
    for (key, ours), (_, theirs) in zip(tree_flatten(a.parameters()), tree_flatten(c.parameters()), strict=True):
        if not key.endswith(".bias"):  # those that batch norm takes away stay at zero
            assert (np.array(ours) != np.array(theirs)).any(), key


@pytest.mark.parametrize(
    "extra", slow_but("--keep_best --recipe classic", ("--lr_schedule constant", "--keep_best --recipe classic"))
)
def test_resumed_run_ends_with_the_same_bits(run, tmp_path, extra):
    run("train", *TINY, 4, *extra.split(), "--outdir", tmp_path / "whole")
    run("train", *TINY, 2, *extra.split(), "--outdir", tmp_path / "parts")
    status, out, _ = run("train", *TINY, 4, *extra.split(), "--resume", "--outdir", tmp_path / "parts")
    assert status == 0 and "Resuming after epoch 2" in out
    a, b = (checkpoint.load(tmp_path / name / f"{NAME}.npz").model for name in ("whole", "parts"))
    for (key, ours), (_, theirs) in zip(tree_flatten(a.parameters()), tree_flatten(b.parameters()), strict=True):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs), err_msg=key)
    figures = [[(e["epoch"], e["loss"], e["test"]) for e in read_log(tmp_path / name)] for name in ("whole", "parts")]
    assert figures[0] == figures[1] and len(figures[0]) == 4


@pytest.mark.slow
def test_killed_anywhere_and_resumed_ends_with_the_same_bits(run, tmp_path):
    run("train", *TINY, 6, "--outdir", tmp_path / "whole")
    killed = tmp_path / "killed"
    command = [sys.executable, "train.py", "--cpu", *TINY, "6", "--resume", "--outdir", str(killed)]
    for seconds in (0.02, 0.2):  # after the run has begun to write: anywhere in an epoch or a write
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith(("Resuming", "There is no run", "  ")):
                break
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    status, _, _ = run("train", *TINY, 6, "--resume", "--outdir", killed)
    assert status == 0
    assert digest(killed) == digest(tmp_path / "whole")
    assert [entry["epoch"] for entry in read_log(killed)] == [1, 2, 3, 4, 5, 6]


def test_resume_restores_the_options_and_rejects_others(run, fails, tmp_path):
    run("train", *TINY, 1, "--lr", 0.002, "--outdir", tmp_path)
    names = "--dataset synthetic --max_filters 8 --latent_dims 2 --resume --epochs 2 --outdir".split()
    _, out, _ = run("train", *names, tmp_path)
    assert "Learning rate: 0.002" in out and "300 of 60,000 training" in out and "Resuming after epoch 1" in out
    line = fails("train", *names, tmp_path, "--batchsize", 32)
    assert "--batchsize 32" in line and "has 64" in line


def test_resuming_a_finished_run_changes_nothing(run, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    before = digest(tmp_path)
    status, out, _ = run("train", *TINY, 1, "--resume", "--outdir", tmp_path)
    assert status == 0 and "All 1 epochs are done" not in out and "1 epoch is done" in out and "--epochs" in out
    assert digest(tmp_path) == before


@pytest.mark.slow
def test_overwrite_starts_from_scratch(run, tmp_path):
    run("train", *TINY, 3, "--outdir", tmp_path)
    run("train", *TINY, 1, "--overwrite", "--outdir", tmp_path)
    assert [entry["epoch"] for entry in read_log(tmp_path)] == [1]
    assert not list((tmp_path / NAME).glob("epoch_0003*"))


def test_a_broken_state_is_one_line_and_a_broken_log_costs_only_itself(run, fails, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    (tmp_path / NAME / "log.jsonl").write_text('{"epoch": 1, "lo')
    assert run("train", *TINY, 2, "--resume", "--outdir", tmp_path)[0] == 0
    state = tmp_path / NAME / "state.npz"
    state.write_bytes(state.read_bytes()[:5000])
    fails("train", *TINY, 2, "--resume", "--outdir", tmp_path)
    state.write_bytes((tmp_path / f"{NAME}.npz").read_bytes())
    assert "not a training state" in fails("train", *TINY, 2, "--resume", "--outdir", tmp_path)


def test_keep_best_keeps_the_epoch_that_is_best_on_held_out_images(run, tmp_path):
    status, out, _ = run("train", *TINY, 3, "--lr", 0.05, "--keep_best", "--outdir", tmp_path)
    assert status == 0 and " held out " in out and "275 of 60,000 training" in out
    log = read_log(tmp_path)
    best = min(log, key=lambda entry: entry["held_out"]["loss"])
    loaded = checkpoint.load(tmp_path / f"{NAME}.npz")
    assert loaded.epoch == best["epoch"] and loaded.test == best["test"]
    assert f"\nKept: epoch {loaded.epoch} of 3, with the lowest loss on held-out images\n" in out
    loaded.epoch = 2
    checkpoint.save(tmp_path / "second.npz", loaded)
    assert "\n  Trained for: epoch 2 of 3\n" in run("generate", "--info", "--model", tmp_path / "second.npz")[1]


@pytest.mark.slow
def test_beta_warms_up_and_only_then_the_best_is_chosen(run, tmp_path):
    flags = ["--beta", 0.5, "--beta_start", 0.1, "--beta_warmup", 2, "--keep_best", "--lr", 0.05]
    _, out, _ = run("train", *TINY, 4, *flags, "--outdir", tmp_path)
    assert "squared error + 0.5 KL (from 0.1 within 2 epochs)" in out and re.search(r"^  4/4 .* 0.5 ", out, re.M)
    log = read_log(tmp_path)
    steps = 5  # of 275 images in an epoch
    expected = [0.1 + 0.4 * (1 - 1 / steps) / 2, 0.1 + 0.4 * (2 - 1 / steps) / 2, 0.5, 0.5]
    assert [entry["beta"] for entry in log] == pytest.approx(expected)
    best = min(log[1:], key=lambda e: e["held_out"]["reconstruction"] + 0.5 * e["held_out"]["kl"])
    assert checkpoint.load(tmp_path / f"{NAME}.npz").epoch == best["epoch"]


@pytest.mark.slow
def test_while_beta_warms_up_the_latest_model_is_kept(run, tmp_path):
    _, out, _ = run("train", *TINY, 2, "--beta_warmup", 9, "--keep_best", "--outdir", tmp_path)
    assert "\nKept: epoch 2 of 2, as β was still rising\n" in out
    assert checkpoint.load(tmp_path / f"{NAME}.npz").epoch == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule, share", [("linear", lambda p: 1 - p), ("cosine", lambda p: (1 + np.cos(np.pi * p)) / 2)]
)
def test_the_learning_rate_warms_up_and_goes_down_to_nothing(run, tmp_path, schedule, share):
    run("train", *TINY, 4, "--lr_schedule", schedule, "--lr_warmup", 9, "--outdir", tmp_path)
    last = [4, 9, 14, 19]  # steps of the epochs; the warm-up takes at most a fifth of the run
    expected = [0.01 * share(step / 20) for step in last]
    assert [entry["learning_rate"] for entry in read_log(tmp_path)] == pytest.approx(expected)


@pytest.mark.slow
def test_plateau_halves_the_rate_when_nothing_is_gained(run, tmp_path, monkeypatch):
    monkeypatch.setattr(schedules, "PATIENCE", 1)
    monkeypatch.setattr(schedules, "STALLED", 0.999)  # nothing is ever enough
    flags = ["--lr_schedule", "plateau", "--recipe", "classic", "--outdir", tmp_path]
    run("train", *TINY, 4, *flags)
    status, out, _ = run("train", *TINY, 7, "--resume", *flags)
    assert status == 0 and "275 of 60,000 training" in out
    rates = [entry["learning_rate"] for entry in read_log(tmp_path)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4])  # the best, two stalled; two; two


VARIANTS = {
    "conditional": ["--conditional", "--lr_schedule", "plateau"],
    "transpose": ["--arch", "transpose", "--beta_warmup", 3, "--free_bits", 0.05],
    "mlp": ["--arch", "mlp", "--max_filters", 16, "--likelihood", "bce", "--binarize", "dynamic"],
    "normal": ["--likelihood", "normal", "--weight_decay", 0],
    "resnet": ["--arch", "resnet", "--depth", 1, "--likelihood", "logistic"],
    "bounded": "--arch bounded --type_of_embedding cat --embed_factor 0.1 --keep_best".split(),
    "iwae": ["--arch", "resnet", "--conditional", "--objective", "iwae", "--iw_samples", 3, "--iw_warmup", 1],
}


@pytest.mark.parametrize("variant", slow_but("mlp", VARIANTS))
def test_every_variant_trains_and_resumes_to_the_same_bits(run, tmp_path, variant):
    for name, epochs in (("whole", [3]), ("parts", [2, 3])):
        for last in epochs:
            flags = [
                *TINY,
                last,
                "--limit",
                128,
                "--image_size",
                8,
                "--lr_schedule",
                "constant",
                *VARIANTS[variant],
                "--resume",
                "--outdir",
                tmp_path / name,
            ]
            assert run("train", *flags)[0] == 0
    (whole,), (parts,) = ((tmp_path / name).glob("*.npz") for name in ("whole", "parts"))
    ours, theirs = (dict(tree_flatten(checkpoint.load(path).model.parameters())) for path in (whole, parts))
    for key, array in ours.items():
        np.testing.assert_array_equal(np.array(array), np.array(theirs[key]), err_msg=key)
    log = [json.loads(line) for line in (whole.with_suffix("") / "log.jsonl").read_text().splitlines()]
    assert log[-1]["test"]["reconstruction"] < log[0]["test"]["reconstruction"]
    assert run("generate", "--model", whole, "--nsamples", 4, "--outfile", tmp_path / "a.png")[0] == 0
    flags = ["--rec_testdata", "--limit", 5, "--outdir", tmp_path / "rec"]
    assert run("reconstruct", "--model", whole, *flags)[0] == 0


def test_earlier_names_of_flags(run, tmp_path):
    flags = ["--hidden_dim", 2, "--type_of_embedding", "one_hot", "--beta", 0.25, "--beta_max", 2]
    flags += ["--beta_annealing_period", 1, "--runs_dir", tmp_path, "--resume_if_exists", "--detect_posterior_collapse"]
    status, out, _ = run("train", "my_run", *TINY, 1, *flags)
    assert status == 0 and "conditional on 10 classes" in out
    assert "squared error + 2 KL (from 0.25 within 1 epoch)" in out
    assert (tmp_path / "my_run" / f"{NAME}.npz").exists()


@pytest.mark.slow
def test_collapse_warns_and_is_stored(run, tmp_path):
    _, _, err = run("train", *TINY, 12, "--beta", 1e3, "--lr", 0.006, "--lr_schedule", "cosine", "--outdir", tmp_path)
    log = read_log(tmp_path)
    assert log[-1]["kl"] < 0.001 and log[-1]["collapsed"] and not log[0]["collapsed"]
    collapsed = [entry["collapsed"] for entry in log]
    began = sum(now and not before for before, now in zip([False, *collapsed], collapsed, strict=False))
    assert began and err.count("Warning: the latents carry no information") == began
    _, _, err = run("generate", "--model", tmp_path / f"{NAME}.npz", "--outfile", tmp_path / "a.png")
    assert err.startswith("Warning: in this model the latents carry no information") and err.count("\n") == 1


@pytest.mark.slow
def test_begins_with_the_weights_of_a_model(run, fails, tmp_path):
    run("train", *TINY, 3, "--lr", 0.01, "--outdir", tmp_path / "a")
    first = tmp_path / "a" / f"{NAME}.npz"
    run("train", *TINY, 1, "--lr", 1e-9, "--init", first, "--outdir", tmp_path / "b")
    ours, theirs = (checkpoint.load(tmp_path / x / f"{NAME}.npz").model.trainable_parameters() for x in "ab")
    for (key, array), (_, other) in zip(tree_flatten(ours), tree_flatten(theirs), strict=True):
        np.testing.assert_allclose(np.array(other), np.array(array), atol=1e-6, err_msg=key)
    flags = ["--image_size", 24, "--init", first, "--outdir", tmp_path / "c"]
    assert "image_size 16, this run 24" in fails("train", *TINY, 1, *flags)


@pytest.mark.slow
def test_the_optimizer_can_be_reset(run, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    _, out, _ = run("train", *TINY, 2, "--resume", "--reset_optimizer", "--outdir", tmp_path)
    assert "Resuming after epoch 1" in out
    _, state, _ = checkpoint.load_state(tmp_path / NAME / "state.npz")
    assert {array.item() for path, array in state.items() if path.endswith("step")} == {5}  # of the second epoch alone


@pytest.mark.slow
def test_conditional_needs_labels(fails, run, tmp_path):
    (tmp_path / "plain").mkdir()
    for i in range(12):
        Image.new("L", (16, 16), i).save(tmp_path / "plain" / f"{i}.png")
    plain = ["--dataset", f"folder:{tmp_path / 'plain'}", "--data_dir", tmp_path]
    assert "no labels" in fails("train", *TINY, 1, *plain, "--conditional", "--outdir", tmp_path)
    run("train", *TINY, 1, "--conditional", "--outdir", tmp_path)
    model = ["--model", tmp_path / f"{NAME}.npz", "--outdir", tmp_path / "rec"]
    assert "has none" in fails("reconstruct", *model, *plain)
    for i in range(12):
        (tmp_path / "classes" / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), i).save(tmp_path / "classes" / str(i % 3) / f"{i}.png")
    classes = ["--dataset", f"folder:{tmp_path / 'classes'}", "--data_dir", tmp_path]
    assert "10 classes" in fails("reconstruct", *model, *classes)


@pytest.mark.slow
def test_tensorboard(run, fails, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", exc_type=ImportError)
    status, *_ = run("train", *TINY, 2, "--keep_best", "--tensorboard", tmp_path / "board", "--outdir", tmp_path)
    assert status == 0
    (events,) = (tmp_path / "board").iterdir()
    written = events.read_bytes()
    for tag in (b"loss/train", b"loss/held_out", b"kl/test", b"samples", b"reconstructions"):
        assert written.count(tag) >= 2, tag
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    line = fails("train", *TINY, 1, "--tensorboard", tmp_path / "board", "--outdir", tmp_path / "new")
    assert "pip install tensorboardX" in line and not (tmp_path / "new").exists()


def test_loss_that_is_no_number_stops_and_keeps_the_last_model(run, fails, tmp_path):
    line = fails("train", *TINY, 3, "--lr", 1e6, "--outdir", tmp_path / "new")
    assert "try a smaller --lr" in line
    assert not (tmp_path / "new" / f"{NAME}.npz").exists()
    run("train", *TINY, 1, "--outdir", tmp_path)
    before = digest(tmp_path)
    line = fails("train", *TINY, 3, "--lr", 1e6, "--resume", "--outdir", tmp_path)
    assert "--resume with a smaller --lr" in line
    assert digest(tmp_path) == before
    _, out, _ = run("train", *TINY, 2, "--lr", 0.0005, "--resume", "--outdir", tmp_path)
    assert "Learning rate: 0.0005" in out and "\n  2/2 " in out


@pytest.mark.slow
def test_no_run_is_lost_by_forgetting_a_flag(run, fails, tmp_path):
    run("train", *TINY, 2, "--outdir", tmp_path)
    before = digest(tmp_path)
    status, out, _ = run("train", *TINY, 2, "--outdir", tmp_path)  # the same one, and it is finished
    assert status == 0 and "Already trained" in out and "--overwrite" in out
    line = fails("train", *TINY, 1, "--beta", 4, "--outdir", tmp_path)
    assert "finished run with another --epochs, --beta" in line and "--overwrite" in line
    assert "train it further with --resume" in fails("train", *TINY, 3, "--outdir", tmp_path)
    (tmp_path / NAME / "state.npz").rename(tmp_path / "state.npz")
    assert "exists" in fails("train", *TINY, 2, "--outdir", tmp_path)  # a model that somebody put there
    (tmp_path / NAME / "state.npz").write_bytes(b"broken")
    assert "cannot be read" in fails("train", *TINY, 2, "--outdir", tmp_path)
    assert digest(tmp_path) == before and len(read_log(tmp_path)) == 2
    assert run("train", *TINY, 1, "--beta", 4, "--overwrite", "--outdir", tmp_path)[0] == 0
    assert digest(tmp_path) != before and len(read_log(tmp_path)) == 1


def test_an_unfinished_run_is_not_lost_by_forgetting_resume(run, fails, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    state = tmp_path / NAME / "state.npz"
    model, optimizer, facts = checkpoint.load_state(state)
    facts["options"]["epochs"] = 5
    checkpoint.save_state(
        state, model, type("Optimizer", (), {"state": tree_unflatten(list(optimizer.items()))}), facts
    )
    line = fails("train", *TINY, 1, "--outdir", tmp_path)
    assert "1 of 5 epochs" in line and "--resume" in line and "--overwrite" in line
    assert run("train", *TINY, 1, "--overwrite", "--outdir", tmp_path)[0] == 0


def as_optimizer(arrays):
    """Something that has an optimizer's state."""
    return type("Optimizer", (), {"state": tree_unflatten(list(arrays.items()))})


def test_the_lock_is_released_when_a_run_cannot_begin(run, fails, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    fails("train", *TINY, 2, "--resume", "--limit", 10, "--outdir", tmp_path)
    fails("train", *TINY, 2, "--overwrite", "--data_dir", tmp_path, "--dataset", "folder:nowhere", "--outdir", tmp_path)
    with writing.locked(tmp_path / NAME):
        pass
    assert "another process" in train_while_locked(fails, tmp_path)


def train_while_locked(fails, tmp_path):
    with writing.locked(tmp_path / NAME):
        return fails("train", *TINY, 2, "--resume", "--outdir", tmp_path)


def test_two_runs_do_not_share_a_folder(fails, tmp_path):
    (tmp_path / NAME).mkdir()
    with writing.locked(tmp_path / NAME):
        assert "another process" in fails("train", *TINY, 1, "--outdir", tmp_path)


def test_a_resume_reads_the_state_once_it_has_the_lock(run, fails, tmp_path, monkeypatch):
    run("train", *TINY, 1, "--outdir", tmp_path)
    read = []
    monkeypatch.setattr(checkpoint, "load_state", read.append)
    with writing.locked(tmp_path / NAME):
        assert "another process" in fails("train", *TINY, 2, "--resume", "--outdir", tmp_path)
    assert read == []


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_a_state_that_cannot_be_read_now_is_not_absent(run, fails, tmp_path, flags, monkeypatch):
    run("train", *TINY, 1, "--keep_best", "--outdir", tmp_path)
    (tmp_path / f"{NAME}.npz").unlink()
    state = tmp_path / NAME / "state.npz"
    state.rename(tmp_path / "moved")
    state.symlink_to(tmp_path / "other disk" / "moved")  # not mounted
    fails("train", *TINY, 1, "--keep_best", *flags, "--outdir", tmp_path)

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("toolkit.formats.checkpoint.opened", broken)
    assert "Input/output error" in fails("train", *TINY, 1, "--keep_best", *flags, "--outdir", tmp_path)
    monkeypatch.undo()
    (tmp_path / "other disk").mkdir()
    (tmp_path / "moved").rename(tmp_path / "other disk" / "moved")
    assert run("train", *TINY, 2, "--keep_best", "--resume", "--outdir", tmp_path)[0] == 0


def test_a_log_that_cannot_be_read_now_is_not_written_anew(run, fails, tmp_path, monkeypatch):
    run("train", *TINY, 2, "--outdir", tmp_path)

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("toolkit.training.log.contents", broken)
    assert "log.jsonl: Input/output error" in fails("train", *TINY, 3, "--resume", "--outdir", tmp_path)
    monkeypatch.undo()
    assert len(read_log(tmp_path)) == 2
    os.truncate(tmp_path / NAME / "log.jsonl", 2**26)
    assert "larger than 32 MiB" in fails("train", *TINY, 3, "--resume", "--outdir", tmp_path)


def test_pipes_in_the_place_of_files_of_a_run_are_replaced(run, tmp_path):
    model = (tmp_path / NAME).with_suffix(".npz")
    (tmp_path / NAME).mkdir()
    for path in (model, *(tmp_path / NAME / name for name in ("state.npz", "log.jsonl", "epoch_0001_samples.png"))):
        os.mkfifo(path)  # to write to it would wait for ever
    assert run("train", *TINY, 1, "--overwrite", "--outdir", tmp_path)[0] == 0
    assert model.is_file() and (tmp_path / NAME / "state.npz").is_file()


def test_other_pictures_of_the_same_number_are_noticed(run, fails, tmp_path):
    flags = f"--dataset folder:{tmp_path / 'pets'} --image_size 16 --max_filters 8 --outdir {tmp_path}".split()
    flags += ["--cache_dir", tmp_path / "cache"]
    (tmp_path / "pets").mkdir()

    def draw(shade):
        for i in range(4):
            Image.new("L", (16, 16), shade + i).save(tmp_path / "pets" / f"{i}.png")

    draw(10)
    assert run("train", *flags, "--epochs", 1)[0] == 0
    draw(10)  # the same ones, written again
    assert run("train", *flags, "--epochs", 2, "--resume")[0] == 0
    draw(20)
    assert "but different ones" in fails("train", *flags, "--epochs", 3, "--resume")


def test_other_images_in_the_files_of_a_data_set_are_noticed(run, fails, mnist_folder, tmp_path):
    flags = f"--data_dir {mnist_folder.parent} --image_size 16 --max_filters 8 --outdir {tmp_path / 'out'}".split()
    assert run("train", *flags, "--epochs", 1)[0] == 0
    path = mnist_folder / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x05")
    path.write_bytes(path.read_bytes()[:-2] + bytes([9 - path.read_bytes()[-2], 5]))
    assert "but different ones" in fails("train", *flags, "--epochs", 2, "--resume")


def test_whatever_an_epoch_writes_outlives_a_power_cut(run, tmp_path, monkeypatch):
    written = {}
    write = writing.write

    def watched(path, data, durable=False):
        written[path.name] = durable
        write(path, data, durable)

    for module in (folder, checkpoint):
        monkeypatch.setattr(module, "write", watched)
    run("train", *TINY, 1, "--outdir", tmp_path)
    assert len(written) == 5 and all(written.values()), written


def test_interrupted_save_is_finished_first(run, tmp_path, monkeypatch):
    write = folder.write

    def write_and_press(path, data, **options):
        write(path, data, **options)
        if "0002_reconstructions" in str(path):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(folder, "write", write_and_press)
    status, _, err = run("train", *TINY, 4, "--outdir", tmp_path)
    assert status == 130 and "interrupted in epoch 3 of" in err and "continues after epoch 2" in err
    assert checkpoint.load_state(tmp_path / NAME / "state.npz").facts["epoch"] == 2
    assert (tmp_path / NAME / "epoch_0002_samples.png").exists()
    assert len(read_log(tmp_path)) == 2


def test_every_step_has_its_own_noise_and_every_epoch_its_own_order():
    train_split, test_split = (datasets.load("synthetic", split, None, 200) for split in ("train", "test"))
    plan = make_plan({"seed": 3, "batchsize": 64, "max_filters": 8, "latent_dims": 2, "image_size": 16})
    trainer = Trainer(plan, train_split, test_split)
    keys, batches, update = [], [], trainer.update

    def watched(x, labels, keys_of_images, beta, share):
        keys.append(tuple(keys_of_images[0].tolist()))
        batches.append(np.array(x))
        return update(x, labels, keys_of_images, beta, share)

    trainer.updates[trainer.objective.name] = watched
    entries = []
    for _ in range(2):
        for batch in trainer.batches():
            trainer.step(batch)
        entries.append(trainer.end_epoch())
    assert len(set(keys)) == 8
    assert [len(batch) for batch in batches] == [64] * 8
    first, second, _ = np.split(np.concatenate(batches), [200, 400])
    assert (first != second).any()
    for seen in (first, second):  # every image once
        floats = np.array(inputs.to_floats(mx.array(train_split.images), trainer.model.config))
        np.testing.assert_allclose(sorted(image.sum() for image in seen), sorted(x.sum() for x in floats), rtol=1e-5)

    # The test score counts every image and samples its latent vector: it is the bound, not the error of the mean.
    error, kl = trainer.model.terms(
        inputs.to_floats(mx.array(test_split.images), trainer.model.config),
        None,
        image_keys(3, SCORE, mx.arange(200, dtype=mx.uint32)),
    )
    assert entries[-1]["test"]["reconstruction"] == pytest.approx(error.mean().item(), rel=1e-4)
    assert entries[-1]["test"]["kl"] == pytest.approx(kl.sum(axis=1).mean().item(), rel=1e-4)


def test_files_in_the_way(fails, tmp_path):
    (tmp_path / "file").touch()
    assert "a file is in the way" in fails("train", *TINY, 1, "--outdir", tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).touch()
    fails("train", *TINY, 1, "--outdir", tmp_path / "out")


def test_one_image_and_odd_batches(run, fails, tmp_path):
    status, _, _ = run("train", *TINY, 1, "--limit", 1, "--outdir", tmp_path)
    assert status == 0
    status, _, _ = run("train", *TINY, 1, "--limit", 65, "--outdir", tmp_path / "b")
    assert status == 0
    status, _, _ = run("train", *TINY, 1, "--limit", 65, "--image_size", 8, "--outdir", tmp_path / "d")
    assert status == 0  # every batch is full
    fails("train", *TINY, 1, "--limit", 1, "--keep_best", "--outdir", tmp_path / "c")


def test_trains_on_mnist_files(run, mnist_folder, tmp_path):
    flags = "--image_size 16 --max_filters 8 --epochs 1 --data_dir".split()
    status, out, _ = run("train", *flags, mnist_folder.parent, "--outdir", tmp_path / "out")
    assert status == 0 and "mnist, 30 of 60,000 training and 20 of 10,000 test images" in out
    assert (tmp_path / "out" / "vae_mnist_filters_0008_dims_0008.npz").exists()


def test_a_fully_connected_model_takes_any_batch(run, tmp_path):
    flags = ["--arch", "mlp", "--max_filters", 16, "--image_size", 8]
    assert run("train", *TINY, 1, *flags, "--limit", 65, "--outdir", tmp_path)[0] == 0  # the last batch is one image
    check_batches(
        build(ModelConfig(arch="mlp", image_size=64)), 2**17, samples=1
    )  # by its layers 4.5 GiB, by those of convolutions 1024
    with pytest.raises(UserError, match="GiB of memory"):
        check_batches(build(ModelConfig()), 2**24, samples=1)
    with pytest.raises(UserError, match="GiB of memory.*or --iw_samples"):
        check_batches(build(ModelConfig()), 64, samples=10**5)


@pytest.mark.slow
def test_the_path_of_pictures_stays_on_this_machine(run, tmp_path, monkeypatch):
    pictures = tmp_path / "private place" / "my pictures"
    pictures.mkdir(parents=True)
    for i in range(12):
        Image.new("L", (16, 16), 9 * i).save(pictures / f"{i}.png")
    data = ["--dataset", f"folder:{pictures}", "--data_dir", tmp_path]
    assert run("train", *TINY, 1, *data, "--outdir", tmp_path / "out")[0] == 0
    (model,) = (tmp_path / "out").glob("*.npz")
    assert b"private place" not in model.read_bytes()
    _, info, _ = run("generate", "--model", model, "--info")
    assert "Data set: folder:my pictures" in info and "private place" not in info
    report = ["--importance_samples", 0, "--outfile", tmp_path / "r.html", "--data_dir", tmp_path]
    monkeypatch.chdir(tmp_path)
    assert run("visualize", "report", "--model", model, *report)[0] == 0  # the run's state knows where they are
    assert "private place" not in (tmp_path / "r.html").read_text()
    model.rename(tmp_path / "moved.npz")
    monkeypatch.chdir(pictures.parent)  # where such a folder is, but nobody has named it
    assert run("reconstruct", "--model", tmp_path / "moved.npz", "--outdir", tmp_path)[0] == 2
    assert run("reconstruct", "--model", tmp_path / "moved.npz", "--outdir", tmp_path, *data)[0] == 0


@pytest.mark.parametrize(
    "facts",
    [
        {"options": {"lr": [1]}},
        {"options": {"arch": {}}},
        {"options": {"epochs": "2"}},
        {"options": {"dataset": None}},
        {"options": {"batchsize": 10**30}},
        {"options": []},
        {"images": [1]},
        {"images": [None, "a"]},
        {"epoch": -3},
        {"best": "low"},
        {"plateau": {"lowest": [1]}},
        {"plateau": {"halvings": -1}},
        {"class_names": [1, 2]},
        {"device": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("flags", [[], ["--resume"]], ids=["", "resume"])
def test_invalid_metadata_of_a_state_is_rejected(fails, tiny_state, tmp_path, facts, flags):
    arrays, said = tiny_state
    (tmp_path / NAME).mkdir()
    changed = said | facts
    if facts.get("options"):  # one option is another one
        changed["options"] = said["options"] | facts["options"]
    (tmp_path / NAME / "state.npz").write_bytes(checkpoint.pack(arrays, changed))
    assert "state" in fails("train", *TINY, 2, *flags, "--outdir", tmp_path)


@pytest.fixture(scope="module")
def tiny_state(tmp_path_factory):
    """The arrays and the facts of a state after one epoch."""
    path = tmp_path_factory.mktemp("run")
    train.main([*map(str, TINY), "1", "--outdir", str(path)])
    contents = checkpoint.read(path / NAME / "state.npz")
    return contents.arrays(), contents.facts


def test_a_state_of_another_version_is_one_line(run, fails, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    state = tmp_path / NAME / "state.npz"
    model, optimizer, facts = checkpoint.load_state(state)
    for options in (facts["options"] | {"swirl": 1}, facts["options"] | {"weight_decay": "much"}):
        checkpoint.save_state(state, model, as_optimizer(optimizer), facts | {"options": options})
        assert "--overwrite" in fails("train", *TINY, 2, "--resume", "--outdir", tmp_path)


def test_a_state_without_a_younger_option_has_its_default(run, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    state = tmp_path / NAME / "state.npz"
    model, optimizer, facts = checkpoint.load_state(state)
    del facts["options"]["free_bits"]
    checkpoint.save_state(state, model, as_optimizer(optimizer), facts)
    assert run("train", *TINY, 2, "--resume", "--outdir", tmp_path)[0] == 0


def test_a_gpu_that_works_ahead_ends_with_the_same_bits_and_notices_nan_before_anything_is_saved():
    train_split, test_split = (datasets.load("synthetic", split, None, 200) for split in ("train", "test"))
    model = {"max_filters": 8, "latent_dims": 2, "image_size": 16}

    def trained(ahead, **options):
        trainer = Trainer(make_plan(model | {"batchsize": 64} | options), train_split, test_split)
        trainer.ahead = ahead
        losses = [trainer.step(batch) for batch in trainer.batches()]
        return losses, trainer.end_epoch(), dict(tree_flatten(trainer.model.parameters()))

    (at_once, entry, weights), (later, same_entry, same_weights) = trained(0), trained(1)
    assert np.isnan(later[0]) and later[1:] == at_once[:-1]
    assert {k: entry[k] for k in ("loss", "test")} == {k: same_entry[k] for k in ("loss", "test")}
    for key, array in weights.items():
        np.testing.assert_array_equal(np.array(array), np.array(same_weights[key]), err_msg=key)
    with pytest.raises(UserError, match="the loss became"):
        trained(1, lr=1e9)


@pytest.mark.slow
def test_resuming_on_another_device_says_that_bits_will_differ(run, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    _, out, _ = run("train", *TINY, 2, "--resume", "--outdir", tmp_path)
    assert "another device" not in out
    state = tmp_path / NAME / "state.npz"
    model, optimizer, facts = checkpoint.load_state(state)
    checkpoint.save_state(state, model, as_optimizer(optimizer), facts | {"device": "CPU, 7 cores, abacus"})
    status, out, _ = run("train", *TINY, 3, "--resume", "--outdir", tmp_path)
    assert status == 0 and "another device (CPU, 7 cores, abacus)" in out


def test_nothing_is_compiled_again(monkeypatch):
    """After the first epoch no function is handed to mx.compile any more."""
    compile, functions, counts = mx.compile, [], []

    def counted(function, **states):
        functions.append(function)
        return compile(function, **states)

    monkeypatch.setattr(mx, "compile", counted)
    train_split, test_split = (datasets.load("synthetic", split, None, 128) for split in ("train", "test"))
    model = {"max_filters": 8, "latent_dims": 2, "image_size": 16}
    trainer = Trainer(make_plan(model | {"batchsize": 64}), train_split, test_split)
    for _ in range(3):
        for batch in trainer.batches():
            trainer.step(batch)
        trainer.end_epoch()
        trainer.samples(), trainer.reconstructions()
        counts.append(len(functions))
    assert 0 < counts[0] == counts[-1]


@pytest.mark.slow
def test_init_brings_the_learned_variance_along(run, tmp_path):
    noisy = [*TINY, 8, "--likelihood", "normal", "--lr", 0.01, "--outdir", tmp_path / "a"]
    run("train", *noisy)
    first = tmp_path / "a" / f"{NAME}.npz"
    run("train", *TINY, 1, "--likelihood", "normal", "--lr", 1e-9, "--init", first, "--outdir", tmp_path / "b")
    ours, theirs = (checkpoint.load(tmp_path / x / f"{NAME}.npz").model.likelihood.log_variance.item() for x in "ab")
    assert ours != -2 and theirs == pytest.approx(ours, abs=1e-5)


def test_a_younger_option_typed_at_a_resume_is_not_ignored(run, fails, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    state = tmp_path / NAME / "state.npz"
    model, optimizer, facts = checkpoint.load_state(state)
    del facts["options"]["free_bits"]
    checkpoint.save_state(state, model, as_optimizer(optimizer), facts)
    assert "--free_bits 3 contradicts" in fails("train", *TINY, 2, "--resume", "--free_bits", 3, "--outdir", tmp_path)


def test_a_run_that_another_process_finished_meanwhile_is_kept(tmp_path):
    splits = [datasets.load("synthetic", split, None, 100) for split in ("train", "test")]
    plan = make_plan({"dataset": "synthetic", "epochs": 1, "max_filters": 8, "image_size": 16})
    with folder.RunFolder(tmp_path, plan) as late:
        assert not late.is_finished  # and while it loads its data …
        with folder.RunFolder(tmp_path, plan) as early:
            trainer = Trainer(plan, *splits)
            early.begin(trainer, "CPU")
            for batch in trainer.batches():
                trainer.step(batch)
            early.save(trainer, trainer.end_epoch(), {})
        with pytest.raises(UserError, match="has since trained"):
            late.begin(Trainer(plan, *splits), "CPU")


def test_an_interrupted_overwrite_keeps_the_old_model_from_the_next_run(run, fails, tmp_path, monkeypatch):
    run("train", *TINY, 1, "--outdir", tmp_path)
    before = digest(tmp_path)

    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "end_epoch", interrupt)
    assert run("train", *TINY, 1, "--beta", 2, "--overwrite", "--outdir", tmp_path)[0] == 130
    monkeypatch.undo()
    assert "0 of 1 epoch" in fails("train", *TINY, 1, "--seed", 5, "--outdir", tmp_path)
    assert digest(tmp_path) == before and not (tmp_path / NAME / "log.jsonl").exists()


@pytest.mark.slow
def test_a_finished_run_without_its_model_is_an_error(run, fails, tmp_path):
    run("train", *TINY, 1, "--outdir", tmp_path)
    (tmp_path / f"{NAME}.npz").unlink()
    assert "is gone" in fails("train", *TINY, 1, "--outdir", tmp_path)
    assert run("train", *TINY, 2, "--resume", "--outdir", tmp_path)[0] == 0
    assert (tmp_path / f"{NAME}.npz").exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--resume --overwrite", "give one of them"),
        ("--conditional --type_of_embedding none", "contradicts --conditional"),
        ("--type_of_embedding cat --arch bounded --label_planes cat", "contradicts --label_planes"),
        ("--arch bounded --embed_factor 2", "has no effect without --conditional"),
        ("--type_of_embedding cat --embed_factor 2", "--embed_factor is an option of --arch bounded"),
        ("--arch transpose --decoder upsample", "contradicts --arch transpose"),
        ("--beta_max 2 --beta 3", "add --beta_warmup"),
        ("--limit 1 --image_size 8", "batches of 1 image cannot"),
        ("--arch cnov", "did you mean conv?"),
        ("--lr 1e9 --epochs 1", "try a smaller --lr"),
    ],
)
def test_flags_that_contradict_each_other(fails, tmp_path, flags, said):
    line = fails("train", *TINY, 2, *flags.split(), "--outdir", tmp_path)
    assert said in line and "as the epoch before" not in line


def test_options_that_are_not_default_are_printed(run, tmp_path):
    _, out, _ = run("train", *TINY, 1, "--keep_best", "--outdir", tmp_path)
    (line,) = (line for line in out.splitlines() if line.startswith("  Not default: "))
    assert "--limit 300" in line and "--keep_best" in line and "--seed" not in line
