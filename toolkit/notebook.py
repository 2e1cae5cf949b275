"""Five functions for a notebook, NumPy in and out. docs/notebook.ipynb shows them with pictures.

    >>> from toolkit.notebook import decode, encode, load, reconstruct, sample
    >>> model = load("pretrained/vae_mnist_filters_0064_dims_0008.npz")
    >>> digits = sample(model, 16)  # pixels from 0 to 1
    >>> digits.shape
    (16, 64, 64, 1)
    >>> mean, log_var = encode(model, digits)
    >>> mean.shape
    (16, 8)
    >>> halfway = decode(model, (mean[0] + mean[1]) / 2)
    >>> halfway.shape
    (1, 64, 64, 1)
    >>> bool(abs(reconstruct(model, digits) - digits).mean() < 0.05)
    True

Images are bytes, or floats from 0 to 1, of any size, grey or coloured: one (H, W) or (H, W, C), or many (N, H, W) or
(N, H, W, C). The central square is used. A class-conditional model needs a label, the number
of a class, for each image, or one for all:

    >>> model = load("pretrained/conditional/vae_mnist_filters_0064_dims_0008.npz")
    >>> sample(model, 4, labels=7).shape  # four sevens
    (4, 64, 64, 1)
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from toolkit.datasets import Split
from toolkit.errors import UserError
from toolkit.formats import checkpoint
from toolkit.formats.checkpoint import Checkpoint
from toolkit.machine import device
from toolkit.model import inference
from toolkit.shell.opening import find_model

MOST = 10**6  # samples at once


def load(path: Path | str) -> Checkpoint:
    """Load a model and its metadata; included models are found from any folder."""
    device.start()
    return checkpoint.load(find_model(str(path)))


def encode(model: Checkpoint, images: Any, labels: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and log-variance of images, (N, D) each."""
    return inference.encode(model.model, split_of(model, images, labels))


def decode(model: Checkpoint, z: Any, labels: Any = None) -> np.ndarray:
    """Latent vectors (N, D), or one (D,), → pixels from 0 to 1, (N, S, S, C)."""
    z = np.atleast_2d(numbers("latent vectors", z, -inference.LARGEST_MEAN, inference.LARGEST_MEAN))
    if z.ndim != 2 or z.shape[1] != model.model.config.latent_dims:
        raise UserError(f"latent vectors of shape {z.shape} do not fit — give (N, {model.model.config.latent_dims})")
    return inference.decode(model.model, z, labels_of(labels, len(z), model.model.config.decoder_classes))


def sample(
    model: Checkpoint, count: int = 16, labels: Any = None, temperature: float = 1.0, seed: int = 0
) -> np.ndarray:
    """New images, sampled as by `generate.py`: pixels from 0 to 1, (N, S, S, C). Without labels, classes take turns."""
    count = int(numbers("count", count, 1, MOST, "iu", one=True))
    seed = int(numbers("seed", seed, 0, 2**32 - 1, "iu", one=True))
    temperature = float(numbers("temperature", temperature, 0, inference.LARGEST_MEAN, one=True))
    if (classes := model.model.config.decoder_classes) and labels is None:
        labels = np.arange(count) % classes
    labels = labels_of(labels, count, classes)
    z = model.prior.sample(count, mx.random.key(seed), temperature, labels)
    return inference.decode(model.model, z, labels)


def reconstruct(model: Checkpoint, images: Any, labels: Any = None) -> np.ndarray:
    """Reconstructions from the posterior means: pixels from 0 to 1, (N, S, S, C)."""
    return np.concatenate([y for _, y in inference.reconstruct(model.model, split_of(model, images, labels))])


def split_of(model, images, labels):
    """Images of any kind as bytes (N, H, H, C), with their labels."""
    images = numbers("images", images, 0, 255)
    if images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3)):
        images = images[None]
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UserError(f"images of shape {images.shape} do not fit — give (N, H, W, C) with 1 or 3 channels")
    if images.dtype != np.uint8:
        if images.max() > 1:
            raise UserError("images are bytes, or floats from 0 to 1 — divide by the largest possible value")
        images = np.rint(images * 255.0).astype(np.uint8)
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[:, top : top + side, left : left + side]
    return Split(images, labels_of(labels, len(images), model.model.config.num_classes), len(images))


def labels_of(labels, count, classes):
    """Labels for a model, (N,) class numbers; None if the model has no classes."""
    if labels is None and not classes:
        return None
    if not classes:
        raise UserError("this model is not class-conditional — leave labels out")
    if labels is None:
        raise UserError(f"this model is class-conditional — give labels from 0 to {classes - 1}")
    labels = numbers("labels", labels, 0, classes - 1, "iu").astype(np.int32)
    if labels.shape not in ((), (1,), (count,)):
        raise UserError(f"labels of shape {labels.shape} do not fit — give one, or {count}")
    return np.broadcast_to(labels, (count,))


def numbers(what, values, least, most, kinds="biuf", one=False):
    """An argument as an array of numbers from `least` to `most`; with `one`, a scalar."""
    with suppress(ValueError, TypeError):  # lists of lists of several lengths, and objects of other libraries
        array = np.asarray(values)
        in_range = array.dtype.kind in kinds and array.size and array.min() >= least and array.max() <= most
        if in_range and not (one and array.ndim):
            return array
    noun = "whole number" if kinds == "iu" else "number"
    raise UserError(f"{what}: unusable — give {f'a {noun}' if one else f'{noun}s'} from {least:,} to {most:,}")
