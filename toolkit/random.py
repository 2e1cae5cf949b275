"""All random numbers are derived from (seed, purpose, index), never from batches, processes or hidden state.

A purpose is a number; an index counts steps, epochs, classes or blocks. Noise for images uses one random key per image,
derived from the image's number.
"""

import mlx.core as mx
import numpy as np

ORDER, NOISE, HELD_OUT, SCORE, SAMPLES, AUGMENT = range(6)  # purposes in training


def generator(*numbers: int) -> np.random.Generator:
    """A NumPy generator for (seed, purpose, index)."""
    return np.random.default_rng(numbers)


def key(seed: int, purpose: int, index: int = 0) -> mx.array:
    """An MLX random key for (seed, purpose, index)."""
    return mx.array(np.random.SeedSequence([seed, purpose, index]).generate_state(2))


def image_keys(seed: int, block: int, numbers: mx.array) -> mx.array:
    """One random key per image (N, 2), which depends on the seed, the block of samples and the image's number."""
    first = np.random.SeedSequence([seed, block]).generate_state(1)[0]
    return mx.stack([mx.full(numbers.shape, int(first), dtype=mx.uint32), numbers], axis=1)


def pixel_keys(numbers: mx.array) -> mx.array:
    """One random key per image (N, 2) for dynamic binarisation; it depends on the image's number alone."""
    return mx.stack([mx.zeros_like(numbers), numbers], axis=1)


def noise(key: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Standard Gaussian noise from one random key, or from one key per row."""
    if key.ndim == 1:
        return mx.random.normal(shape, key=key)
    return mx.vmap(lambda one: mx.random.normal(shape[1:], key=one))(key)


def uniform(keys: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Uniform random numbers from 0 to 1, from one random key per row."""
    return mx.vmap(lambda one: mx.random.uniform(shape=shape[1:], key=one))(keys)
