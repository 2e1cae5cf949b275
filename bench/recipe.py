"""python bench/recipe.py
python bench/recipe.py recipe "AdamW alone" --seeds 3 --side 64 --epochs 15
python bench/recipe.py board --seeds 3 --epochs 11

The search behind the defaults of train.py: variants of the recipe, each with one change, trained for a few epochs on
55,000 images of MNIST and scored after the last epoch on the 5,000 held-out images of the training split. The test
split is not used. Prints a Markdown table with mean ± spread over the seeds.

To save time, images are 32×32 unless `--side 64` is given, and their squared error is multiplied by four, so its
balance with KL, and the loss, are similar to those at 64×64. By default all variants run; name the ones to run. To
limit a process to some cores: `taskset -c 0 python bench/recipe.py …`.

`board` trains with the options of train.py instead, as it is, and prints the loss on the test split and the minutes:
how long does it take to the 66.0 that the MLX example reaches after 50 epochs, with its architecture and prior?
"""

import argparse
import math
import os
import statistics
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from bench import scaling
from toolkit import datasets
from toolkit.architectures import ModelConfig, build
from toolkit.files.progress import bar
from toolkit.machine import device
from toolkit.model.inputs import batches
from toolkit.random import NOISE, ORDER, generator, key
from toolkit.training.optimizers import MUON_FACTOR, Muon
from toolkit.training.plan import RECIPES, TrainConfig, make_plan
from toolkit.training.schedules import learning_rate
from toolkit.training.trainer import Trainer, hold_out

FAST, CLASSIC = RECIPES["fast"], RECIPES["classic"]


@dataclass(frozen=True)
class Recipe:
    """Everything that is varied; the defaults are the recipe of train.py."""

    muon: str | None = "kernels"  # what Muon trains: kernels, all (every matrix), none
    muon_rate: float = MUON_FACTOR * FAST["lr"]
    momentum: float = 0.95
    muon_decay: float = FAST["weight_decay"]
    rate: float = FAST["lr"]  # of AdamW
    betas: tuple = (0.9, 0.999)
    decay: float = 0.0
    schedule: str = FAST["lr_schedule"]  # or cosine, constant
    warmup: int = FAST["lr_warmup"]  # steps
    batch: int = FAST["batchsize"]
    start: str = "default"  # initial weights: default, orthogonal (kernels), he (kernels), zero (head of log-variances)
    norms: float = 0.1  # momentum of the running statistics
    average: float = 0.0  # decay of an average of the weights
    kl_warmup: float = 0.0  # epochs
    noise_warmup: float = 0.0  # epochs
    clip: float = 0.0  # norm of the gradients


RECIPE = Recipe()
VARIANTS = {
    "recipe": RECIPE,
    "AdamW alone": replace(RECIPE, muon=None, rate=0.004),
    "AdamW alone at 0.006": replace(RECIPE, muon=None, rate=0.006),
    "classic": replace(
        RECIPE,
        muon=None,
        rate=CLASSIC["lr"],
        decay=CLASSIC["weight_decay"],
        schedule=CLASSIC["lr_schedule"],
        warmup=CLASSIC["lr_warmup"],
        batch=CLASSIC["batchsize"],
    ),
    "Muon for every matrix": replace(RECIPE, muon="all"),
    "Muon at half the rate": replace(RECIPE, muon_rate=0.01),
    "Muon at 1.5 times the rate": replace(RECIPE, muon_rate=0.03),
    "AdamW at 0.006": replace(RECIPE, rate=0.006),
    "AdamW at 0.02": replace(RECIPE, rate=0.02),
    "no decay": replace(RECIPE, muon_decay=0.0),
    "decay 0.1": replace(RECIPE, muon_decay=0.1),
    "decay 0.3": replace(RECIPE, muon_decay=0.3),
    "decay of AdamW 0.1": replace(RECIPE, decay=0.1),
    "cosine": replace(RECIPE, schedule="cosine"),
    "warm-up of 90 steps": replace(RECIPE, warmup=90),
    "batch 32": replace(RECIPE, batch=32),
    "batch 128": replace(RECIPE, batch=128),
    "momentum 0.9": replace(RECIPE, momentum=0.9),
    "second beta 0.99": replace(RECIPE, betas=(0.9, 0.99)),
    "orthogonal kernels": replace(RECIPE, start="orthogonal"),
    "He's kernels": replace(RECIPE, start="he"),
    "log-variances begin at 0": replace(RECIPE, start="zero"),
    "slower norms": replace(RECIPE, norms=0.02),
    "average of weights": replace(RECIPE, average=0.995),
    "KL warm-up of half an epoch": replace(RECIPE, kl_warmup=0.5),
    "noise warm-up of half an epoch": replace(RECIPE, noise_warmup=0.5),
    "gradients clipped at 100": replace(RECIPE, clip=100.0),
}


