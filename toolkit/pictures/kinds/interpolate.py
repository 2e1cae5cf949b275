"""Interpolation between images, linear and spherical."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.errors import UserError
from toolkit.options import count, option
from toolkit.pictures.fonts import shortened
from toolkit.pictures.images import Animation
from toolkit.pictures.kinds import IMAGE, ScaleOptions
from toolkit.pictures.layout import WIDE, layout, page, slider, stacked, there_and_back
from toolkit.pictures.subject import Subject

TITLE = "Interpolation"
CAPTION = "From one image to another: on the straight line, and on the arc around the origin."
FRAMES = 25


@dataclass(frozen=True)
class Options(ScaleOptions):
    images: tuple[int | str, ...] = option(
        (), "from each test image or picture file to the next", "pictures", kind=IMAGE, several=True
    )
    rows: int = option(4, "pairs of images", "pictures", kind=count, not_with=("images",))


def between(a, b, share, spherical):
    """A latent vector between a and b: on the straight line, or on the arc around the origin."""
    angle = np.arccos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12), -1, 1))
    if not spherical or np.sin(angle) < 1e-6:
        return (1 - share) * a + share * b
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def pairs_of(subject, count):
    """Test images to interpolate between: of different classes, or of one class if the model is class-conditional."""
    labels, total = subject.test.labels, len(subject.test.images)
    conditional = subject.model.config.decoder_classes > 0
    pairs, free = [], list(range(min(total, 1000)))
    while len(free) > 1 and len(pairs) < count:
        a = free.pop(0)
        b = next((i for i in free if labels is None or (labels[i] == labels[a]) == conditional), None)
        if b is not None:
            free.remove(b)
            pairs.append((a, b))
    if not pairs:
        raise UserError("the test split has too few images to interpolate — use more images")
    return pairs


def interpolate(subject: Subject, rows: int, columns: int, chosen: Sequence[int | str] = ()):
    """For each pair, the images on the straight line and on the arc, between the two originals; and their labels.

    Images chosen by number or file form a chain.
    """
    if len(chosen) == 1:
        raise UserError("--images has only one image — name two or more")
    shown, left = [], []
    for a, b in list(zip(chosen, chosen[1:], strict=False)) or pairs_of(subject, rows):
        start, end = subject.image(a), subject.image(b)
        names = [shortened(one.words, 24).removeprefix("test ") for one in (start, end)]
        for spherical, word in ((False, "linear"), (True, "spherical")):
            z = [between(start.mean, end.mean, share, spherical) for share in np.linspace(0, 1, columns)]
            shown.append(np.stack([start.pixels, *subject.decode(z, start.label), end.pixels]))
            left.append(f"{' to '.join(names)}  {word}")
    return np.stack(shown), left


def draw(subject: Subject, options: Options) -> np.ndarray:
    shown, left = interpolate(subject, options.rows, 9, options.images)
    shares = [f"{share:.0%}" for share in np.linspace(0, 1, 9)]
    return page(shown, left, ["from", *shares, "to"], scale=options.scale)


def animate(subject: Subject, options: Options) -> Animation:
    """Each pair with both of its paths: in a column, or in a row if there are few pairs."""
    shown, _ = interpolate(subject, options.rows, FRAMES, options.images)
    lines, arcs = shown[::2], shown[1::2]  # (pairs, 1 + FRAMES + 1, H, W, C)
    words, few = ["from", "linear", "spherical", "to"], len(lines) < 4
    shape = (len(lines), 4) if few else (4, len(lines))
    tiles = layout((*shape, *shown.shape[2:4]), *([(), words] if few else [words]), scale=options.scale, wide=WIDE)

    def draw(i: int) -> np.ndarray:
        parts = np.stack([lines[:, 0], lines[:, 1 + i], arcs[:, 1 + i], lines[:, -1]], axis=1 if few else 0)
        page = tiles.filled(parts.reshape(-1, *parts.shape[2:]))
        return stacked(slider(page.shape[1], i / (FRAMES - 1), f"{i / (FRAMES - 1):.0%} of the way"), page)

    return there_and_back(draw, FRAMES)
