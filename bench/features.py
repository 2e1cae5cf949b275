"""python bench/features.py --data_dir data

Train the network whose features score samples of digits and clothes (toolkit/metrics/features.py), and write it there.
Prints the share of test images that it recognises.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from bench import classifiers
from toolkit import datasets
from toolkit.machine import device
from toolkit.metrics import features

EPOCHS = 6


class Classifier(nn.Module):
    """The network with a layer of classes: ten digits, ten kinds of clothes."""

    def __init__(self):
        super().__init__()
        self.network = features.untrained()
        self.classes = nn.Linear(self.network.units, 20)

    def __call__(self, x):
        return [self.classes(self.network(x))]


def both(splits):
    """The digits and the clothes as one split, and their classes (N, 1)."""
    images, labels = (np.concatenate([getattr(split, name) for split in splits]) for name in ("images", "labels"))
    classes = labels.astype(np.int32) + np.repeat([0, 10], [len(split.labels) for split in splits])
    return splits[0]._replace(images=images, labels=classes), classes[:, None]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default=os.environ.get("VAE_DATA_DIR", "data"))
    args = parser.parse_args()
    print(device.start())
    mx.random.seed(0)
    train, test = (
        both([datasets.load(name, split, args.data_dir) for name in features.KNOWN]) for split in ("train", "test")
    )
    model = classifiers.train(Classifier(), train[0], features.untrained().format, train[1], EPOCHS)
    logits = model.classes(mx.array(model.network.of(test[0].images).astype(np.float32)))
    right = np.array(logits.argmax(axis=1)) == test[1][:, 0]
    for name, part in zip(features.KNOWN, np.split(right, 2), strict=True):
        print(f"{name}: {part.mean():.2%} of {len(part):,} test images recognised")
    arrays = {name: np.array(array, np.float16) for name, array in features.parameters(model.network).items()}
    np.savez_compressed(features.FILE, **arrays)
    print(f"{features.FILE}: {features.FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
