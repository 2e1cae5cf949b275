"""python bench/faces.py faces.zip models/vae_folder-faces_filters_0128_dims_0064.npz

Do the samples of models follow the factors of their pictures? Measures reconstructions (PSNR from means) of test
pictures and of those that --keep_best holds out, and the shares of each factor's values among samples: a classifier,
trained here on the pictures and their `factors.csv`, reads the factors from pixels. Prints Markdown tables; the second
has a row for each factor: how often the classifier is right on test pictures, and for each prior by how many percentage
points the share of a value differs at most from the share that the classifier finds among the pictures.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlx.core as mx
import mlx.nn as nn
import numpy as np

import vae
from bench import classifiers
from toolkit import datasets
from toolkit.architectures import ModelConfig
from toolkit.formats import checkpoint
from toolkit.machine import device
from toolkit.metrics.similarity import psnr
from toolkit.model import inference
from toolkit.model.inference import to_bytes
from toolkit.model.inputs import batch, to_floats
from toolkit.training.trainer import hold_out

SAMPLES, EPOCHS, FEATURES = 10_000, 12, 128
ANY = ("facial_hair", "accessories")  # factors that most pictures lack: also whether there is any


class Classifier(nn.Module):
    """The encoder of a VAE, with a feature layer and one for the values of each factor."""

    def __init__(self, size, channels, counts):
        super().__init__()
        self.config = ModelConfig(latent_dims=FEATURES, image_size=size, channels=channels)
        self.encoder = vae.Encoder(size, channels, self.config.max_filters, FEATURES)
        self.heads = [nn.Linear(FEATURES, count) for count in counts]

    def __call__(self, x):
        features = nn.leaky_relu(self.encoder(x)[0])
        return [head(features) for head in self.heads]


def train_classifier(split, size):
    """Train a classifier on a split with factors."""
    mx.random.seed(0)
    known = split.factors
    model = Classifier(size, split.images.shape[3], list(map(len, known.values)))
    return classifiers.train(model, split, model.config, known.numbers, EPOCHS)


def classify(classifier, images):
    """The values of all factors of images, bytes (N, H, W, C) → (N, factors)."""
    found = []
    for start in range(0, len(images), 250):
        logits = classifier(to_floats(mx.array(images[start : start + 250]), classifier.config))
        found.append(np.stack([np.array(one.argmax(axis=1)) for one in logits], axis=1))
    return np.concatenate(found)


def shares(known, values):
    """The share of each value of each factor, and of any value where most have none."""
    rows = {}
    for i, name in enumerate(known.names):
        rows[name] = np.bincount(values[:, i], minlength=len(known.values[i])) / len(values)
        if name in ANY:
            rows[f"any {name}"] = 1 - rows[name][[known.values[i].index("none")]]
    return rows


def quality(model, split, numbers):
    """PSNR of reconstructions from the posterior mean."""
    squared = []
    for start in range(0, len(numbers), 250):
        x, _, labels = batch(split, numbers[start : start + 250], model.config)
        squared.append(np.square(np.array(x) - np.array(model.reconstruct(x, labels))).mean())
    return psnr(float(np.mean(squared)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", help="folder or zip file with a factors.csv")
    parser.add_argument("models", nargs="+", help="models of these pictures, of one image size")
    args = parser.parse_args()
    device.start()
    name, kept = datasets.full_name(f"folder:{args.pictures}"), [checkpoint.load(path) for path in args.models]
    size, channels = kept[0].model.config.image_size, kept[0].model.config.channels
    with tempfile.TemporaryDirectory() as cache:
        train, test = (datasets.load(name, split, None, None, size, channels, cache) for split in ("train", "test"))
        classifier, found = train_classifier(train, size), {}
        right = (classify(classifier, test.images[:]) == test.factors.numbers).mean(axis=0)
        expected = shares(train.factors, classify(classifier, train.images[:]))
        print("\n| | model | MB | PSNR from means: held out | test |\n|---|---|---|---|---|")
        for letter, path, loaded in zip("ABCDEFGHIJKL", args.models, kept, strict=False):
            _, held_out = hold_out(len(train.images), loaded.options.get("seed", 0))
            decibels = quality(loaded.model, train, held_out), quality(loaded.model, test, np.arange(len(test.images)))
            print(f"| {letter} | {path} | {os.path.getsize(path) / 1e6:.2f} | {decibels[0]:.2f} | {decibels[1]:.2f} |")
            for prior in reversed(loaded.priors):
                pixels = inference.decode(loaded.model, prior.sample(SAMPLES, mx.random.key(0)))
                found[f"{letter}: {prior.words}"] = shares(train.factors, classify(classifier, to_bytes(pixels)))
    print("\n| factor | right | " + " | ".join(found) + " |\n|---|---|" + "---|" * len(found))
    for factor, of_data in expected.items():
        accuracy = right[train.factors.names.index(factor.removeprefix("any "))]
        off = " | ".join(f"{100 * np.abs(rows[factor] - of_data).max():.1f}" for rows in found.values())
        print(f"| {factor} | {accuracy:.1%} | {off} |")


if __name__ == "__main__":
    main()
