"""Rows of test images, below them their reconstructions and the error."""

from dataclasses import dataclass

import numpy as np

from toolkit.model import inference
from toolkit.options import count, option
from toolkit.pictures import images
from toolkit.pictures.layout import page
from toolkit.pictures.subject import Subject


@dataclass(frozen=True)
class Options:
    nsamples: int = option(24, "number of test images", "pictures", kind=count, unit="N")


def draw(subject: Subject, options: Options, columns: int = 12) -> np.ndarray:
    """Rows of test images, below them their reconstructions, and the absolute error (black is 0)."""
    test, number = subject.test, min(options.nsamples, len(subject.test.images))
    images.check_sheet(number * 3, subject.model.config.image_size)
    labels = None if test.labels is None else test.labels[:number]
    first = test._replace(images=test.images[:number], labels=labels)
    x, y = (np.concatenate(parts) for parts in zip(*inference.reconstruct(subject.model, first), strict=True))
    error = np.broadcast_to(np.abs(x - y).mean(axis=3, keepdims=True), x.shape)
    columns = min(columns, number)
    blank = -number % columns  # places that the last row leaves empty
    rows, left = [], []
    for start in range(0, number, columns):
        for word, pictures in (("original", x), ("reconstruction", y), ("error", error)):
            row = images.to_bytes(pictures[start : start + columns])
            empty = np.full((blank if len(row) < columns else 0, *row.shape[1:]), 255, np.uint8)
            rows.append(np.concatenate([row, empty]))
            left.append(word)
    return page(rows, left, block=3)
