"""Choose the model that trains best in a given time, and stop on time.

    decide(1800, facts, time_step) → a plan and the reason for it, a text
    begin(1800, plan, typed, splits) → the same for these data on this machine, and the run's clock

`LAWS` predict the loss from the number of filters and training images. They were fitted to runs of this toolkit, which
are listed in bench/RESULTS.md with the errors of predictions for runs that were left out (bench/scaling.py).
"""

import math
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from toolkit import datasets
from toolkit.architectures import ModelConfig
from toolkit.datasets import Split
from toolkit.machine import ranks
from toolkit.model import mixture
from toolkit.training import stream
from toolkit.training.plan import Plan, make_plan
from toolkit.training.trainer import Trainer

CHOSEN = ("max_filters", "latent_dims", "batchsize", "epochs")  # the options that are decided
BATCHES = (128, 256)  # larger than the default
GAIN = 0.01  # least relative gain of a larger batch; the laws have errors of this size
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
    3: Law((32, 64, 128), 64, 1.97, (531.1, 0.45), (1.552e6, 0.95), 0.3, "cartoon faces"),
}


class Facts(NamedTuple):
    """The inputs of a decision besides the time."""

    plan: Plan  # from flags and defaults
    typed: Collection[str]  # options that must not change
    law: Law
    images: int  # to train on
    least_steps: int  # in an epoch
    scored: int  # images after each epoch
    prior: float  # seconds to fit it


class Choice(NamedTuple):
    plan: Plan
    loss: float  # predicted
    speed: float  # images per second


def decide(seconds: float, facts: Facts, time_step: Callable[[Plan], float]) -> tuple[Plan, str]:
    """The plan with the lowest predicted loss after `seconds`, and the reason for it.

    `time_step` measures the seconds of a training step.
    """
    law, before = facts.law, facts.plan

    def choice(**options):
        plan = make_plan(before.options() | options)
        batch = min(plan.train.batchsize, facts.images)
        per_step = time_step(plan)
        epoch = stream.steps_per_epoch(facts.images, batch, facts.least_steps)
        after_epoch = SHEETS + SCORING * per_step / batch * facts.scored
        at_end = facts.prior + ENCODING * per_step / batch * facts.images
        steps = max(1, fit_steps(seconds - at_end, per_step, epoch, after_epoch))
        plan = make_plan(plan.options() | {"epochs": stream.to_epochs(steps, epoch)})
        return Choice(plan, law.loss(plan.model.max_filters, steps * batch, batch), batch / per_step)

    is_free = before.model.arch == ModelConfig.arch and "max_filters" not in facts.typed  # which the laws are about
    tried = []
    for filters in law.filters if is_free else [before.model.max_filters]:  # from fast to slow
        tried.append(choice(max_filters=filters))
        if tried[-1].loss > min(one.loss for one in tried):
            break  # larger ones would see even fewer images
    best = min(tried, key=lambda one: one.loss)
    for batch in BATCHES if "batchsize" not in facts.typed else ():  # faster on a GPU
        if batch > facts.images:
            break
        larger = choice(max_filters=best.plan.model.max_filters, batchsize=batch)
        if larger.loss > (1 - GAIN) * best.loss:
            break
        best = larger
    model, train = best.plan.model, best.plan.train
    batches = f", batches of {train.batchsize}" if train.batchsize != before.train.batchsize else ""
    reason = f"{model.max_filters} filters{batches}, {train.epochs:.3g} epochs at {best.speed:,.0f} images/s"
    if is_free:
        losses = ", ".join(f"{one.loss:.1f} with {one.plan.model.max_filters}" for one in tried)
        reason += f"; expected loss on {law.data}: {losses} filters"
    return best.plan, reason


def begin(seconds: float, plan: Plan, typed: Collection[str], splits: list[Split]) -> tuple[Plan, str, "Clock"]:
    """The plan of a run that lasts `seconds`, the reason for it, and its clock."""
    images = splits[0].images
    law = LAWS[images.shape[3]]
    if "latent_dims" not in typed:
        plan = make_plan(plan.options() | {"latent_dims": law.latent_dims})
    clock = Clock(seconds, mixture.estimate_fitting_time(len(images), plan.model.latent_dims))
    trainer = Trainer(plan, *splits)
    least = datasets.look_up(plan.train.dataset)[0].least_steps
    facts = Facts(plan, typed, law, len(trainer.train_numbers), least, trainer.scored, clock.prior)
    return *decide(seconds, facts, lambda plan: time_step(Trainer(plan, *splits))), clock


def fit_steps(seconds: float, per_step: float, epoch_steps: int, after_epoch: float) -> int:
    """The number of steps that fit into `seconds`; each epoch ends with `after_epoch` seconds of scores and files."""
    epochs, rest = divmod(max(0.0, seconds), epoch_steps * per_step + after_epoch)
    more = int(max(0.0, rest - after_epoch) / per_step)
    return int(epochs) * epoch_steps + (more if more >= LEAST_PART * epoch_steps or not epochs else 0)


def time_step(trainer: Trainer) -> float:
    """Measure the seconds of a training step, on rank 0."""

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
    """Corrects the number of steps of a run after each epoch, so that the run ends on time."""

    def __init__(self, seconds: float, prior: float):
        self.start = self.begun = time.perf_counter()  # of the run, and of an epoch
        self.seconds, self.prior, self.saving, self.steps = seconds, prior, SHEETS, 0

    def begin_epoch(self, trainer: Trainer) -> None:
        """Call this when the files of the previous epoch are written."""
        now = time.perf_counter()
        self.saving = now - self.scored if self.steps else SHEETS
        self.begun, self.steps = now, trainer.steps

    def end_epoch(self, trainer: Trainer, entry: dict[str, Any]) -> None:
        """Call this when an epoch has been scored: corrects the horizon and stores it in the log entry."""
        self.scored = now = time.perf_counter()
        steps = trainer.steps - self.steps
        scoring = now - self.begun - entry["seconds"]
        per_step = entry["seconds"] / steps
        if steps > 1:  # the first one may compile
            per_step = (entry["seconds"] - entry["first_step_seconds"]) / (steps - 1)
        at_end = self.prior + ENCODING / SCORING * scoring / trainer.scored * len(trainer.train.images)
        left = self.seconds - (now - self.start) - self.saving - at_end
        more = fit_steps(left, per_step, trainer.epoch_steps, scoring + self.saving)
        trainer.set_horizon(ranks.broadcast(trainer.steps + more))
        entry["horizon"] = trainer.horizon
