"""The terms of the bound on a split, image by image, and how near reconstructions are."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

import vae
from toolkit.datasets import Split
from toolkit.machine import ranks
from toolkit.metrics.similarity import ssim
from toolkit.model.inference import sample_keys
from toolkit.model.inputs import batches


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
    count, terms = len(split.images), [np.zeros((4, 0))]
    for images, numbers, labels in batches(split, batch_size, ranks.share(np.arange(count))):
        part = np.array(numbers)
        mean, log_var = (mx.array(a[part].astype(np.float32)) for a in (means, log_vars))
        z = vae.sample(mean, log_var, sample_keys(seed, 0, numbers))
        x, y = model.reconstruct(images, numbers, labels)
        squared = mx.square(x - y).mean(axis=(1, 2, 3))
        error = model.error(images, numbers, labels, z)
        kl = prior.divergence(means[part], log_vars[part], np.array(z, np.float64), labels)
        terms.append([np.array(a, np.float64) for a in (error, kl, squared, ssim(x, y))])
        watch(len(images) * ranks.size)
    return tuple(ranks.gather(values, count) for values in np.concatenate(terms, axis=1))
