"""The stream of training images: shuffled passes over all of them, one after another, cut into batches.

Every batch is full, and a run can end after any step. The images of a step depend on the seed and its number alone:
their order on (seed, pass), mirroring and shifts on (seed, image, step).
"""

import math
from functools import lru_cache

import numpy as np

from toolkit import random

SHIFTED_BY = 1 / 16  # of the side, at most, by random crops


def numbers(seed: int, count: int, batch: int, step: int) -> np.ndarray:
    """The positions, from 0 to `count` - 1, of the images in the batch of a step."""
    first, start = divmod(step * batch, count)
    passes = range(first, first + math.ceil((start + batch) / count))
    return np.concatenate([shuffle(seed, count, number) for number in passes])[start : start + batch]


@lru_cache(2)
def shuffle(seed: int, count: int, number: int) -> np.ndarray:
    """The order of a pass."""
    return random.generator(seed, random.ORDER, number).permutation(count)


def steps_per_epoch(count: int, batch: int, least: int) -> int:
    """Steps in an epoch: one pass over all images, but at least `least`, so a few images are shown several times."""
    return max(least, math.ceil(count / batch))


def to_epochs(steps: int, steps_of_epoch: int) -> float:
    """Convert steps to epochs, with as few decimals as convert back to the same number."""
    found = (round(steps / steps_of_epoch, digits) for digits in range(17))
    return next(epochs for epochs in found if epochs and to_steps(epochs, steps_of_epoch) == steps)


def to_steps(epochs: float, steps_of_epoch: int) -> int:
    """Convert epochs to steps, at least one."""
    return max(1, round(epochs * steps_of_epoch))


def augment(images: np.ndarray, kind: str, seed: int, chosen: np.ndarray, step: int) -> np.ndarray:
    """Mirror images (N, H, W, C) at random; `kind` crop also shifts them by a few pixels, repeating those of the edge.

    `chosen` are the numbers of the images.
    """
    if kind == "none":
        return images
    height, width = images.shape[1:3]
    rows, columns, made = np.arange(height), np.arange(width), images.copy()
    for i, number in enumerate(chosen):
        mirrored, down, right = random.generator(seed, random.AUGMENT, int(number), step).uniform(-1, 1, 3)
        if kind == "crop":
            vertical = np.clip(rows + round(down * SHIFTED_BY * height), 0, height - 1)
            horizontal = np.clip(columns + round(right * SHIFTED_BY * width), 0, width - 1)
            made[i] = images[i][vertical][:, horizontal]
        if mirrored < 0:
            made[i] = made[i][:, ::-1]
    return made
