"""Rows of test images, below them their reconstructions, and the error in a scale of colours."""

from dataclasses import dataclass

import numpy as np

from toolkit.model import inference
from toolkit.options import count, option
from toolkit.pictures import images
from toolkit.pictures.charts import UNIT, Canvas, width_of
from toolkit.pictures.kinds import ScaleOptions
from toolkit.pictures.layout import page, stacked
from toolkit.pictures.subject import Subject, first_of

TITLE = "Reconstructions"
CAPTION = "Test images, their reconstructions from the mean, and the absolute error of each pixel."
LIMITS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)  # of the scale of errors
COLOURS = (  # of it: matplotlib's "inferno", in eighths
    *((0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85)),
    *((227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)),
)


@dataclass(frozen=True)
class Options(ScaleOptions):
    nsamples: int = option(24, "number of test images", "pictures", kind=count)


def draw(subject: Subject, options: Options, columns: int = 12) -> np.ndarray:
    """Rows of test images, below them their reconstructions, and the absolute error in colours."""
    test, number = subject.test, min(options.nsamples, len(subject.test.images))
    images.check_sheet(number * 3, subject.model.config.image_size)
    parts = zip(*inference.reconstruct(subject.model, first_of(test, number)), strict=True)
    x, y = map(np.concatenate, parts)
    error = np.abs(x - y).mean(axis=3)
    top = next(limit for limit in LIMITS if np.quantile(error, 0.98) <= limit or limit == LIMITS[-1])
    x, y = (np.broadcast_to(images.to_bytes(each), (*error.shape, 3)) for each in (x, y))
    columns = min(columns, number)
    empty = ((0, -number % columns), (0, 0), (0, 0), (0, 0))  # places in the last row
    three = [np.pad(pictures, empty, constant_values=255) for pictures in (x, y, coloured(error / top))]
    rows = [pictures[start : start + columns] for start in range(0, number, columns) for pictures in three]
    left = ["original", "reconstruction", "error"] * (len(rows) // 3)
    shown = page(rows, left, block=3, scale=options.scale)
    return stacked(shown, scale_bar(shown.shape[1], f"{top:g} or more"))


def coloured(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 → bytes (…, 3) of a scale that becomes brighter evenly, from black to pale yellow."""
    at = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(values, at, channel) for channel in np.transpose(COLOURS)], axis=-1).astype(np.uint8)


def scale_bar(wide: int, most: str) -> np.ndarray:
    """The scale of colours, with its ends in words."""
    wide, bar = max(wide, 480), coloured(np.linspace(0, 1, 240))
    canvas = Canvas(wide / UNIT, 40, words=True)
    right = wide - round(UNIT * width_of(most, 12)) - 16
    canvas.text((right - 250) / UNIT, 26, "error  0", 12, "rm")
    canvas.text((right + 10) / UNIT, 26, most, 12, "lm")
    strip = canvas.finished().copy()
    strip[40:64, right - 240 : right] = bar
    return strip
