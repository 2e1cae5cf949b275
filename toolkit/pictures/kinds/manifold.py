"""The plane of the two most used latent dimensions, as one sheet of images."""

from dataclasses import dataclass

import numpy as np

from toolkit.errors import UserError
from toolkit.options import count, option
from toolkit.pictures import images
from toolkit.pictures.subject import Subject


@dataclass(frozen=True)
class Options:
    rows: int = option(20, "images along a side", "pictures", kind=count, unit="N")


def draw(subject: Subject, options: Options) -> np.ndarray:
    """The plane of the two most used dimensions, in steps that hold equal shares of the prior; upwards is more."""
    side, config = options.rows, subject.model.config
    if config.latent_dims == 1:
        raise UserError("the manifold needs two latent dims, this model has one — see traversal")
    subjects = subject.each_class()
    images.check_sheet(side * side * len(subjects), config.image_size, side)
    steps = subject.model.prior.quantiles((np.arange(side) + 0.5) / side)
    dims = [0, 1] if config.latent_dims == 2 else sorted(subject.order[:2].tolist())
    z = np.tile(subject.model.prior.centre(), (side, side, 1))
    z[:, :, dims[0]] = steps[None, :, dims[0]]
    z[:, :, dims[1]] = steps[::-1, None, dims[1]]
    return images.sheet(np.concatenate([one.decode(z.reshape(side * side, -1)) for one in subjects]), side)
