"""A trained model over many images, chunk by chunk, out as NumPy."""

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from toolkit.model.inputs import Images, batches

CHUNK = 250  # images at a time


def encode(
    model: Any, split: Images, size: int = CHUNK, watch: Callable[[int], None] = lambda images: None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log-variance of every image of a split: (N, D) each, float64."""
    found = []
    for batch in batches(split, size):
        found.append([np.array(array, np.float64) for array in model.encode(*batch)])
        watch(len(batch[0]))
    means, log_vars = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return means, log_vars


def decode(
    model: Any, z: mx.array | np.ndarray, labels: np.ndarray | None = None, keys: mx.array | None = None
) -> np.ndarray:
    """Latent vectors (N, D), and labels for a class-conditional model → pixels in [0, 1].

    They are the means of the likelihood; with a random key for each image, samples of it.
    """
    z, pixels = mx.array(z).astype(mx.float32), []
    for i in range(0, len(z), CHUNK):
        part = slice(i, i + CHUNK)
        known = None if labels is None else mx.array(labels[part])
        made = model.decode(z[part], known) if keys is None else model.draw(z[part], known, keys[part])
        pixels.append(np.array(made))
    return np.concatenate(pixels)


def reconstruct(model: Any, split: Images) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunk by chunk, the floats that the model sees of a split and their reconstructions from the means."""
    for batch in batches(split, CHUNK):
        x, y = model.reconstruct(*batch)
        yield np.array(x), np.array(y)
