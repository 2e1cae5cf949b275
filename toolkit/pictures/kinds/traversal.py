"""Rows of images in which one latent dimension changes, around the centre of the prior or around an image."""

from dataclasses import dataclass

import numpy as np

from toolkit.options import count, option
from toolkit.pictures.images import Animation, best_columns
from toolkit.pictures.kinds import IMAGE
from toolkit.pictures.layout import page, there_and_back, tiles
from toolkit.pictures.subject import Subject

REACH = 3  # standard deviations to both sides


@dataclass(frozen=True)
class ImageOptions:
    image: int | str | None = option(
        None, "traverse around this test image or picture file", "pictures", kind=IMAGE, unit="N|FILE"
    )


@dataclass(frozen=True)
class Options(ImageOptions):
    rows: int = option(16, "dimensions, most used first", "pictures", kind=count, unit="N")


def traverse(subject: Subject, image: int | str | None = None, rows: int = 16, columns: int = 11):
    """Rows: dimensions, most used first; columns: an image's mean, or the prior's centre, with that one changed.

    Returns the images, the words of rows, and those of columns. Around a picture file, the KL of the dimensions is its
    own, so that no data set is needed.
    """
    base, label, kl = np.zeros(subject.model.config.latent_dims), None, None
    if image is not None:
        _, base, label, _, kl = subject.image(image)
    kl = subject.kl if kl is None else kl
    dims = np.argsort(-kl, kind="stable")[:rows]
    steps = np.linspace(-REACH, REACH, columns)
    z = np.repeat(base[None], len(dims) * columns, axis=0).reshape(len(dims), columns, -1)
    for row, dim in enumerate(dims):
        z[row, :, dim] = steps
    shown, left = [], []
    for one in subject.each_class():
        decoded = one.decode(z.reshape(-1, z.shape[2]), label)
        shown.append(decoded.reshape(len(dims), columns, *decoded.shape[1:]))
        of = f"{one.label}: " if one is not subject else ""
        left += [f"{of}z{dim}  {kl[dim]:.2f} nats" for dim in dims]
    return np.concatenate(shown), left, [f"{step:+.1f}" if step else "0" for step in steps]


def draw(subject: Subject, options: Options) -> np.ndarray:
    corner = "" if options.image is None else subject.image(options.image).words
    return page(*traverse(subject, options.image, options.rows), corner=corner)


def animate(subject: Subject, options: Options) -> Animation:
    decoded, left, _ = traverse(subject, options.image, options.rows, columns=25)
    names, across = [words.split("  ")[0] for words in left], best_columns(len(decoded))
    return there_and_back([tiles(decoded[:, i], names, across) for i in range(25)])
