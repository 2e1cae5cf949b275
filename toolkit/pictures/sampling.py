"""Sheets of samples: images decoded from latent vectors of the prior, of a grid in a 2-D latent space, or of a file."""

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from toolkit.errors import UserError
from toolkit.formats.checkpoint import Checkpoint
from toolkit.formats.codes import Codes
from toolkit.formats.labels import class_number
from toolkit.model import inference
from toolkit.pictures import images
from vae import VAE

COUNT = 128  # samples of a sheet by default
LEAST = 8  # of each class, by default
SQUARE = 16  # images per side of the latent grid
ALL = "all"  # classes, one row each


class Samples(NamedTuple):
    pictures: np.ndarray  # (N, S, S, C) of bytes
    columns: int  # of the sheet
    names: list[str] | None = None  # if they have any

    def sheet(self, scale: int | None = None) -> np.ndarray:
        return images.sheet(self.pictures, self.columns, scale)


class Sampler(NamedTuple):
    """How to draw latent vectors, and pixels from their decoded likelihoods."""

    prior: Any
    temperature: float = 1.0
    seed: int = 0
    noisy: bool = False  # whether pixels are sampled from the likelihood

    @property
    def words(self) -> str:
        """The prior, the temperature unless it is 1, and the seed."""
        prior = self.prior.words.removeprefix("a ").removeprefix("the ")
        at = f", temperature {self.temperature:g}" if self.temperature != 1 else ""
        return f"prior: {prior}{at}, {'pixels sampled, ' if self.noisy else ''}seed {self.seed}"

    def vectors(self, count: int, labels: np.ndarray | None) -> mx.array:
        return self.prior.sample(count, mx.random.key(self.seed), self.temperature, labels)

    def pictures(self, model: VAE, z: mx.array, labels: np.ndarray | None) -> np.ndarray:
        """Decode vectors to bytes (N, S, S, C)."""
        keys = mx.random.split(mx.array([1, self.seed], dtype=mx.uint32), len(z)) if self.noisy else None
        return images.to_bytes(inference.decode(model, z, labels, keys))


def samples(
    checkpoint: Checkpoint,
    sampler: Sampler,
    count: int | None = None,
    label: str | None = None,
    columns: int | None = None,
) -> Samples:
    """Samples from a prior.

    In a class-conditional model `label` is their class, "all" gives each class rows of its own with the same noise in
    the same place, and None gives the samples all classes in turn.
    """
    model = checkpoint.model
    classes, size = model.config.decoder_classes, model.config.image_size
    if classes and label == ALL:
        each = max(1, count // classes) if count else max(LEAST, COUNT // classes)
        columns = columns or min(each, images.MOST_COLUMNS)
        each = max(columns, each - each % columns)  # whole rows
        images.check_sheet(each * classes, size, columns)
        labels = np.repeat(np.arange(classes), each)
        z = mx.concatenate([sampler.vectors(each, row) for row in labels.reshape(classes, each)])
    else:
        columns = images.check_sheet(count or COUNT, size, columns)
        count, number, labels = count or COUNT, class_number(checkpoint, label), None
        if classes:
            labels = np.arange(count) % classes if number is None else np.full(count, number)
        z = sampler.vectors(count, labels)
    return Samples(sampler.pictures(model, z, labels), columns)


def latent_grid(checkpoint: Checkpoint, label: str | None = None) -> Samples:
    """A regular grid over [-2, 2]² of a 2-D latent space: the first dimension to the right, the second upwards."""
    model = checkpoint.model
    if (dims := model.config.latent_dims) != 2:
        raise UserError(f"the latent grid needs a model with 2 latent dims, this one has {dims} — leave the flag out")
    steps = mx.linspace(-2, 2, SQUARE)
    right, up = mx.meshgrid(steps, steps[::-1])
    z = mx.stack([right.flatten(), up.flatten()], axis=1)
    number = class_number(checkpoint, label)
    labels = np.full(len(z), number or 0) if model.config.decoder_classes else None
    return Samples(images.to_bytes(inference.decode(model, z, labels)), SQUARE)


def decoded(
    checkpoint: Checkpoint, sampler: Sampler, codes: Codes, label: str | None = None, columns: int | None = None
) -> Samples:
    """Images decoded from the latent vectors of a file, with class `label` or, without it, their own classes."""
    model = checkpoint.model
    labels, columns = None, images.check_sheet(len(codes.mean), model.config.image_size, columns)
    asked = class_number(checkpoint, label)
    if model.config.decoder_classes:
        if asked is None and codes.classes is None:
            raise UserError("the model needs labels, and these latent vectors have none — give --label")
        found = codes.classes if asked is None else [label] * len(codes.mean)
        labels = np.array([class_number(checkpoint, name) for name in found])
    return Samples(sampler.pictures(model, mx.array(codes.mean), labels), columns, codes.names)
