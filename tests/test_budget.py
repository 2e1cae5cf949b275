"""A run of some minutes: what is decided at its start, and that it ends in time and can be repeated without a clock."""

import json
import re
import shlex
import signal

import pytest

from toolkit import datasets
from toolkit.formats import checkpoint
from toolkit.training import budget
from toolkit.training.plan import make_plan
from toolkit.training.trainer import Trainer

FACTS = budget.Facts(make_plan(), (), budget.LAWS[1], 60_000, 1, 10_000, 20.0)
TINY = "--dataset synthetic --limit 400 --image_size 16".split()


def speeds(plan, faster=1.0, by_batch=1.0):
    """Seconds of a step on an imaginary machine, whose speed falls with filters and rises with the batch size."""
    return plan.train.batchsize**by_batch * 64 ** (1 - by_batch) * plan.model.max_filters / 64 / 1000 / faster


def decided(minutes, faster=1.0, by_batch=1.0, **changes):
    return budget.decide(60 * minutes, FACTS._replace(**changes), lambda plan: speeds(plan, faster, by_batch))


def test_more_time_or_a_faster_machine_means_a_larger_model_that_sees_more():
    filters = [decided(minutes)[0].model.max_filters for minutes in (1, 5, 30, 500)]
    assert filters == sorted(filters) and filters[0] < filters[-1]
    assert decided(5)[0].model.max_filters <= decided(5, faster=30)[0].model.max_filters
    epochs = [decided(minutes, typed=("max_filters",))[0].train.epochs for minutes in (1, 5, 30)]
    assert epochs == sorted(epochs)


def test_the_time_is_shared_between_steps_scores_and_the_prior():
    plan, _ = decided(10, typed=("max_filters",), prior=100.0)
    step = speeds(plan)
    whole, part = divmod(plan.train.epochs * 938, 938)
    scores = (whole + (part > 0)) * (budget.SHEETS + budget.SCORING * step / 64 * 10_000)
    at_end = 100 + budget.ENCODING * step / 64 * 60_000
    assert 0.93 * 600 < plan.train.epochs * 938 * step + scores + at_end <= 600


def test_the_reason_has_the_figures_on_which_it_rests():
    plan, reason = decided(5)
    filters = plan.model.max_filters
    assert f"{filters} filters, {plan.train.epochs:.3g} epochs at {64_000 // filters:,} images/s" in reason
    losses = {int(f): float(loss) for loss, f in re.findall(r"([\d.]+) with (\d+)", reason)}
    assert min(losses, key=losses.get) == filters and len(losses) > 1


def test_typed_options_win():
    before = make_plan({"max_filters": 48, "latent_dims": 5, "batchsize": 32})
    plan, reason = decided(5, plan=before, typed=("max_filters", "latent_dims", "batchsize"), faster=9)
    assert (plan.model.max_filters, plan.model.latent_dims, plan.train.batchsize) == (48, 5, 32)
    assert "48 filters, " in reason and "loss" not in reason
    plan, _ = decided(5, plan=make_plan({"arch": "mlp"}))
    assert plan.model.max_filters == 512  # the laws are those of convolutions


def test_a_larger_batch_where_it_is_faster():
    assert decided(5)[0].train.batchsize == 64
    assert decided(5, by_batch=0.1)[0].train.batchsize > 64


def test_batches_are_no_larger_than_a_folder():
    assert decided(5, by_batch=0.1, images=60, least_steps=60)[0].train.batchsize == 64


def test_a_short_time_leaves_at_least_a_step():
    for minutes in (1e-6, 0.1):
        plan, _ = decided(minutes)
        assert plan.train.epochs > 0


@pytest.mark.parametrize("law", budget.LAWS.values())
def test_laws_fall_with_filters_and_images(law):
    losses = [law.loss(filters, 10**5, 64) for filters in law.filters]
    assert losses == sorted(losses, reverse=True)
    assert law.loss(64, 10**6, 64) < law.loss(64, 10**5, 64) < law.loss(64, 10**5, 256)


