"""Samples, each beside the training picture that is most like it: does the model copy?"""

from dataclasses import dataclass

import numpy as np

from toolkit.metrics import distances
from toolkit.metrics.features import network_for
from toolkit.metrics.samples import features_of_split
from toolkit.model.inputs import batch
from toolkit.options import count, option
from toolkit.pictures import images, sampling
from toolkit.pictures.kinds import ScaleOptions
from toolkit.pictures.subject import Subject

TITLE = "Samples and training pictures"
CAPTION = "Each pair: a sample, and to its right the training picture most like it; {sampler}"


@dataclass(frozen=True)
class Options(ScaleOptions):
    nsamples: int = option(32, "number of samples", "pictures", kind=count)


def draw(subject: Subject, options: Options) -> np.ndarray:
    made = sampling.samples(subject.checkpoint, subject.sampler, options.nsamples, subject.label).pictures
    train, config = subject.load("train"), subject.model.config
    network = network_for(subject.dataset, config.channels)
    numbers, _ = distances.nearest(network.of(made), features_of_split(network, train, config))
    return images.sheet(images.pairs(made, batch(train, numbers, config).x), min(8, len(made)), options.scale)
