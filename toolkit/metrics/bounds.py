"""The terms of the bound and the reconstruction quality for each image of a split."""

import mlx.core as mx
import numpy as np

import vae
from toolkit.datasets import Split
from toolkit.files.progress import bar
from toolkit.machine import ranks
from toolkit.metrics.similarity import ssim
from toolkit.model.inference import per_image
from toolkit.random import image_keys


def single_sample_terms(model: vae.VAE, split: Split, seed: int, batch_size: int) -> tuple[np.ndarray, ...]:
    """Error and KL of one sample, and squared error and SSIM of the reconstruction from the mean, of each image."""
    count = len(split.images)
    with bar(count, "Reconstructing") as shown:

        def terms(x, numbers, labels):
            error, kl = model.score(x, labels, image_keys(seed, 0, numbers))
            y = model.reconstruct(x, labels)
            shown.update(len(x) * ranks.size)
            return mx.stack([error, kl.sum(axis=1), mx.square(x - y).mean(axis=(1, 2, 3)), ssim(x, y)])

        own = per_image(terms, (4,), split, model.config, ranks.share(np.arange(count)), batch_size)
    return tuple(ranks.gather(values, count) for values in own)
