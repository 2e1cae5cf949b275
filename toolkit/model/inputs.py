"""From bytes to what a model sees: batches of a split, as floats of the model's size, channels and kind of pixels."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import mlx.core as mx
import numpy as np

GREY = (0.299, 0.587, 0.114)  # shares of red, green and blue, as in ITU-R 601


class Config(Protocol):
    """What the parts of a model ask of its configuration, which is vae.ModelConfig."""

    latent_dims: int
    max_filters: int
    image_size: int
    channels: int
    num_classes: int
    decoder_classes: int
    depth: int
    decoder_filters: int
    label_planes: str
    embed_factor: float
    binarize: str
    pixels: int  # numbers in one image
    outputs: int  # of the decoder for each of them


class Images(Protocol):
    """What is asked of a split of a data set, which is toolkit.datasets.Split."""

    images: np.ndarray  # (N, H, W, C) uint8, or something that is indexed like it
    labels: np.ndarray | None  # (N,)


class Pixels(NamedTuple):
    """A kind of pixels that a model sees."""

    words: str
    made_of: Callable[[mx.array, mx.array | None], mx.array]  # from brightness and a random key for each image
    binary: bool = True
    sampled: bool = False


def above_128(x, keys):
    return (x > 128.5 / 255).astype(mx.float32)


def drawn(x, keys):
    return (uniform(x.shape, keys) < x).astype(mx.float32)


def uniform(shape: tuple[int, ...], keys: mx.array) -> mx.array:
    """Random numbers from 0 to 1, by a random key for each row."""
    return mx.vmap(lambda key: mx.random.uniform(shape=shape[1:], key=key))(keys)


PIXELS = {  # by the names of --binarize
    "none": Pixels("", lambda x, keys: x, binary=False),
    "threshold": Pixels("pixels 0 or 1 (above 128)", above_128),
    "dynamic": Pixels("pixels sampled as 0 or 1", drawn, sampled=True),
}


def to_floats(images: mx.array, config: Config, keys: mx.array | None = None) -> mx.array:
    """Bytes (N, H, W, C) → floats in [0, 1] (N, S, S, C'); `keys`, one an image, are for dynamic binarisation."""
    x = images.astype(mx.float32) / 255
    if images.shape[3] == 3 and config.channels == 1:
        x = x @ mx.array(GREY)[:, None]
    height, width = images.shape[1:3]
    if (height, width) != (config.image_size, config.image_size):  # by two small matrix products per image
        rows = mx.array(resize_matrix(height, config.image_size))
        columns = mx.array(resize_matrix(width, config.image_size))
        x = (rows @ x.transpose(0, 3, 1, 2) @ columns.T).transpose(0, 2, 3, 1)
    x = PIXELS[config.binarize].made_of(x, keys)
    return mx.repeat(x, 3, axis=3) if config.channels > x.shape[3] else x


def resize_matrix(size: int, new_size: int) -> np.ndarray:
    """The matrix R of linear interpolation: R @ pixels has `new_size` of them.

    Pixel centres lie at half steps and edges are clamped; when shrinking, the triangle widens with the step so that
    every pixel counts.
    """
    step = size / new_size
    centres = (np.arange(new_size) + 0.5) * step - 0.5
    distance = np.abs(centres[:, None] - np.arange(size)[None, :])
    weights = np.maximum(0, 1 - distance / max(1, step))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def image_keys(numbers: mx.array) -> mx.array:
    """Random keys of images by their numbers in a split: what is sampled for one never depends on its batch."""
    return mx.stack([mx.zeros_like(numbers), numbers], axis=1)


def batch(split: Images, chosen: np.ndarray) -> tuple[mx.array, mx.array, mx.array | None]:
    """Images of a split by their numbers, as a model's compiled functions take them: bytes, numbers, labels."""
    labels = None if split.labels is None else mx.array(split.labels[chosen].astype(np.uint32))
    return mx.array(split.images[chosen]), mx.array(chosen.astype(np.uint32)), labels


def batches(split: Images, size: int, chosen: np.ndarray | None = None) -> Iterator[tuple]:
    """All images of a split in order, or those chosen, `size` at a time."""
    numbers = np.arange(len(split.images)) if chosen is None else chosen
    for i in range(0, len(numbers), size):
        yield batch(split, numbers[i : i + size])


def with_labels(h: mx.array, labels: mx.array | None, classes: int) -> mx.array:
    """Features (N, C) followed by the label of each image as 0s and a 1; as they are if a model has no classes."""
    return mx.concatenate([h, one_hot(labels, classes)], axis=1) if classes else h


def one_hot(labels: mx.array | None, classes: int) -> mx.array:
    """The label of each image as 0s and a 1: (N,) → (N, classes)."""
    if labels is None:
        raise ValueError(f"the model is class-conditional: give a label from 0 to {classes - 1} for each image")
    return (labels[:, None] == mx.arange(classes)).astype(mx.float32)
