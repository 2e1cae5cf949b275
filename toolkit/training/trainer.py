"""The arithmetic of a run: batches, steps, scores. No file I/O, no printing.

All randomness comes from the seed and the number of a step: the images that it sees (stream.py) and its noise. So a
resumed run draws the same numbers as an uninterrupted one, and on a CPU its result is bit-identical. A step is
computed in vae.py, files are written in folder.py, and the loop over epochs is in train.py.
"""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path

import vae
from toolkit import datasets, random
from toolkit.architectures import activations, build, slow_channels
from toolkit.datasets import Split
from toolkit.errors import UserError
from toolkit.machine import ranks
from toolkit.machine.process import begin_phase, on_cpu
from toolkit.model.inference import importance_bound, per_image
from toolkit.model.inputs import batch, to_floats
from toolkit.training import optimizers, schedules, stream
from toolkit.training.plan import COLLAPSED_KL, HELD_OUT, START_AGAIN, Plan
from toolkit.wording import counted

SHOWN = 64  # images on a sheet
NEW_RUN = "restore the old images, or start a new run with another --outdir"
LONGEST_NAMES = 2**18  # bytes of class names in a file


class Batch(NamedTuple):
    """A batch of training images; each rank has a slice of it."""

    step: int  # its number in the run
    images: mx.array  # (N, H, W, C) uint8
    labels: mx.array | None
    first: int  # offset of this rank's slice in the whole batch
    count: int  # images in the whole batch


