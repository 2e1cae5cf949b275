"""The plane of the two most used latent dimensions, as rows of images with the values of both."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from toolkit.errors import UserError
from toolkit.options import count, option
from toolkit.pictures.kinds import ScaleOptions
from toolkit.pictures.kinds.traversal import signed
from toolkit.pictures.layout import TILE, page
from toolkit.pictures.subject import Subject

TITLE = "Manifold"
CAPTION = "The two latent dimensions with the largest KL, in steps of equal prior probability."
MOST = 10_000  # images


@dataclass(frozen=True)
class Options(ScaleOptions):
    rows: int = option(20, "images along a side", "pictures", kind=count)


def draw(subject: Subject, options: Options) -> np.ndarray:
    """The plane of the two dimensions with the largest KL, in steps of equal prior probability, increasing upwards."""
    side, config = options.rows, subject.model.config
    if config.latent_dims == 1:
        raise UserError("the manifold needs two latent dims, this model has one — see traversal")
    subjects = subject.each_class()
    if side * side * len(subjects) > MOST:
        raise UserError(f"a manifold of more than {MOST:,} images is too large — use a smaller --rows")
    steps = np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])
    dims = [0, 1] if config.latent_dims == 2 else sorted(subject.order[:2].tolist())
    z = np.zeros((side, side, config.latent_dims))
    z[:, :, dims[0]] = steps[None, :]
    z[:, :, dims[1]] = steps[::-1, None]
    pictures = np.concatenate([one.decode(z.reshape(side * side, -1)) for one in subjects])
    rows, (right, up), tile = pictures.reshape(-1, side, *pictures.shape[1:]), dims, TILE // 2 if side > 8 else TILE
    left = [f"z{up}  {signed(step)}" for step in steps[::-1]] * len(subjects)
    return page(rows, left, list(map(signed, steps)), corner=f"z{right}", scale=options.scale, tile=tile, block=side)
