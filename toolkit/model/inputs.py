"""From bytes to model inputs: batches of a split as floats, with the model's size, channels and binarisation."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import mlx.core as mx
import numpy as np

from toolkit.random import pixel_keys, uniform

GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R 601)


class Config(Protocol):
    """The part of a model's configuration that determines its inputs."""

    image_size: int
    channels: int
    binarize: str


class Images(Protocol):
    """The part of toolkit.datasets.Split that is needed here."""

    images: np.ndarray  # (N, H, W, C) uint8, or an object indexed in the same way
    labels: np.ndarray | None  # (N,)


class Pixels(NamedTuple):
    """A kind of input pixels."""

    words: str
    apply: Callable[[mx.array, mx.array | None], mx.array]  # (pixels, one random key per image) → input pixels
    binary: bool = True
    sampled: bool = False


def draw_binary(x, keys):
    """Pixels that are 1 with probability x, else 0."""
    return (uniform(keys, x.shape) < x).astype(mx.float32)


PIXELS = {  # by the names of --binarize
    "none": Pixels("", lambda x, keys: x, binary=False),
    "threshold": Pixels("pixels 0 or 1 (above 128)", lambda x, keys: (x > 128.5 / 255).astype(mx.float32)),
    "dynamic": Pixels("pixels sampled as 0 or 1", draw_binary, sampled=True),
}


def to_floats(images: mx.array, config: Config, keys: mx.array | None = None) -> mx.array:
    """Bytes (N, H, W, C) → floats in [0, 1] (N, S, S, C'); `keys`, one per image, are for dynamic binarisation."""
    x = images.astype(mx.float32) / 255
    if images.shape[3] == 3 and config.channels == 1:
        x = x @ mx.array(GREY)[:, None]
    height, width = images.shape[1:3]
    if (height, width) != (config.image_size, config.image_size):  # resize by two small matrix products per image
        rows = mx.array(resize_matrix(height, config.image_size))
        columns = mx.array(resize_matrix(width, config.image_size))
        x = (rows @ x.transpose(0, 3, 1, 2) @ columns.T).transpose(0, 2, 3, 1)
    x = PIXELS[config.binarize].apply(x, keys)
    return mx.repeat(x, 3, axis=3) if config.channels > x.shape[3] else x


def resize_matrix(size: int, new_size: int) -> np.ndarray:
    """The matrix (new_size, size) of linear interpolation.

    Pixel centres lie at half steps and edges are clamped. When shrinking, the triangle filter widens with the step, so
    every pixel contributes.
    """
    step = size / new_size
    centres = (np.arange(new_size) + 0.5) * step - 0.5
    distance = np.abs(centres[:, None] - np.arange(size)[None, :])
    weights = np.maximum(0, 1 - distance / max(1, step))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


class Batch(NamedTuple):
    """A batch of model inputs."""

    x: mx.array  # (N, S, S, C)
    numbers: mx.array  # (N,), the images' numbers in the split
    labels: mx.array | None  # (N,)


def batch(split: Images, chosen: np.ndarray, config: Config) -> Batch:
    """The images of a split with the given numbers."""
    labels = None if split.labels is None else mx.array(split.labels[chosen].astype(np.int32))
    numbers = mx.array(chosen.astype(np.uint32))
    return Batch(to_floats(mx.array(split.images[chosen]), config, pixel_keys(numbers)), numbers, labels)


def batches(split: Images, size: int, config: Config, chosen: np.ndarray | None = None) -> Iterator[Batch]:
    """All images of a split in order, or the chosen ones, `size` at a time."""
    numbers = np.arange(len(split.images)) if chosen is None else chosen
    for i in range(0, len(numbers), size):
        yield batch(split, numbers[i : i + size], config)
