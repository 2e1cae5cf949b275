"""One dial: which model to train in a given time, and for how long.

    decide(1800, facts, time_step) → a plan, and the reason for it in words

`LAWS` predict the loss from filters and training images. They were fitted to runs of this toolkit; bench/RESULTS.md has
the runs, and how well the laws predict a run that they were not fitted to (bench/scaling.py).
"""

import math
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from toolkit.architectures import ModelConfig
from toolkit.machine import ranks
from toolkit.training import stream
from toolkit.training.plan import Plan, make_plan
from toolkit.wording import counted

CHOSEN = ("max_filters", "latent_dims", "batchsize", "epochs")  # the options that are decided
BATCHES = (128, 256)  # larger than the default
GAIN = 0.01  # of the loss, to choose one of them: as much as the laws are off
SCORING, ENCODING = 0.3, 0.15  # of the time that training takes for as many images
SHEETS = 0.5  # seconds of an epoch for its sheets and files
LEAST_PART = 1 / 20  # of an epoch: a shorter last part is left out
WARM_UP, TIMED = 2, 1.0  # steps before a step is timed, and seconds for which steps are timed


class Law(NamedTuple):
    """Held-out loss = least + a · filters^-p + b · images^-q."""

    filters: tuple[int, ...]  # to choose from: those that were run
    latent_dims: int  # the best number
    least: float
    of_filters: tuple[float, float]  # a, p
    of_images: tuple[float, float]  # b, q
    of_batch: float  # images in larger batches than 64 count less: times (64 / batch) to this power
    data: str  # of the runs

    def loss(self, filters: int, images: float, batch: int) -> float:
        (a, p), (b, q) = self.of_filters, self.of_images
        return self.least + a * filters**-p + b * (images * (64 / batch) ** self.of_batch) ** -q


LAWS = {  # by channels
    1: Law((16, 32, 64, 128), 16, 45.15, (67.08, 0.65), (2181.0, 0.475), 0.3, "MNIST"),
    3: Law((32, 64, 128), 64, 1.67, (532.7, 0.45), (1.553e6, 0.95), 0.3, "cartoon faces"),
}


class Facts(NamedTuple):
    """What a decision depends on besides the time."""

    plan: Plan  # from flags and defaults
    typed: Collection[str]  # options that stay as they are
    channels: int
    images: int  # to train on
    least_steps: int  # in an epoch
    scored: int  # images after each epoch
    prior: float  # seconds to fit it


class Choice(NamedTuple):
    plan: Plan
    loss: float  # predicted
    speed: float  # images per second


def decide(seconds: float, facts: Facts, time_step: Callable[[Plan], float]) -> tuple[Plan, str]:
    """The plan with the lowest predicted loss after some seconds, and the reason for it.

    `time_step` returns the seconds of a training step. Options that were typed stay.
    """
    law, before = LAWS[facts.channels], facts.plan

    def choice(**options):
        plan = make_plan(before.options() | options)
        batch = min(plan.train.batchsize, facts.images)
        per_step = time_step(plan)
        epoch = stream.epoch_steps(facts.images, batch, facts.least_steps)
        after_epoch = SHEETS + SCORING * per_step / batch * facts.scored
        at_end = facts.prior + ENCODING * per_step / batch * facts.images
        steps = max(1, affordable(seconds - at_end, per_step, epoch, after_epoch))
        plan = make_plan(plan.options() | {"epochs": stream.in_epochs(steps, epoch)})
        return Choice(plan, law.loss(plan.model.max_filters, steps * batch, batch), batch / per_step)

    dims = before.model.latent_dims if "latent_dims" in facts.typed else law.latent_dims
    is_free = before.model.arch == ModelConfig.arch and "max_filters" not in facts.typed  # which the laws are about
    tried = []
    for filters in law.filters if is_free else [before.model.max_filters]:  # from fast to slow, until it gets worse
        tried.append(choice(latent_dims=dims, max_filters=filters))
        if tried[-1].loss > min(one.loss for one in tried):
            break
    best = min(tried, key=lambda one: one.loss)
    for batch in BATCHES if "batchsize" not in facts.typed else ():  # faster on a GPU
        larger = choice(latent_dims=dims, max_filters=best.plan.model.max_filters, batchsize=batch)
        if larger.loss > (1 - GAIN) * best.loss:
            break
        best = larger
    model, train = best.plan.model, best.plan.train
    words = f"{counted(round(best.speed), 'image')}/s with {model.max_filters} filters"
    words += f" in batches of {train.batchsize}" if train.batchsize != before.train.batchsize else ""
    reason = f"{words} make {train.epochs:.3g} epochs"
    if is_free:
        losses = ", ".join(f"{one.loss:.1f} with {one.plan.model.max_filters}" for one in tried)
        reason += f"; on {law.data} this time gives a loss of {losses} filters"
    return best.plan, reason


def affordable(seconds: float, per_step: float, epoch_steps: int, after_epoch: float) -> int:
    """How many steps fit into some seconds, with scores and files after each epoch and at the end."""
    epochs, rest = divmod(max(0.0, seconds), epoch_steps * per_step + after_epoch)
    more = int(max(0.0, rest - after_epoch) / per_step)
    return int(epochs) * epoch_steps + (more if more >= LEAST_PART * epoch_steps or not epochs else 0)


def time_step(trainer: Any) -> float:
    """The seconds of a training step, as rank 0 measures it."""

    def train(steps):
        for _, batch in zip(range(steps), trainer.batches(), strict=False):
            trainer.step(batch)
        trainer.wait()

    def timed(steps):
        start = time.perf_counter()
        train(steps)
        return ranks.broadcast((time.perf_counter() - start) / steps)

    train(WARM_UP)
    return timed(math.ceil(TIMED / timed(WARM_UP)))


class Clock:
    """Keeps a run to its time, by correcting its horizon at the end of each epoch."""

    def __init__(self, seconds: float, prior: float):
        self.start = self.begun = time.perf_counter()  # of the run, and of an epoch
        self.seconds, self.prior, self.saving, self.steps = seconds, prior, SHEETS, 0

    def begin_epoch(self, trainer: Any) -> None:
        """To be called after the files of the epoch before are written."""
        now = time.perf_counter()
        self.saving = now - self.scored if self.steps else SHEETS
        self.begun, self.steps = now, trainer.steps

    def end_epoch(self, trainer: Any, entry: dict[str, Any]) -> None:
        """Correct the horizon after the scores of an epoch, and write it into its log entry."""
        self.scored = now = time.perf_counter()
        steps = trainer.steps - self.steps
        scoring = now - self.begun - entry["seconds"]
        per_step = entry["seconds"] / steps
        if steps > 1:  # the first one may compile
            per_step = (entry["seconds"] - entry["first_step_seconds"]) / (steps - 1)
        scored = len(trainer.test.images) + (0 if trainer.held_out is None else len(trainer.held_out))
        at_end = self.prior + ENCODING / SCORING * scoring / scored * len(trainer.train.images)
        left = self.seconds - (now - self.start) - self.saving - at_end
        more = affordable(left, per_step, trainer.epoch_steps, scoring + self.saving)
        trainer.set_horizon(ranks.broadcast(trainer.steps + more))
        entry["horizon"] = trainer.horizon
