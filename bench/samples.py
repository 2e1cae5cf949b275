"""python bench/samples.py pretrained/vae_mnist_filters_0064_dims_0008.npz
python bench/samples.py --held_out models/vae_mnist_filters_0064_dims_0016.npz --temperatures 0.8 1

Measure how much a model's samples look like digits, with a classifier of MNIST that is trained for this purpose: the
share of confident classifications (probability above 0.9), for class-conditional models the share of correct classes,
and the Fréchet distance between the features of samples and test images. Prints a Markdown table with a row for each
prior of each model, after the rows of test images and reconstructions.

With --held_out, models are compared by the scores of `evaluate.py --score_samples` instead, with the images that
--keep_best held out of their training: for choosing among them, without the test split and the classifier above.
"""

import argparse
import os
import sys
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
from toolkit.metrics.distances import frechet
from toolkit.metrics.features import network_for
from toolkit.metrics.samples import measure_samples
from toolkit.metrics.words import SCORES
from toolkit.model import inference
from toolkit.model.inference import to_bytes
from toolkit.model.inputs import to_floats
from toolkit.training.trainer import hold_out

SAMPLES, CONFIDENT = 10_000, 0.9
SIZE, FEATURES, EPOCHS = 32, 64, 8  # of the classifier, which is then confident on 98% of test images


class Classifier(nn.Module):
    """The encoder of a VAE, with a feature layer and a class layer."""

    def __init__(self):
        super().__init__()
        self.config = ModelConfig(latent_dims=FEATURES, image_size=SIZE)
        self.encoder = vae.Encoder(SIZE, 1, self.config.max_filters, FEATURES)
        self.classes = nn.Linear(FEATURES, 10)

    def features(self, x):
        """Floats (N, SIZE, SIZE, 1) → (N, FEATURES)."""
        return nn.relu(self.encoder(x)[0])

    def __call__(self, x):
        return [self.classes(self.features(x))]


def train_classifier(split):
    """Train a classifier on a split."""
    mx.random.seed(0)
    model = Classifier()
    return classifiers.train(model, split, model.config, np.asarray(split.labels, np.int32)[:, None], EPOCHS)


def classify(classifier, images):
    """Features and probabilities of images, bytes (N, H, W, 1)."""
    features, probabilities = [], []
    for start in range(0, len(images), 250):
        found = classifier.features(to_floats(mx.array(images[start : start + 250]), classifier.config))
        features.append(np.array(found, np.float64))
        probabilities.append(np.array(mx.softmax(classifier.classes(found), axis=1)))
    return np.concatenate(features), np.concatenate(probabilities)


def row(name, images, labels, classifier, real):
    features, probabilities = classify(classifier, images)
    confident = (probabilities.max(axis=1) > CONFIDENT).mean()
    correct = f"{(probabilities.argmax(axis=1) == labels).mean():.1%}" if labels is not None else ""
    print(f"| {name} | {confident:.1%} | {correct} | {frechet(features, real):.2f} |", flush=True)


def print_held_out(loaded, path, data_dir, temperatures):
    """Rows with the scores of a model's samples and reconstructions on held-out images."""
    config, dataset = loaded.model.config, datasets.full_name(loaded.options["dataset"])
    whole = datasets.load(dataset, "train", data_dir, None, config.image_size, config.channels, None)
    own, held_out = (
        whole._replace(images=whole.images[numbers], labels=whole.labels[numbers])
        for numbers in hold_out(len(whole.images), loaded.options["seed"])
    )
    network, count = network_for(dataset, config.channels), len(held_out.images)
    for i, temperature in enumerate(temperatures):
        found = measure_samples(loaded.model, loaded.priors, held_out, own, network, count, temperature)["scores"]
        for name, scores in list(found.items())[2 if i else 0 :]:
            cells = [
                f"{scores[score]['mean']:.{digits}f}" if score in scores else "" for score, digits in SCORES.items()
            ]
            print(f"| {path} | {name} | {temperature:g} | {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data_dir", default=os.environ.get("VAE_DATA_DIR", "data"))
    parser.add_argument("--held_out", action="store_true")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0])
    args = parser.parse_args()
    device.start()
    if args.held_out:
        print(f"| model | | temperature | {' | '.join(SCORES)} |\n|---|---|---|" + len(SCORES) * "---|")
        for path in args.models:
            print_held_out(checkpoint.load(path), path, args.data_dir, args.temperatures)
        return
    train, test = (datasets.load("mnist", split, args.data_dir, None, 64, 1, None) for split in ("train", "test"))
    classifier = train_classifier(train)
    real, _ = classify(classifier, test.images)
    print(
        f"| {SAMPLES:,} of each | confident (p > {CONFIDENT}) | correct class | Fréchet distance |\n|---|---|---|---|"
    )
    row("test images", test.images, test.labels, classifier, real)
    for path in args.models:
        loaded = checkpoint.load(path)
        model = loaded.model
        pixels = np.concatenate([y for _, y in inference.reconstruct(model, test)])
        row(f"{path}: reconstructions", to_bytes(pixels), test.labels, classifier, real)
        labels = np.arange(SAMPLES) % 10 if model.config.decoder_classes else None
        for prior in reversed(loaded.priors):
            for temperature in args.temperatures:
                z = prior.sample(SAMPLES, mx.random.key(0), temperature, labels)
                name = f"{path}: {prior.words}, temperature {temperature:g}"
                row(name, to_bytes(inference.decode(model, z, labels)), labels, classifier, real)


if __name__ == "__main__":
    main()