def test_steps_that_fit():
    assert budget.fit_steps(100, 1, 10, 2) == 80 + 2  # eight epochs of 12 s, and two steps and their scores
    assert budget.fit_steps(98.3, 1, 10, 2) == 80  # a last part of less than a twentieth is left out
    assert budget.fit_steps(5, 1, 10, 2) == 3
    assert budget.fit_steps(-5, 1, 10, 2) == 0


def test_a_clock_corrects_the_horizon(monkeypatch):
    """Steps that take twice as long as expected make the run half as long."""
    split = datasets.load("synthetic", "train", None, 200)
    trainer = Trainer(make_plan({"image_size": 16, "max_filters": 8, "epochs": 100, "batchsize": 50}), split, split)
    now = [0.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])
    clock, expected = budget.Clock(100, prior=10), []
    while trainer.steps < trainer.horizon:
        clock.begin_epoch(trainer)
        steps = min(trainer.epoch_steps, trainer.horizon - trainer.steps)
        seconds = steps * (0.5 if trainer.steps < 20 else 1)
        trainer.steps += steps
        now[0] += seconds + 0.5
        entry = {"seconds": seconds, "first_step_seconds": seconds / steps}
        clock.end_epoch(trainer, entry)
        now[0] += 0.25
        expected.append(entry["horizon"])
        assert entry["horizon"] == trainer.horizon
    assert expected[0] > 1.4 * expected[-1]
    assert 80 < now[0] + 10 <= 100
    assert trainer.plan.train.epochs * 4 == trainer.horizon == trainer.steps


def test_the_line_that_a_run_prints_repeats_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(budget.LAWS, 1, budget.LAWS[1]._replace(filters=(8, 16)))
    monkeypatch.setattr(budget, "TIMED", 0.05)
    flags = ["--minutes", 0.05, "--beta", 0.1, "--outdir", tmp_path / "my runs"]
    status, out, err = run("train", *TINY, *flags)
    assert (status, err) == (0, "")
    assert out.startswith("Plan for 0.05 minutes: ") and "--beta 0.1" in out
    (model,) = (tmp_path / "my runs").glob("*.npz")
    log = [json.loads(line) for line in (model.with_suffix("") / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == log[-1]["horizon"]
    line = out[out.index("The same without --minutes:\n") :].splitlines()[1].strip()
    words = shlex.split(line)
    assert words[:2] == ["python", "train.py"] and "--minutes" not in words
    assert "Already trained" in run("train", *words[2:])[1]  # the same options
    assert "Already trained" in run("train", *TINY, *flags)[1]  # and nothing is measured again


def test_an_interrupted_run_is_resumed_with_what_was_decided(run, fails, tmp_path, monkeypatch):
    monkeypatch.setitem(budget.LAWS, 1, budget.LAWS[1]._replace(filters=(8, 16)))
    monkeypatch.setattr(budget, "TIMED", 0.05)
    flags = [*TINY, "--minutes", 0.06, "--outdir", tmp_path]
    score, ended = Trainer.end_epoch, []

    def interrupted(trainer):
        if ended:
            signal.raise_signal(signal.SIGINT)
        ended.append(score(trainer))
        return ended[-1]

    monkeypatch.setattr(Trainer, "end_epoch", interrupted)
    assert run("train", *flags)[0] == 130
    monkeypatch.setattr(Trainer, "end_epoch", score)
    monkeypatch.setattr(budget, "decide", None)  # would fail
    (state,) = tmp_path.glob("*/state.npz")
    epochs = checkpoint.load_state(state).facts["options"]["epochs"]
    assert "unfinished run" in fails("train", *flags)
    status, out, _ = run("train", *flags, "--resume")
    assert status == 0 and "Resuming after epoch 1\n" in out
    facts = checkpoint.load_state(state).facts
    assert facts["options"]["epochs"] == epochs and facts["minutes"] == 0.06


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--minutes 5 --epochs 3", "--minutes has no effect with --epochs"),
        ("--minutes 0", "--minutes must be above 0"),
        ("--minutes soon", "--minutes needs a number"),
        ("--minutes 1e9", "--minutes must be below"),
    ],
)
def test_wrong_times_are_one_line(fails, tmp_path, flags, said):
    assert said in fails("train", *TINY, *flags.split(), "--outdir", tmp_path)
