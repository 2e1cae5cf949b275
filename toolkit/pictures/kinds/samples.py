"""A sheet of samples; for a class-conditional model, one labelled row per class."""

from dataclasses import dataclass

import numpy as np

from toolkit.options import count, option
from toolkit.pictures import sampling
from toolkit.pictures.kinds import ScaleOptions
from toolkit.pictures.layout import page
from toolkit.pictures.subject import Subject

TITLE = "Samples"
CAPTION = "{sampler}"


@dataclass(frozen=True)
class Options(ScaleOptions):
    nsamples: int | None = option(None, "number of samples", "pictures", kind=count, default_text="128")


def draw(subject: Subject, options: Options) -> np.ndarray:
    label = subject.label or (sampling.ALL if subject.model.config.decoder_classes else None)
    made = sampling.samples(subject.checkpoint, subject.sampler, options.nsamples, label)
    if label != sampling.ALL:
        return made.sheet(options.scale)
    rows = made.pictures.reshape(-1, made.columns, *made.pictures.shape[1:])
    block, names = len(rows) // len(subject.checkpoint.class_names), subject.checkpoint.class_names
    left = [name if i == 0 else "" for name in names for i in range(block)]
    return page(rows, left, scale=options.scale, block=block if block > 1 else None)
