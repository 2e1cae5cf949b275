"""Run a trained model over many images in chunks; results are NumPy arrays."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from toolkit.errors import UserError
from toolkit.files.progress import bar
from toolkit.machine import ranks
from toolkit.machine.process import begin_phase
from toolkit.model.inputs import Config, Images, batch, batches
from toolkit.random import image_keys

CHUNK = 250  # images at a time
LARGEST_MEAN, LARGEST_LOG_VAR = 1e15, 300  # of posteriors; beyond these, squares and exponentials overflow
BLOCK = 20  # samples per image drawn at once; changing it changes results


def per_image(
    function: Callable, shape: tuple[int, ...], split: Images, config: Config, numbers: np.ndarray, size: int = CHUNK
) -> np.ndarray:
    """A function of images, their numbers and labels, for the images with these numbers, `size` at a time; in float64.

    With a `shape` (A, …) of one image's results, the function returns (A, n, …) for n images, and this (A, N, …). All
    batches have the same size, as a GPU compiles again for another: the last is filled up with images whose results
    are dropped.
    """
    begin_phase()
    size, results = min(size, len(numbers)), [np.zeros((shape[0], 0, *shape[1:]))]
    for i in range(0, len(numbers), max(1, size)):
        part = numbers[i : i + size]
        filled = np.concatenate([part, numbers[: size - len(part)]])
        result = function(*batch(split, filled, config))
        results.append(np.array(result, np.float64)[:, : len(part)])
    return np.concatenate(results, axis=1)


def encode(model: Any, split: Images, size: int = CHUNK) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and log-variance of every image of a split, (N, D) each, float64; each rank encodes its share."""
    count = len(split.images)
    with bar(count, "Encoding") as shown:

        def posterior(x, _, labels):
            shown.update(len(x) * ranks.size)
            return mx.stack(model.encode(x, labels))

        shape = 2, model.config.latent_dims
        own = per_image(posterior, shape, split, model.config, ranks.share(np.arange(count)), size)
    means, log_vars = (ranks.gather(values, count) for values in own)
    if not (np.abs(means) < LARGEST_MEAN).all() or not (np.abs(log_vars) < LARGEST_LOG_VAR).all():
        raise UserError("some images have impossible latent vectors: the model's weights are broken — retrain it")
    return means, log_vars


def decode(
    model: Any, z: mx.array | np.ndarray, labels: np.ndarray | None = None, keys: mx.array | None = None
) -> np.ndarray:
    """Latent vectors (N, D), with labels for a class-conditional model → pixels in [0, 1].

    These are the means of the likelihood or, given one random key per image, samples from it.
    """
    z, images = mx.array(z).astype(mx.float32), []
    for i in range(0, len(z), CHUNK):
        part = slice(i, i + CHUNK)
        known = None if labels is None else mx.array(labels[part])
        pixels = model.decode(z[part], known) if keys is None else model.draw(z[part], known, keys[part])
        images.append(np.array(pixels))
    return np.concatenate(images)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] → bytes, rounded; bytes stay as they are."""
    pixels = np.array(pixels)
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all():
        raise UserError("the model produced NaN pixels: its weights are broken — train or copy it again")
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def reconstruct(model: Any, split: Images) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of inputs and of their reconstructions from the posterior mean."""
    for x, _, labels in batches(split, CHUNK, model.config):
        yield np.array(x), np.array(model.reconstruct(x, labels))


class LogSum:
    """A running log Σ exp over blocks of values, (N, K) each."""

    def __init__(self, count: int):
        self.highest, self.sums = mx.full((count,), -math.inf), mx.zeros(count)

    def add(self, values: mx.array) -> None:
        highest = mx.maximum(self.highest, values.max(axis=1))
        self.sums = self.sums * mx.exp(self.highest - highest) + mx.exp(values - highest[:, None]).sum(axis=1)
        self.highest = highest
        mx.eval(self.highest, self.sums)

    def value(self) -> np.ndarray:
        return np.array(self.highest, np.float64) + np.log(np.array(self.sums, np.float64))


def importance_bound(
    model: Any, split: Images, samples: int, seed: int, size: int = CHUNK, chosen: np.ndarray | None = None
) -> np.ndarray:
    """A lower bound on log p(x) of each image (Burda et al. 2015) from `samples` samples each, at most `size` at once.

    A sample depends only on the seed, the image's number and its index, so the batch size changes results by rounding
    only.
    """
    chosen = np.arange(len(split.images)) if chosen is None else chosen
    with bar(len(chosen), "Importance sampling") as shown:

        def bound(x, numbers, labels):
            total = LogSum(len(x))
            for block in range(-(-samples // BLOCK)):
                count = min(BLOCK, samples - block * BLOCK)
                z, ratios = model.log_ratios(x, labels, image_keys(seed, block, numbers), BLOCK)
                total.add((ratios + model.prior.log_density(z, labels))[:, :count])
                shown.update(len(x) * count / samples)
            return [total.value() - math.log(samples) + model.likelihood.constant]

        return per_image(bound, (1,), split, model.config, chosen, max(1, size // min(BLOCK, samples)))[0]
