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

CHUNK = 256  # images at a time where nothing is learned
SHOWN = 64  # images on a sheet
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


def model_config(options, channels=1):
    """The configuration that a run's options ask for; `channels` are those of the data."""
    return vae.VAEConfig(
        options["latent_dims"],
        options["max_filters"],
        options["image_size"],
        options["channels"] or channels,
        options["binarize"],
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
                f"--{name} {options[name]} contradicts the run to resume, which has {value} — leave the flag out, "
                "or start afresh without --resume"
            )
    return facts["options"] | {name: options[name] for name in typed & CHANGEABLE}


def check_unfinished(path):
    """Stop where a run that has begun to learn would be lost for good."""
    try:
        stored = stored_run(path)
    except UserError:
        return  # nobody can go on from a state that cannot be read
    if stored and 0 < (done := stored[-1]["epoch"]) < (asked := stored[-1]["options"].get("epochs", 0)):
        raise UserError(
            f"{path.with_suffix('')} holds an unfinished run, {done} of {asked} epochs — go on with --resume, start "
            "afresh with --overwrite, or choose another --outdir"
        )


class Run:
    """A model in training, with its data and its files."""

    def __init__(self, options, path, train, test, stored=None):
        self.options, self.path, self.folder = options, path, path.with_suffix("")
        self.train, self.test = train, test
        # The images to learn from and those held out of them, by their numbers in the training split.
        self.learned, self.held_out = np.arange(len(train.images)), None
        seed = options["seed"]
        if options["keep_best"]:
            self.learned, self.held_out = hold_out(len(train.images), seed)
        config = model_config(options, train.images.shape[3])
        self.batch_size = min(options["batchsize"], len(self.learned))
        check_batches(config, self.batch_size, len(self.learned))

        mx.random.seed(seed)
        self.model = vae.VAE(config)
        self.optimizer = optim.AdamW(learning_rate=options["lr"], weight_decay=0.01)
        self.optimizer.init(self.model.trainable_parameters())
        self.epoch, self.best, self.log = 0, math.inf, []
        if stored:
            self.go_on_from(*stored)
        make_folder(self.folder)
        self.held = ExitStack()
        self.held.enter_context(locked(self.folder))
        if not stored:
            for left in (*self.folder.glob("epoch_*.png"), *self.folder.glob(".*.part")):  # by an earlier run
                left.unlink()
            self.save_state()

        self.step = vae.compiled_training_step(self.model, self.optimizer)
        self.encode = vae.compiled_encode(self.model)
        self.decode = vae.compiled_decode(self.model)
        self.reconstruct = vae.compiled_reconstruct(self.model)
        self.error = vae.compiled_error(self.model)

    def go_on_from(self, model, optimizer_state, facts):
        """Take over what an earlier session has left."""

        def shapes(state):
            return {key: array.shape for key, array in tree_flatten(state)}

        if model.config != self.model.config or shapes(optimizer_state) != shapes(self.optimizer.state):
            raise UserError(f"the run in {self.folder} does not fit this data — start afresh without --resume")
        self.model.update(model.parameters())
        self.optimizer.state = optimizer_state
        self.optimizer.learning_rate = self.options["lr"]
        self.epoch = facts["epoch"]
        self.best = math.inf if facts["best"] is None else facts["best"]
        self.log = read_log(self.folder / "log.jsonl", self.epoch)

    def close(self):
        """Let others have the folder."""
        self.held.close()

    def next_epoch(self, watch):
        """Train, score and save one epoch; returns its figures. `watch(images, loss)` is told of every step."""
        entry = {"epoch": self.epoch + 1} | self.train_epoch(watch)
        if self.held_out is not None:
            entry["held_out"] = self.score(self.train.images, self.held_out)
        entry["test"] = self.score(self.test.images, np.arange(len(self.test.images)))
        self.epoch += 1
        self.log.append(entry)
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
            chosen = order[i * size : (i + 1) * size]
            sums = self.step(mx.array(self.train.images[chosen]), random_key(seed, NOISE, self.epoch * steps + i))
            mx.eval(sums, self.model.state, self.optimizer.state)
            totals += sums.tolist()
            self.check_finite(totals.sum(), f"in step {i + 1} of epoch {self.epoch + 1}")
            watch(len(chosen), totals.sum() / min((i + 1) * size, count))
            if first_step is None:  # on a GPU it compiles, which is no throughput
                first_step, timed_from = time.perf_counter() - start, time.perf_counter()
        end = time.perf_counter()
        speed = (count - size) / (end - timed_from) if steps > 1 else count / (end - start)
        return figures(totals / count) | {
            "images_per_second": speed,
            "seconds": end - start,
            "first_step_seconds": first_step,
        }

    def score(self, images, numbers):
        """The bound on some images, with one code per image drawn from noise that depends on the seed alone."""
        self.model.eval()
        parts = [numbers[i : i + CHUNK] for i in range(0, len(numbers), CHUNK)]

        def inputs(part):
            return mx.array(images[part]), mx.array(part.astype(np.uint32))

        codes = [evaluated(self.encode(*inputs(part))) for part in parts]
        mean, log_var = (mx.concatenate(arrays) for arrays in zip(*codes, strict=True))
        z = vae.sample(mean, log_var, random_key(self.options["seed"], SCORE))
        errors = [evaluated(self.error(*inputs(part), z[i * CHUNK :][: len(part)])) for i, part in enumerate(parts)]
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
        chosen_by = entry.get("held_out", {"loss": -math.inf})["loss"]
        before = self.folder / f"epoch_{self.epoch:04d}"
        with uninterrupted():
            images.save(f"{before}_reconstructions.png", self.reconstruction_sheet())
            images.save(f"{before}_samples.png", self.sample_sheet())
            write(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in self.log_lines()).encode())
            if self.held_out is None or chosen_by < self.best:
                self.best = chosen_by
                facts = {"dataset": self.options["dataset"], "likelihood": "mse", "epoch": self.epoch}
                checkpoint.save_model(self.path, self.model, facts | {"options": self.options, "test": entry["test"]})
            self.save_state()

    def log_lines(self):
        """The figures of every epoch, behind the names of the files that could not be read, if there are any."""
        skipped = {"train": self.train.skipped, "test": self.test.skipped}
        return [*([{"epoch": 0, "skipped": skipped}] if any(skipped.values()) else []), *self.log]

    def save_state(self):
        best = self.best if math.isfinite(self.best) else None
        facts = {"options": self.options, "epoch": self.epoch, "best": best}
        checkpoint.save_state(self.folder / "state.npz", self.model, self.optimizer, facts)

    def reconstruction_sheet(self):
        """The first test images, each beside its reconstruction."""
        self.model.eval()
        shown = mx.array(self.test.images[:SHOWN])
        x, y = self.reconstruct(shown, mx.arange(len(shown), dtype=mx.uint32))
        return images.sheet(images.pairs(images.to_bytes(x), images.to_bytes(y)), columns=8)

    def sample_sheet(self):
        """What the decoder makes of codes that are the same in every epoch."""
        self.model.eval()
        key = random_key(self.options["seed"], SAMPLES)
        z = mx.random.normal((SHOWN, self.model.config.latent_dims), key=key)
        return images.sheet(images.to_bytes(self.decode(z)))


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
