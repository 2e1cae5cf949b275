"""All random numbers come from (seed, purpose, index), so that they never depend on batches, processes or hidden state.

A purpose is a number; an index counts steps, epochs, classes or blocks. Noise of images has a random key for each
image, made from its number.
"""

import mlx.core as mx
import numpy as np

ORDER, NOISE, HELD_OUT, SCORE, SAMPLES = range(5)  # purposes of a training


def generator(*numbers: int) -> np.random.Generator:
    """NumPy's random numbers for (seed, purpose, index)."""
    return np.random.default_rng(numbers)


def key(seed: int, purpose: int, index: int = 0) -> mx.array:
    """MLX's random key for one purpose."""
    return mx.array(np.random.SeedSequence([seed, purpose, index]).generate_state(2))


def image_keys(seed: int, block: int, numbers: mx.array) -> mx.array:
    """A random key for each image by its number, for its block of samples; another one for every seed and block."""
    first = np.random.SeedSequence([seed, block]).generate_state(1)[0]
    return mx.stack([mx.full(numbers.shape, int(first), dtype=mx.uint32), numbers], axis=1)


def pixel_keys(numbers: mx.array) -> mx.array:
    """Random keys of images by their numbers in a split, for their pixels: the same ones whatever the seed."""
    return mx.stack([mx.zeros_like(numbers), numbers], axis=1)


def noise(key: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Standard Gaussian noise from one random key, or from one for each row."""
    if key.ndim == 1:
        return mx.random.normal(shape, key=key)
    return mx.vmap(lambda one: mx.random.normal(shape[1:], key=one))(key)


def uniform(keys: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Random numbers from 0 to 1, by a random key for each row."""
    return mx.vmap(lambda one: mx.random.uniform(shape=shape[1:], key=one))(keys)