def build_model(recipe, config, seed):
    """A model with its initial weights."""
    mx.random.seed(seed)
    model, random = build(config), np.random.default_rng(seed)
    if recipe.start == "zero":
        model.encoder.proj_log_var.update(tree_map(mx.zeros_like, model.encoder.proj_log_var.parameters()))
    for name, array in tree_flatten(model.parameters()) if recipe.start in ("orthogonal", "he") else ():
        if array.ndim == 4:
            normal = random.normal(size=(len(array), array.size // len(array)))
            left, _, right = np.linalg.svd(normal, full_matrices=False)
            kernel = left @ right if recipe.start == "orthogonal" else normal * math.sqrt(2 / normal.shape[1])
            model.update(tree_unflatten([(name, mx.array(kernel.astype(np.float32)).reshape(array.shape))]))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm):
            module.momentum = recipe.norms
    return model


def optimizers(recipe):
    """The optimizer, and its parts with their peak learning rates."""
    adamw = optim.AdamW(recipe.rate, betas=list(recipe.betas), weight_decay=recipe.decay)
    if recipe.muon is None:
        return adamw, [(adamw, recipe.rate)]
    muon = Muon(recipe.muon_rate, recipe.muon_decay)
    muon.momentum = recipe.momentum
    least = {"kernels": 4, "all": 2}[recipe.muon]
    both = optim.MultiOptimizer([muon, adamw], [lambda path, array: array.ndim >= least])
    return both, [(muon, recipe.muon_rate), (adamw, recipe.rate)]


def trained(recipe, split, seed, side, dims, epochs):
    """Train a model; returns the held-out loss after the last epoch."""
    config = ModelConfig(latent_dims=dims, image_size=side)
    numbers, held_out = hold_out(len(split.images), 0)
    model, (optimizer, parts) = build_model(recipe, config, seed), optimizers(recipe)
    optimizer.init(model.trainable_parameters())
    schedule = TrainConfig(lr=1.0, lr_schedule=recipe.schedule, lr_warmup=recipe.warmup, epochs=epochs)
    times = (64 / side) ** 2
    epoch_steps = math.ceil(len(numbers) / recipe.batch)

    def terms(x, key, noise):
        mean, log_var = model.posterior(x)
        eps = noise * mx.random.normal(mean.shape, key=key)
        error = model.likelihood.error(x, model.decoder(mean + mx.exp(0.5 * log_var) * eps))
        return times * error.mean(), model.prior.kl(mean, log_var).sum(axis=1).mean()

    def loss(images, key, beta, noise):
        error, kl = terms(images, key, noise)
        return error + beta * kl

    gradients_of = nn.value_and_grad(model, loss)
    average, step = None, 0
    with bar(epochs * len(numbers), "Training") as shown:
        for epoch in range(epochs):
            model.train()
            order = numbers[generator(seed, ORDER, epoch).permutation(len(numbers))]
            for images, _, _ in batches(split, recipe.batch, config, order):
                share = learning_rate(schedule, step, epochs * epoch_steps)
                for part, rate in parts:
                    part.learning_rate = rate * share
                beta, noise = (
                    min(1, step / (warmup * epoch_steps)) if warmup else 1.0
                    for warmup in (recipe.kl_warmup, recipe.noise_warmup)
                )
                value, gradients = gradients_of(images, key(seed, NOISE, step), beta, noise)
                if recipe.clip:
                    gradients, _ = optim.clip_grad_norm(gradients, recipe.clip)
                optimizer.update(model, gradients)
                if recipe.average:
                    now = model.parameters()
                    mixed = partial(lambda share, a, b: a + share * (b - a), 1 - recipe.average)
                    average = now if average is None else tree_map(mixed, average, now)
                mx.eval(model.state, optimizer.state, average or [], value)
                step += 1
                shown.update(len(images))
    if recipe.average:
        model.update(average)
    model.eval()
    found = [
        terms(images, mx.random.key(i), 1.0) for i, (images, _, _) in enumerate(batches(split, 250, config, held_out))
    ]
    return float(np.mean([error.item() + kl.item() for error, kl in found]))


def on_board(splits, dims, epochs, seed):
    """Train as train.py does; returns the test loss after the last epoch, and the minutes of all steps."""
    trainer = Trainer(make_plan({"latent_dims": dims, "epochs": epochs, "seed": seed}), *splits)
    minutes = scaling.train(trainer) / 60
    return trainer.score(trainer.test, np.arange(len(trainer.test.images)))["loss"], minutes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--latent_dims", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--data_dir", default=os.environ.get("VAE_DATA_DIR", "data"))
    args = parser.parse_args()
    if args.variants == ["board"]:
        print(f"{device.start()}\n\n| epochs | test loss | seeds | minutes each |\n|---|---|---|---|")
        splits = [datasets.load("mnist", split, args.data_dir) for split in ("train", "test")]
        found = [on_board(splits, args.latent_dims, args.epochs, seed) for seed in range(args.seeds)]
        losses, minutes = zip(*found, strict=True)
        loss = f"{statistics.mean(losses):.2f}" + (f" ± {statistics.stdev(losses):.2f}" if args.seeds > 1 else "")
        print(f"| {args.epochs:g} | {loss} | {args.seeds} | {statistics.mean(minutes):.1f} |")
        return
    if unknown := set(args.variants) - VARIANTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))} — take some of {', '.join(VARIANTS)}")
    print(f"{device.start()}; {args.side}×{args.side}, {args.latent_dims} dims, {args.epochs} epochs\n")
    split = datasets.load("mnist", "train", args.data_dir, None, args.side, 1, None)
    print("| variant | held-out loss | seeds | seconds each |\n|---|---|---|---|")
    for name in args.variants or VARIANTS:
        start = time.perf_counter()
        losses = [
            trained(VARIANTS[name], split, seed, args.side, args.latent_dims, round(args.epochs))
            for seed in range(args.seeds)
        ]
        spread = f" ± {statistics.stdev(losses):.2f}" if args.seeds > 1 else ""
        seconds = (time.perf_counter() - start) / args.seeds
        print(f"| {name} | {statistics.mean(losses):.2f}{spread} | {args.seeds} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
