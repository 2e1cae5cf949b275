"""python bench/independent.py

Bits per dimension of CIFAR-10's test images under a model with independent pixels, the baseline for every model. The
probabilities of each pixel and channel are the level counts of the training images, each plus one.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from toolkit import datasets

LEVELS = 256


def bits_per_dimension(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Bits per dimension of each test image under the frequencies of the training images: bytes (N, …) twice → (N,)."""
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    bits = np.zeros(len(test))
    for level_of_train, level_of_test in zip(train.T, test.T, strict=True):
        counts = np.bincount(level_of_train, minlength=LEVELS) + 1
        bits -= np.log2(counts / counts.sum())[level_of_test]
    return bits / test.shape[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar-10", help="data set (default: cifar-10)")
    args = parser.parse_args()
    folder = os.environ.get("VAE_DATA_DIR", "data")
    train, test = (np.asarray(datasets.load(args.dataset, split, folder).images) for split in ("train", "test"))
    bits = bits_per_dimension(train, test)
    error = bits.std(ddof=1) / len(bits) ** 0.5
    print(f"{args.dataset}, {len(train)} training and {len(test)} test images")
    print(f"independent pixels: {bits.mean():.3f} ± {error:.3f} bits per dimension")


if __name__ == "__main__":
    main()