class Trainer:
    """A model in training with its data and its optimizer.

    `weights` is a model to start from instead of random weights.
    """

    def __init__(self, plan: Plan, train: Split, test: Split, weights: vae.VAE | None = None):
        self.plan, self.config = plan, plan.train
        self.train, self.test = train, test
        # Indices into the training split: images to train on, and held-out images.
        self.train_numbers, self.held_out = np.arange(len(train.images)), None
        if self.config.keep_best or self.config.lr_schedule == "plateau":
            self.train_numbers, self.held_out = hold_out(len(train.images), self.config.seed)
        if self.config.conditional and train.labels is None:
            ways = "leave --conditional out, or sort them into one folder per class"
            raise UserError(f"the images have no labels — {ways}")
        names = train.class_names or ()
        if self.config.conditional and len(json.dumps(names)) > LONGEST_NAMES:
            raise UserError(f"{len(names):,} class names are too long in total — shorten the names of the folders")
        model_config = plan.model_config(train.images.shape[3], len(names))
        self.batch_size = min(self.config.batchsize, len(self.train_numbers))
        mx.random.seed(self.config.seed)
        self.model = build(model_config)
        samples = plan.objective(self.config.epochs).samples
        check_batches(self.model, self.batch_size, samples)
        row, _ = datasets.look_up(self.config.dataset)
        passes = stream.steps_per_epoch(len(self.train_numbers), self.batch_size, least=1)
        self.epoch_steps = max(passes, row.least_steps)
        few = row.augment if self.epoch_steps > passes else "none"
        self.augment = few if self.config.augment == "auto" else self.config.augment
        self.objective = plan.objective(0)  # of the current epoch
        self.updates: dict[str, Callable] = {}
        self.optimizer = optimizers.make(self.config, prior=bool(self.model.prior.trainable_parameters()))
        self.optimizer.init(self.model.trainable_parameters())
        if weights:
            self.begin_with(weights)
        self.steps = self.epoch = 0  # done; the last epoch of a run may be a part of one
        self.best = math.inf  # the lowest objective on held-out images
        self.is_best = True  # whether to keep the model of the last epoch
        self.plateau = schedules.Plateau()
        self.ahead = 0 if on_cpu() else 1  # steps in flight while the next one is prepared
        self.computing: deque[tuple] = deque()

    def begin_with(self, weights: vae.VAE) -> None:
        """Copy the weights of another model."""
        ours, theirs = self.model.config, weights.config
        for name in ("arch", "latent_dims", "max_filters", "net", "image_size", "channels", "num_classes", "outputs"):
            if (mine := getattr(ours, name)) != (other := getattr(theirs, name)):
                what = {"net": "other architecture options"}.get(name, f"{name} {other}, this run {mine}")
                raise UserError(f"the initial model has {what} — choose the same")
        self.model.encoder.update(weights.encoder.parameters())
        self.model.decoder.update(weights.decoder.parameters())
        for name in ("likelihood", "prior"):
            if getattr(ours, name) == getattr(theirs, name):
                self.model[name].update(weights[name].parameters())

    @property
    def update(self) -> Callable:
        """The training step of the current objective, built once."""
        name = self.objective.name
        if name not in self.updates:
            self.updates[name] = vae.training_step(self.model, self.optimizer, self.objective, ranks.sum_gradients)
        return self.updates[name]

    @property
    def horizon(self) -> int:
        """Steps of the whole run."""
        return stream.to_steps(self.config.epochs, self.epoch_steps)

    @property
    def scored(self) -> int:
        """Images that are scored after each epoch."""
        return len(self.test.images) + (0 if self.held_out is None else len(self.held_out))

    def set_horizon(self, steps: int) -> None:
        """Change the length of the run."""
        self.config = replace(self.config, epochs=stream.to_epochs(steps, self.epoch_steps))
        self.plan = replace(self.plan, train=self.config)

    @property
    def epochs_done(self) -> float:
        """Epochs of training so far, to two decimals."""
        return round(self.steps / self.epoch_steps, 2)

    @property
    def slow_channels(self) -> list[int]:
        """Channel counts that slow a GPU down."""
        return [] if on_cpu() else slow_channels(self.model)

    @cached_property
    def checksums(self) -> list[int]:
        """Checksums that detect changed data."""
        return [self.train.checksum(), self.test.checksum()]

    # State

    def memory(self) -> dict[str, Any]:
        """The state of a run besides weights and optimizer."""
        return {
            "options": self.plan.options(),
            "images": [len(self.train.images), len(self.test.images)],
            "checksums": self.checksums,
            "epoch": self.epoch,
            "step": self.steps,
            "best": self.best if math.isfinite(self.best) else None,
            "plateau": vars(self.plateau),
        }

    def resume(self, model: vae.VAE, optimizer: dict[str, mx.array] | None, memory: dict[str, Any]) -> None:
        """Continue from a saved state; without that of the optimizer if it is None."""
        ours = {path: array.shape for path, array in tree_flatten(self.optimizer.state)}
        theirs = ours if optimizer is None else {path: array.shape for path, array in optimizer.items()}
        if model.config != self.model.config or ours != theirs:
            raise UserError(f"the run to resume does not fit this data — {START_AGAIN}")
        if memory["images"] != (now := [len(self.train.images), len(self.test.images)]):
            what, had = f"{now[0]} training and {now[1]} test images", "{} and {}".format(*memory["images"])
            raise UserError(f"the data has changed: {what}, the run to resume had {had} — {NEW_RUN}")
        if memory.get("checksums", self.checksums) != self.checksums:
            raise UserError(f"the data has changed: the same number of images, but different ones — {NEW_RUN}")
        self.model.update(model.parameters())
        if optimizer is not None:
            self.optimizer.state = tree_map_with_path(lambda path, _: optimizer[path], self.optimizer.state)
        self.remember(memory)

    def remember(self, memory: dict[str, Any]) -> None:
        self.epoch = memory["epoch"]
        self.steps = memory.get("step", self.epoch * self.epoch_steps)
        self.best = math.inf if memory["best"] is None else memory["best"]
        remembered = memory["plateau"]
        self.plateau = schedules.Plateau(**{name: remembered.get(name, v) for name, v in vars(self.plateau).items()})

    def synchronize(self) -> None:
        """Check that all ranks have the same flags and data, and send them the weights and the state of rank 0."""
        counts = [len(self.train.images), len(self.test.images)]
        data = {"number of images": counts, "checksum of the data": self.checksums}
        ranks.check_same(self.plan.options() | data, "give every rank the same flags and data")
        self.model.update(ranks.broadcast_arrays(self.model.parameters()))
        self.optimizer.state = ranks.broadcast_arrays(self.optimizer.state)
        self.remember(ranks.broadcast(self.memory()))

    # An epoch

    def batches(self) -> Iterator[Batch]:
        """The training batches up to the end of this epoch, or of the run."""
        begin_phase()
        self.model.train()
        before = self.steps // self.epoch_steps
        self.objective = self.plan.objective(before)
        self.progress = Progress(self.batch_size)
        self.computing.clear()
        seed, size = self.config.seed, self.batch_size
        for step in range(self.steps, min((before + 1) * self.epoch_steps, self.horizon)):
            whole = self.train_numbers[stream.numbers(seed, len(self.train_numbers), size, step)]
            own, first = ranks.share(whole), ranks.share(range(size)).start
            labels = None if self.train.labels is None else mx.array(self.train.labels[own].astype(np.int32))
            images = stream.augment(self.train.images[own], self.augment, seed, own, step)
            yield Batch(step, mx.array(images), labels, first, size)

    def step(self, batch: Batch) -> float:
        """Set learning rate and β, and train on one batch; returns the mean loss of the epoch so far.

        On a GPU the next step is prepared while this one computes, so the loss lags by one step.
        """
        rate = schedules.learning_rate(self.config, batch.step, self.horizon, self.plateau.halvings)
        beta = schedules.beta(self.plan.elbo, batch.step / self.epoch_steps)
        optimizers.set_rate(self.optimizer, rate)
        key = random.key(self.config.seed, random.NOISE, batch.step)
        mine = slice(batch.first, batch.first + len(batch.images))  # of the keys of the whole batch
        pixels, noise = (mx.random.split(one, batch.count)[mine] for one in mx.random.split(key))
        x = to_floats(batch.images, self.model.config, pixels)  # binary pixels are sampled again in every step
        sums = self.update(x, batch.labels, noise, mx.array(beta), len(batch.images) / batch.count)
        compute = mx.async_eval if self.ahead else mx.eval
        with ranks.waiting():
            compute(sums, self.model.state, self.optimizer.state)
        self.computing.append((batch.step, sums, rate, beta))
        self.steps = batch.step + 1
        return self.wait(self.ahead)

    def wait(self, ahead: int = 0) -> float:
        """Wait until at most `ahead` steps are in flight, and record the losses of the others."""
        while len(self.computing) > ahead:
            step, sums, rate, beta = self.computing.popleft()
            with ranks.waiting():
                values = sums.tolist()
            self.progress.add(values, rate, beta)
            self.check_finite(self.progress.loss, f"in step {step + 1}")
        return self.progress.loss

    def end_epoch(self) -> dict[str, Any]:
        """Score the epoch on the test split and on held-out images, if any; returns its log entry."""
        self.wait()
        self.epoch = math.ceil(self.steps / self.epoch_steps)
        entry = {"epoch": self.epoch, "step": self.steps, "horizon": self.horizon} | self.progress.metrics()
        if self.held_out is not None:
            entry["held_out"] = self.score(self.train, self.held_out)
        entry["test"] = self.score(self.test, np.arange(len(self.test.images)))
        if self.config.lr_schedule == "plateau" and self.is_settled():
            self.plateau.watch(self.minimised(entry))
        self.is_best = self.judge(entry)
        return entry

    def score(self, split: Split, numbers: np.ndarray) -> dict[str, float]:
        """The bound on some images with the number of samples used in training; its noise depends only on the seed."""
        self.model.eval()
        model, seed, own = self.model, self.config.seed, ranks.share(numbers)

        def terms(x, chosen, labels):
            error, kl = model.score(x, labels, random.image_keys(seed, random.SCORE, chosen))
            return mx.stack([error, kl.sum(axis=1)])

        error, kl = per_image(terms, (2,), split, model.config, own)
        loss = error + kl
        if (samples := self.objective.samples) > 1:
            loss = model.likelihood.constant - importance_bound(model, split, samples, seed, chosen=own)
        sums = ranks.total(np.array([loss.sum(), error.sum(), kl.sum()], np.float32)).tolist()
        loss, error, kl = (value / len(numbers) for value in sums)
        self.check_finite(loss, f"on the test or held-out images, after epoch {self.epoch}")
        return losses(loss, error, kl)

    def judge(self, entry: dict[str, Any]) -> bool:
        """Whether to keep this epoch's model: always or, with --keep_best, if it is the best on held-out images."""
        if not self.is_settled():
            return True
        before, self.best = self.best, min(self.best, self.minimised(entry))
        return not self.config.keep_best or self.best < before

    def is_settled(self) -> bool:
        """Whether there are held-out images and β has its final value; before that, epochs are not comparable."""
        return self.held_out is not None and self.epoch >= self.plan.elbo.beta_warmup

    def minimised(self, entry: dict[str, Any]) -> float:
        """The training objective on the held-out images."""
        return self.objective.of_terms(entry["held_out"], self.plan.elbo.beta)

    def check_finite(self, loss: float, where: str) -> None:
        """Raise an error if the loss is NaN or infinite."""
        if not math.isfinite(loss):
            if not self.epoch:
                raise UserError(f"the loss became {loss} {where} — try a smaller --lr")
            ways = "--resume with a smaller --lr continues from there"
            raise UserError(f"the loss became {loss} {where}; all files are from the previous epoch — {ways}")

    # Sheets

    def reconstructions(self) -> tuple[np.ndarray, np.ndarray]:
        """The first test images and their reconstructions, floats in [0, 1]."""
        self.model.eval()
        x, _, labels = batch(self.test, np.arange(min(SHOWN, len(self.test.images))), self.model.config)
        return np.array(x), np.array(self.model.reconstruct(x, labels))

    def samples(self) -> np.ndarray:
        """Samples from the same latent vectors in every epoch, floats in [0, 1]."""
        self.model.eval()
        labels = mx.arange(SHOWN, dtype=mx.int32) % max(1, self.model.config.decoder_classes)
        z = self.model.prior.sample(SHOWN, random.key(self.config.seed, random.SAMPLES), labels=labels)
        return np.array(self.model.decode(z, labels))


