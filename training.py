"""Training: one run with its epochs, its scores, its files, and a state from which it goes on when stopped.

All chance comes from the seed: the order of epoch e from (seed, e), the noise of step s from (seed, s). So a run that
was killed and resumed draws what an uninterrupted one would have drawn, and ends with the same bits on a CPU.
What a step computes is vae.py's, what a person sees is train.py's.
"""

import json
import math
import os
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

import checkpoint
import datasets
import images
import vae
from device import on_cpu
from errors import UserError
from files import locked, make_folder, uninterrupted, write
from inference import inputs

CHUNK = 256  # images at a time where nothing is learned
SHOWN = 64  # images on a sheet
COLLAPSED = 0.001  # nats of KL per image: below, the codes say nothing of their images
PATIENCE, STALLED = 15, 1e-4  # epochs without a relative gain of so much halve the learning rate (plateau)
CHANGEABLE = {"epochs", "lr"}  # options that a resumed run may have other than before
ORDER, NOISE, SPLIT, SCORE, SAMPLES = range(5)  # what a random number is for


def random_numbers(seed, purpose, index=0):
    """NumPy's random numbers for one purpose of a run."""
    return np.random.default_rng([seed, purpose, index])


def random_key(seed, purpose, index=0):
    """MLX's random key for one purpose of a run."""
    return mx.array(np.random.SeedSequence([seed, purpose, index]).generate_state(2))


def model_file(outdir, options):
    """Where a run keeps its model; its state, log and sheets are in the folder of that name without ending."""
    name = checkpoint.model_name(datasets.file_name(options["dataset"]), options["max_filters"], options["latent_dims"])
    return Path(outdir) / f"{name}.npz"


def model_config(options, channels=1, classes=0):
    """The configuration that a run's options ask for; channels and classes are those of the data."""
    return vae.VAEConfig(
        latent_dims=options["latent_dims"],
        max_filters=options["max_filters"],
        image_size=options["image_size"],
        channels=options["channels"] or channels,
        classes=classes if options["conditional"] else 0,
        arch=options["arch"],
        binarize=options["binarize"],
        likelihood=options["likelihood"],
    )


def stored_run(path):
    """The state of the run that keeps its model in `path`: model, optimizer state and facts; None if there is none."""
    state = path.with_suffix("") / "state.npz"
    return checkpoint.load_state(state) if state.exists() else None


def stored_options(options, typed, facts):
    """The options of a stored run; those typed now may change the changeable ones and must not contradict the rest."""
    if facts["options"].keys() != options.keys():
        raise UserError(
            "the run to resume was begun by another version of this toolkit — start afresh without --resume"
        )
    for name, value in facts["options"].items():
        if name in typed - CHANGEABLE and options[name] != value:
            raise UserError(
                f"--{name} {options[name]} contradicts the run to resume, which has {value} — give the same, or choose "
                "another --outdir"
            )
    return facts["options"] | {name: options[name] for name in typed & CHANGEABLE}


def check_replaceable(path, dataset):
    """Stop where a run would be lost that has not ended, or has learned from other pictures with the same name."""
    try:
        stored = stored_run(path)
    except UserError:
        return  # nobody can go on from a state that cannot be read
    if stored is None or (done := stored[-1]["epoch"]) == 0:
        return
    options = stored[-1]["options"]
    ways = "start afresh with --overwrite, or choose another --outdir"
    if done < (asked := options.get("epochs", 0)):
        raise UserError(
            f"{path.with_suffix('')} holds an unfinished run, {done} of {asked} epochs — go on with --resume, {ways}"
        )
    if (other := options.get("dataset", dataset)) != dataset:
        raise UserError(f"{path.with_suffix('')} holds a run on {other} — {ways}")


