"""The plane of the two most used latent dimensions, as one sheet of images."""

from dataclasses import dataclass
from statistics import NormalDist

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
    steps = np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])
    dims = [0, 1] if config.latent_dims == 2 else sorted(subject.order[:2].tolist())
    z = np.zeros((side, side, config.latent_dims))
    z[:, :, dims[0]] = steps[None, :]
    z[:, :, dims[1]] = steps[::-1, None]
    return images.sheet(np.concatenate([one.decode(z.reshape(side * side, -1)) for one in subjects]), side)