class Progress:
    """The sums and timing of an epoch in batches of `size`."""

    def __init__(self, size: int):
        self.size, self.steps = size, 0
        self.totals, self.start = np.zeros(3), time.perf_counter()  # of loss, error and KL
        self.first_step = self.rate = self.beta = None

    def add(self, sums: list[float], rate: float, beta: float) -> None:
        """Record a step."""
        self.totals += sums
        self.rate, self.beta, self.steps = rate, beta, self.steps + 1
        self.end = time.perf_counter()
        if self.first_step is None:  # includes compilation
            self.first_step = self.end - self.start

    @property
    def loss(self) -> float:
        """The mean loss so far; NaN before the first step is finished."""
        return float(self.totals[0] / self.count) if self.steps else math.nan

    @property
    def count(self) -> int:
        """Images so far; one that was shown twice counts twice."""
        return self.steps * self.size

    def metrics(self) -> dict[str, Any]:
        """The means over the epoch, and its throughput: with loading, but without the first of several steps."""
        seconds = self.end - self.start
        speed = (self.count - self.size) / (seconds - self.first_step) if self.steps > 1 else self.count / seconds
        return losses(*self.totals / self.count) | {
            "beta": self.beta,
            "learning_rate": self.rate,
            "collapsed": bool(self.totals[2] / self.count < COLLAPSED_KL),
            "images_per_second": speed,
            "seconds": seconds,
            "first_step_seconds": self.first_step,
        }