class Run:
    """A model in training, with its data and its files.

    `stored` is what an earlier session left, to go on from; `weights` a model to begin with instead of chance.
    """

    def __init__(self, options, path, train, test, stored=None, weights=None):
        self.options, self.path, self.folder = options, path, path.with_suffix("")
        self.train, self.test = train, test
        # The images to learn from and those held out of them, by their numbers in the training split.
        self.learned, self.held_out = np.arange(len(train.images)), None
        seed = options["seed"]
        if options["keep_best"] or options["lr_schedule"] == "plateau":
            self.learned, self.held_out = hold_out(len(train.images), seed)
        if options["conditional"] and train.labels is None:
            raise UserError(f"{options['dataset']} has no labels — leave --conditional out")
        config = model_config(options, train.images.shape[3], len(train.classes or ()))
        self.batch_size = min(options["batchsize"], len(self.learned))
        check_batches(config, self.batch_size, len(self.learned))

        mx.random.seed(seed)
        self.model = vae.VAE(config)
        self.optimizer = optim.AdamW(learning_rate=options["lr"], weight_decay=options["weight_decay"])
        self.optimizer.init(self.model.trainable_parameters())
        self.epoch, self.best, self.log = 0, math.inf, []
        self.plateau = {"lowest": None, "stalled": 0, "halvings": 0}
        if stored:
            self.go_on_from(*stored)
        elif weights:
            self.begin_with(weights)
        make_folder(self.folder)
        self.held = ExitStack()
        self.held.enter_context(locked(self.folder))
        for left in (*self.folder.glob(".*.part"), *path.parent.glob(f".{path.name}.*.part")):  # by a killed process
            left.unlink()
        if not stored:
            for left in self.folder.glob("epoch_*.png"):  # by an earlier run
                left.unlink()
            self.save_state()

        self.step = vae.compiled_training_step(self.model, self.optimizer, options["free_bits"])
        self.encode = vae.compiled_encode(self.model)
        self.decode = vae.compiled_decode(self.model)
        self.reconstruct = vae.compiled_reconstruct(self.model)
        self.error = vae.compiled_error(self.model)

    def go_on_from(self, model, optimizer_state, facts):
        """Take over what an earlier session has left; without its optimizer's state if that is None."""

        def shapes(state):
            return {key: array.shape for key, array in tree_flatten(state)}

        fits = model.config == self.model.config
        if optimizer_state is not None and fits:
            fits = shapes(optimizer_state) == shapes(self.optimizer.state)
            self.optimizer.state = optimizer_state
        if not fits:
            raise UserError(f"the run in {self.folder} does not fit this data — start afresh without --resume")
        self.model.update(model.parameters())
        if facts["images"] != (now := [len(self.train.images), len(self.test.images)]):
            raise UserError(
                f"the data has changed: {now[0]} training and {now[1]} test images, the run to resume had "
                f"{facts['images'][0]} and {facts['images'][1]} — start afresh without --resume"
            )
        self.epoch = facts["epoch"]
        self.best = math.inf if facts["best"] is None else facts["best"]
        self.plateau = facts["plateau"]
        self.log = read_log(self.folder / "log.jsonl", self.epoch)

    def begin_with(self, model):
        """Take over the weights of another model."""
        ours, theirs = self.model.config, model.config
        for name in ("arch", "latent_dims", "max_filters", "image_size", "channels", "classes"):
            if (mine := getattr(ours, name)) != (other := getattr(theirs, name)):
                raise UserError(f"the initial model has {name} {other}, this run {mine} — choose the same")
        self.model.update(model.parameters())

    def close(self):
        """Let others have the folder."""
        self.held.close()

    def beta(self, progress):
        """The weight of KL after so many epochs."""
        final, start, warmup = (self.options[name] for name in ("beta", "beta_start", "beta_warmup"))
        return final if progress >= warmup else start + (final - start) * progress / warmup

    def learning_rate(self, progress):
        """The learning rate after so many epochs."""
        schedule, rate = self.options["lr_schedule"], self.options["lr"]
        if schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * min(1, progress / self.options["epochs"])))
        return rate * 0.5 ** self.plateau["halvings"]

    def next_epoch(self, watch):
        """Train, score and save one epoch; returns its figures. `watch(images, loss)` is told of every step."""
        entry = {"epoch": self.epoch + 1} | self.train_epoch(watch)
        if self.held_out is not None:
            entry["held_out"] = self.score(self.train, self.held_out)
        entry["test"] = self.score(self.test, np.arange(len(self.test.images)))
        self.epoch += 1
        self.log.append(entry)
        self.watch_plateau(entry)
        self.save(entry)
        return entry

    def train_epoch(self, watch):
        """One pass over the training images; means over images."""
        self.model.train()
        seed, count, size = self.options["seed"], len(self.learned), self.batch_size
        order = self.learned[random_numbers(seed, ORDER, self.epoch).permutation(count)]
        steps = math.ceil(count / size)
        totals, first_step = np.zeros(2), None
        start = time.perf_counter()
        for i in range(steps):
            progress = self.epoch + i / steps
            rate, beta = self.learning_rate(progress), self.beta(progress)
            self.optimizer.learning_rate = rate
            pixels, _, labels = inputs(self.train, order[i * size : (i + 1) * size])
            sums = self.step(pixels, labels, random_key(seed, NOISE, self.epoch * steps + i), mx.array(beta))
            mx.eval(sums, self.model.state, self.optimizer.state)
            totals += sums.tolist()
            self.check_finite(totals.sum(), f"in step {i + 1} of epoch {self.epoch + 1}")
            watch(len(pixels), totals.sum() / min((i + 1) * size, count))
            if first_step is None:  # on a GPU it compiles, which is no throughput
                first_step, timed_from = time.perf_counter() - start, time.perf_counter()
        end = time.perf_counter()
        speed = (count - size) / (end - timed_from) if steps > 1 else count / (end - start)
        return figures(totals / count) | {
            "beta": beta,
            "learning_rate": rate,
            "collapsed": bool(totals[1] / count < COLLAPSED),
            "images_per_second": speed,
            "seconds": end - start,
            "first_step_seconds": first_step,
        }

    def score(self, split, numbers):
        """The bound on some images, with one code per image drawn from noise that depends on the seed alone."""
        self.model.eval()
        parts = [numbers[i : i + CHUNK] for i in range(0, len(numbers), CHUNK)]
        codes = [evaluated(self.encode(*inputs(split, part))) for part in parts]
        mean, log_var = (mx.concatenate(arrays) for arrays in zip(*codes, strict=True))
        z = vae.sample(mean, log_var, random_key(self.options["seed"], SCORE))
        errors = [
            evaluated(self.error(*inputs(split, part), z[i * CHUNK :][: len(part)])) for i, part in enumerate(parts)
        ]
        terms = mx.concatenate(errors).mean().item(), vae.kl_divergence(mean, log_var).mean().item()
        self.check_finite(sum(terms), f"on images not trained on, after epoch {self.epoch + 1}")
        return figures(terms)

    def check_finite(self, loss, where):
        """Stop at once when there is nothing left to learn from."""
        if not math.isfinite(loss):
            hint = "--resume with a smaller --lr, from the last good epoch" if self.epoch else "try a smaller --lr"
            raise UserError(f"the loss became {loss} {where}; files are as the epoch before left them — {hint}")

    def save(self, entry):
        """Write what an epoch has brought; the state comes last, so that whatever a crash leaves can be resumed."""
        before = self.folder / f"epoch_{self.epoch:04d}"
        with uninterrupted():
            images.save(f"{before}_reconstructions.png", self.reconstruction_sheet())
            images.save(f"{before}_samples.png", self.sample_sheet())
            write(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in self.log_lines()).encode())
            if self.is_best(entry):
                facts = {"dataset": self.options["dataset"], "epoch": self.epoch, "collapsed": entry["collapsed"]}
                if self.model.config.classes:
                    facts["classes"] = list(self.train.classes)
                checkpoint.save_model(self.path, self.model, facts | {"options": self.options, "test": entry["test"]})
            self.save_state()

    def is_best(self, entry):
        """Whether the model of this epoch is to be kept: always, or by --keep_best the best on the images held out."""
        if not self.settled():
            return True
        before, self.best = self.best, min(self.best, self.objective(entry))
        return not self.options["keep_best"] or self.best < before

    def settled(self):
        """Whether there are images held out, and β has its final value: before, epochs do not compare."""
        return self.held_out is not None and self.epoch >= self.options["beta_warmup"]

    def objective(self, entry):
        """What training makes small, of the images held out."""
        return entry["held_out"]["reconstruction"] + self.options["beta"] * entry["held_out"]["kl"]

    def watch_plateau(self, entry):
        """Halve the learning rate when the images held out have gained nothing for long."""
        if self.options["lr_schedule"] != "plateau" or not self.settled():
            return
        seen = self.plateau
        if seen["lowest"] is None or self.objective(entry) < seen["lowest"] * (1 - STALLED):
            seen["lowest"], seen["stalled"] = self.objective(entry), 0
        elif seen["stalled"] < PATIENCE:
            seen["stalled"] += 1
        else:
            seen["stalled"], seen["halvings"] = 0, seen["halvings"] + 1

    def log_lines(self):
        """The figures of every epoch, behind the names of the files that could not be read, if there are any."""
        skipped = {"train": self.train.skipped, "test": self.test.skipped}
        return [*([{"epoch": 0, "skipped": skipped}] if any(skipped.values()) else []), *self.log]

    def save_state(self):
        best = self.best if math.isfinite(self.best) else None
        facts = {
            "options": self.options,
            "images": [len(self.train.images), len(self.test.images)],
            "epoch": self.epoch,
            "best": best,
            "plateau": self.plateau,
        }
        checkpoint.save_state(self.folder / "state.npz", self.model, self.optimizer, facts)

    def reconstruction_sheet(self):
        """The first test images, each beside its reconstruction."""
        self.model.eval()
        x, y = self.reconstruct(*inputs(self.test, np.arange(min(SHOWN, len(self.test.images)))))
        return images.sheet(images.pairs(images.to_bytes(x), images.to_bytes(y)), columns=8)

    def sample_sheet(self):
        """What the decoder makes of codes that are the same in every epoch."""
        self.model.eval()
        key = random_key(self.options["seed"], SAMPLES)
        z = mx.random.normal((SHOWN, self.model.config.latent_dims), key=key)
        labels = mx.arange(SHOWN, dtype=mx.uint32) % max(1, self.model.config.classes)
        return images.sheet(images.to_bytes(self.decode(z, labels)))


