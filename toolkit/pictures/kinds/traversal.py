"""Rows of images along one latent dimension each, around the centre of the prior or around an image."""

from dataclasses import dataclass

import numpy as np

from toolkit.options import count, option
from toolkit.pictures.images import Animation, best_columns
from toolkit.pictures.kinds import IMAGE, ScaleOptions
from toolkit.pictures.layout import WIDE, layout, page, slider, stacked, there_and_back
from toolkit.pictures.subject import Subject

TITLE = "Latent traversal"
CAPTION = "Each latent dimension from −3 to 3, with its KL per image, largest first; {rest}."
REACH = 3  # standard deviations in both directions
FRAMES = 25


@dataclass(frozen=True)
class ImageOptions:
    image: int | str | None = option(None, "traverse around this test image or picture file", "pictures", kind=IMAGE)


@dataclass(frozen=True)
class Options(ImageOptions, ScaleOptions):
    rows: int = option(16, "dimensions, largest KL first", "pictures", kind=count)


def traverse(subject: Subject, image: int | str | None = None, rows: int = 16, columns: int = 11):
    """Rows: dimensions, largest KL first; columns: their values, around an image's mean or the prior's centre.

    Returns the images, row labels and column labels. Around a picture file, the KL is that of the picture, so no data
    set is needed.
    """
    if image is None:
        base, label, kl = np.zeros(subject.model.config.latent_dims), None, subject.kl
    else:
        _, base, label, _, kl = subject.image(image)
    dims, steps = np.argsort(-kl, kind="stable")[:rows], np.linspace(-REACH, REACH, columns)
    z = np.tile(base, (len(dims), columns, 1))
    z[np.arange(len(dims)), :, dims] = steps
    shown, left = [], []
    for one in subject.each_class():
        shown.append(one.decode(z.reshape(-1, z.shape[2]), label))
        of = f"{one.label}: " if one is not subject else ""
        left += [f"{of}z{dim}  {kl[dim]:.2f} nats" for dim in dims]
    decoded = np.concatenate(shown)
    return decoded.reshape(-1, columns, *decoded.shape[1:]), left, [signed(step) for step in steps]


def signed(value: float) -> str:
    """A value of a latent dimension in words: `−1.5`, `0`, `+1.5`."""
    return f"{value:+.1f}".replace("-", "−") if abs(value) > 1e-9 else "0"


def draw(subject: Subject, options: Options) -> np.ndarray:
    return page(*traverse(subject, options.image, options.rows), corner="value of z", scale=options.scale)


def animate(subject: Subject, options: Options) -> Animation:
    """An image for each dimension, all at the value that the slider shows."""
    decoded, words, values = traverse(subject, options.image, options.rows, FRAMES)
    columns = best_columns(len(decoded))
    shape = (-(-len(decoded) // columns), columns, *decoded.shape[2:4])
    tiles = layout(shape, above=words, scale=options.scale, wide=WIDE)
    tiles = tiles._replace(places=tiles.places[: len(decoded)])

    def draw(i: int) -> np.ndarray:
        shown = tiles.filled(decoded[:, i])
        return stacked(slider(shown.shape[1], i / (FRAMES - 1), f"value of each dimension: {values[i]}"), shown)

    return there_and_back(draw, FRAMES)