def losses(loss: float, reconstruction: float, kl: float) -> dict[str, float]:
    """The bound and its terms per image."""
    return {"loss": float(loss), "reconstruction": float(reconstruction), "kl": float(kl)}


def hold_out(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into training and held-out images; a twelfth is held out, 5,000 of MNIST's 60,000."""
    if count < 2:
        raise UserError("one image cannot be split in two — use more images, or leave --keep_best out")
    order = random.generator(seed, random.HELD_OUT, 0).permutation(count)
    held_out = math.ceil(count / HELD_OUT)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def check_batches(model: vae.VAE, size: int, samples: int) -> None:
    """Raise an error if a batch is too small for batch norm, or too large for memory."""
    config = model.config
    if size < ranks.size:
        raise UserError(
            f"{ranks.size} ranks cannot share batches of {counted(size, 'image')} — use a larger --batchsize"
        )
    normed = any(isinstance(part, nn.BatchNorm) for part in model.modules())
    least = 2 if normed and config.image_size == config.architecture.multiple else 1  # a 1×1 map needs two values
    if size < least:
        why = f"batches of {counted(size, 'image')} cannot be normalised at --image_size {config.image_size}"
        raise UserError(f"{why} — use more images, a larger --batchsize or a larger --image_size")
    if not on_cpu() and sys.platform == "linux":
        return  # a GPU with its own memory
    needed = 4 * size * samples * activations(model)  # bytes, a lower bound
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        why = f"needs more than {needed / 2**30:.0f} GiB of memory, this machine has {memory / 2**30:.0f}"
        way = "take a smaller --batchsize" + (" or --iw_samples" if samples > 1 else "")
        raise UserError(f"a batch of {size} images {why} — {way}")