def read_log(path, epochs):
    """The log's entries of the first epochs: what a crash left behind them is done again."""
    entries = []
    with suppress(OSError, ValueError, KeyError, TypeError):  # a broken log costs its rest, not the run
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if 0 < entry["epoch"] <= epochs:
                entries.append(entry)
    return entries


def hold_out(count, seed):
    """Cut a validation split from training images: a twelfth, 5,000 of MNIST's 60,000; returns the numbers of both."""
    if count < 2:
        raise UserError("one image cannot be cut in two — use more images, or leave --keep_best out")
    order = random_numbers(seed, SPLIT).permutation(count)
    held_out = math.ceil(count / 12)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def check_batches(config, size, count):
    """Stop before the first step where a batch is too small to be normalised, or too large for memory."""
    if config.grid == 1 and 1 in (size, count % size):
        raise UserError(
            f"with --image_size 8 a batch of one image cannot be normalised, and {count} images in batches of {size} "
            "have one — take another --batchsize"
        )
    if not on_cpu() and sys.platform == "linux":
        return  # a GPU with memory of its own
    needed = 4 * size * config.image_size**2 * config.max_filters  # bytes of activations, from below
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise UserError(
            f"a batch of {size} images needs more than {needed / 2**30:.0f} GiB of memory, this machine has "
            f"{memory / 2**30:.0f} — take a smaller --batchsize"
        )


def evaluated(arrays):
    """The same, computed now: what waits keeps all that it depends on in memory."""
    mx.eval(arrays)
    return arrays


def figures(terms):
    """Reconstruction and KL per image, and their sum."""
    reconstruction, kl = map(float, terms)
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
