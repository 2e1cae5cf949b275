"""A sheet of samples; for a class-conditional model a row of each class, with its name."""

from dataclasses import dataclass

import numpy as np

from toolkit.options import count, option
from toolkit.pictures import sampling
from toolkit.pictures.layout import page
from toolkit.pictures.subject import Subject


@dataclass(frozen=True)
class Options:
    nsamples: int = option(128, "number of samples", "pictures", kind=count, unit="N")


def draw(subject: Subject, options: Options) -> np.ndarray:
    label = subject.label or (sampling.ALL if subject.model.config.decoder_classes else None)
    made = sampling.samples(subject.checkpoint, subject.sampler, options.nsamples, label)
    if label != sampling.ALL:
        return made.sheet()
    rows = made.pictures.reshape(-1, made.columns, *made.pictures.shape[1:])
    return page(rows, subject.checkpoint.class_names)
