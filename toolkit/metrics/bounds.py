"""Bounds of log p(x) on a split, from samples of the posterior.

Samples depend on the seed, the number of an image and the index of a sample alone, so how images are put into batches
changes results by rounding only.
"""

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

import vae
from toolkit.datasets import Split
from toolkit.metrics.similarity import ssim
from toolkit.model.inputs import batches, image_keys, to_floats

BLOCK = 20  # samples of an image that are drawn at once; part of what a seed means


def sample_keys(seed: int, block: int, numbers: mx.array) -> mx.array:
    """A random key for each image, for its block of samples; another one for every seed and block."""
    first = np.random.SeedSequence([seed, block]).generate_state(1)[0]
    return mx.stack([mx.full(numbers.shape, int(first), dtype=mx.uint32), numbers], axis=1)


class LogSum:
    """log Σ exp of values that come one block after another, (N, K) each."""

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
    model: vae.VAE,
    prior: Any,
    split: Split,
    samples: int,
    seed: int,
    batch_size: int,
    watch: Callable[[float], None],
) -> np.ndarray:
    """log p(x) of each image under a prior from below (Burda et al. 2015), by `samples` each.

    `watch(images)` sees the progress.
    """
    bounds = []
    for images, numbers, labels in batches(split, batch_size):
        mean, log_var = model.encode(images, numbers, labels)
        x = to_floats(images, model.config, image_keys(numbers))
        mx.eval(x, mean, log_var)
        total = LogSum(len(images))
        for block in range(-(-samples // BLOCK)):
            z, ratios = model.log_ratios(x, labels, mean, log_var, sample_keys(seed, block, numbers), BLOCK)
            densities = prior.log_density(np.array(z, np.float64), labels)
            values = ratios + mx.array(densities.astype(np.float32))
            count = min(BLOCK, samples - block * BLOCK)
            total.add(values[:, :count])
            watch(len(images) * count / samples)
        bounds.append(total.value() - math.log(samples) + model.likelihood.constant)
    return np.concatenate(bounds)


def single_sample_terms(
    model: vae.VAE,
    prior: Any,
    split: Split,
    means: np.ndarray,
    log_vars: np.ndarray,
    seed: int,
    batch_size: int,
    watch: Callable[[int], None],
) -> tuple[np.ndarray, ...]:
    """Of every image: error and KL of one sample; and squared error and SSIM of the reconstruction from the mean."""
    terms = []
    for i, (images, numbers, labels) in enumerate(batches(split, batch_size)):
        mean, log_var = (mx.array(a[i * batch_size :][: len(images)].astype(np.float32)) for a in (means, log_vars))
        z = vae.sample(mean, log_var, sample_keys(seed, 0, numbers))
        x, y = model.reconstruct(images, numbers, labels)
        squared = mx.square(x - y).mean(axis=(1, 2, 3))
        error = model.error(images, numbers, labels, z)
        part = slice(i * batch_size, i * batch_size + len(images))
        kl = prior.divergence(means[part], log_vars[part], np.array(z, np.float64), labels)
        terms.append([np.array(a, np.float64) for a in (error, kl, squared, ssim(x, y))])
        watch(len(images))
    return tuple(np.concatenate(arrays) for arrays in zip(*terms, strict=True))
