"""The stream of training images: shuffled passes over all of them, one after another, cut into batches.

Every batch is full, a run can end after any step, and what a step sees depends only on the seed and its number: the
images from (seed, pass), how they are mirrored and shifted from (seed, image, step).
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
    return np.concatenate([shuffled(seed, count, number) for number in passes])[start : start + batch]


@lru_cache(2)
def shuffled(seed: int, count: int, number: int) -> np.ndarray:
    """The order of a pass."""
    return random.generator(seed, random.ORDER, number).permutation(count)


def epoch_steps(count: int, batch: int, least: int) -> int:
    """Steps in an epoch: one pass over all images, or `least` steps if that is more, so that few are shown often."""
    return max(least, math.ceil(count / batch))


def in_epochs(steps: int, steps_of_epoch: int) -> float:
    """Steps as epochs, with as few decimals as give the same steps again."""
    found = (round(steps / steps_of_epoch, digits) for digits in range(17))
    return next(epochs for epochs in found if epochs and in_steps(epochs, steps_of_epoch) == steps)


def in_steps(epochs: float, steps_of_epoch: int) -> int:
    """Epochs as steps, at least one."""
    return max(1, round(epochs * steps_of_epoch))


def augmented(images: np.ndarray, kind: str, seed: int, chosen: np.ndarray, step: int) -> np.ndarray:
    """Images (N, H, W, C) mirrored at random and, if `kind` is crop, also shifted by a few pixels in both directions.

    Pixels at the border are repeated where a shifted image would be empty.
    """
    height, width = images.shape[1:3]
    rows, columns, made = np.arange(height), np.arange(width), images.copy()
    for i, number in enumerate(chosen if kind != "none" else ()):
        mirrored, down, right = random.generator(seed, random.AUGMENT, int(number), step).uniform(-1, 1, 3)
        if kind == "crop":
            below = np.clip(rows + round(down * SHIFTED_BY * height), 0, height - 1)
            beside = np.clip(columns + round(right * SHIFTED_BY * width), 0, width - 1)
            made[i] = images[i][below][:, beside]
        if mirrored < 0:
            made[i] = made[i][:, ::-1]
    return made
