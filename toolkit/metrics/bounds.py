"""The terms of the bound and the reconstruction quality for each image of a split."""

import mlx.core as mx
import numpy as np

import vae
from toolkit.datasets import Split
from toolkit.files.progress import bar
from toolkit.machine import ranks
from toolkit.metrics.similarity import ssim
from toolkit.model.inputs import batches
from toolkit.random import image_keys


def single_sample_terms(model: vae.VAE, split: Split, seed: int, batch_size: int) -> tuple[np.ndarray, ...]:
    """Error and KL of one sample, and squared error and SSIM of the reconstruction from the mean, of each image."""
    count, terms = len(split.images), [np.zeros((4, 0))]
    with bar(count, "Reconstructing") as shown:
        for x, numbers, labels in batches(split, batch_size, model.config, ranks.share(np.arange(count))):
            error, kl = model.score(x, labels, image_keys(seed, 0, numbers))
            y = model.reconstruct(x, labels)
            squared = mx.square(x - y).mean(axis=(1, 2, 3))
            terms.append([np.array(a, np.float64) for a in (error, kl.sum(axis=1), squared, ssim(x, y))])
            shown.update(len(x) * ranks.size)
    return tuple(ranks.gather(values, count) for values in np.concatenate(terms, axis=1))
