"""How good a model's samples are: their distances from test pictures, beside those of its reconstructions and of
training pictures, which are as near as possible."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from toolkit.datasets import Split
from toolkit.errors import UserError
from toolkit.files.progress import bar
from toolkit.metrics import distances
from toolkit.metrics.features import Network
from toolkit.model import inference
from toolkit.model.inference import to_bytes
from toolkit.model.inputs import PIXELS, batches
from toolkit.random import generator, image_keys
from vae import VAE

DRAWS = 4
REAL, AGAIN = "training pictures", "reconstructions"  # rows besides the priors


def features_of_split(network: Network, split: Split, config: Any) -> np.ndarray:
    """The features of all images as a model sees them: in its size, colours and binarisation."""
    parts = []
    with bar(len(split.images), "Looking at pictures") as shown:
        for x, _, _ in batches(split, inference.CHUNK, config):
            parts.append(network.of(to_bytes(x)))
            shown.update(len(x))
    return np.concatenate(parts)


def check_count(count: int, test: Split) -> None:
    """Raise UserError unless so many samples can be compared with test images."""
    if count > (most := len(test.images)):
        raise UserError(f"--score_samples {count:,} needs as many test images, and there are {most:,} — lower it")
    if count <= distances.NEIGHBOURS:
        raise UserError(f"--score_samples needs more than {distances.NEIGHBOURS} — raise it")


class Judge:
    """Compares sets of pictures with `count` test pictures at a time."""

    def __init__(self, network: Network, config: Any, test: Split, train: Split, count: int):
        check_count(count, test)
        self.network, self.count = network, count
        self.test, self.train = (features_of_split(network, split, config) for split in (test, train))
        self.usual = np.median(distances.nearest(self.test, self.train)[1])

    def choose(self, random: np.random.Generator) -> np.ndarray:
        """Choose the test pictures to compare with; returns their numbers."""
        numbers = random.choice(len(self.test), self.count, replace=False)
        self.real = self.test[numbers]
        self.around = distances.radii(self.real)
        return numbers

    def scores(self, made: np.ndarray, are_new: bool = True) -> dict[str, float]:
        """The scores of features of pictures; `novelty`, unless they are training pictures themselves, is their median
        distance from the nearest training picture, divided by that of test pictures, unless that is 0."""
        found = {}
        if self.count > self.network.units:
            found["frechet"] = distances.frechet(made, self.real)
        found |= distances.manifold(self.real, made, self.around)
        if are_new and self.usual:
            found["novelty"] = float(np.median(distances.nearest(made, self.train)[1]) / self.usual)
        return found

    def of_class(self, made: np.ndarray, is_real: np.ndarray, is_made: np.ndarray) -> dict[str, float] | None:
        """The Fréchet distance and coverage of the pictures of one class; None if there are too few."""
        if min(is_real.sum(), is_made.sum()) <= self.network.units:
            return None
        real, made = self.real[is_real], made[is_made]
        found = {"frechet": distances.frechet(made, real)}
        return found | {"coverage": distances.manifold(real, made, distances.radii(real))["coverage"]}


def measure_samples(
    model: VAE,
    priors: Sequence[Any],
    test: Split,
    train: Split,
    network: Network,
    count: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """The scores of `count` samples from each prior, with means and standard deviations over several draws."""
    judge, config = Judge(network, model.config, test, train, count), model.config
    again = np.concatenate([network.of(to_bytes(y)) for _, y in inference.reconstruct(model, test)])
    names = [prior.words for prior in priors]
    if len(set(names)) < len(names):  # a flow in training, and another fitted afterwards
        names = [f"{name}, {which}" for name, which in zip(names, ("fitted", "of training"), strict=True)]
    rows: dict[str, list] = {name: [] for name in (REAL, AGAIN, *names)}
    classes: dict[str, list] = {name: [] for name in (test.class_names if config.decoder_classes else ())}
    with bar(DRAWS * len(priors) * count, "Drawing samples") as shown:
        for draw in range(DRAWS):
            random = generator(seed, draw)
            numbers = judge.choose(random)
            if len(train.images) >= count:
                others = judge.train[random.choice(len(judge.train), count, replace=False)]
                rows[REAL].append(judge.scores(others, are_new=False))
            rows[AGAIN].append(judge.scores(again[numbers]))
            labels = np.asarray(test.labels)[numbers].astype(np.int32) if config.decoder_classes else None
            for i, prior in enumerate(priors):
                z = prior.sample(count, mx.array(random.integers(0, 2**32, 2, np.uint32)), temperature, labels)
                keys = image_keys(seed, draw, mx.arange(count, dtype=mx.uint32)) if is_binary(config) else None
                made = network.of(to_bytes(inference.decode(model, z, labels, keys)))
                rows[names[i]].append(judge.scores(made))
                if i == 0:
                    for number, name in enumerate(classes):
                        classes[name].append(judge.of_class(made, labels == number, labels == number))
                shown.update(count)
    scores = {name: summary(draws) for name, draws in rows.items() if draws}
    by_class = {name: None if None in draws else summary(draws) for name, draws in classes.items()}
    facts = {"count": count, "draws": DRAWS, "seed": seed, "temperature": temperature, "features": network.words}
    facts |= {"dimensions": network.units, "neighbours": distances.NEIGHBOURS, "scores": scores}
    facts["pixels"] = "drawn" if is_binary(config) else "mean"
    return facts | ({"by_class": by_class, "prior_by_class": names[0]} if by_class else {})


def is_binary(config: Any) -> bool:
    """Whether real pictures are binarised, so that samples must be drawn from the likelihood to resemble them."""
    return PIXELS[config.binarize].binary


def summary(draws: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """The mean and the standard deviation of each score over the draws."""
    values = {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
    return {name: {"mean": float(v.mean()), "deviation": float(v.std(ddof=1))} for name, v in values.items()}
