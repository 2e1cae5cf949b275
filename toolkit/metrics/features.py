"""Features: numbers in which pictures that look alike are close to each other. Scores of samples compare them.

Digits and clothes have a network that was trained to recognise them (bench/features.py) and is part of this folder.
Other pictures have one with fixed random weights, which needs no training and is the same for every model.
"""

import io
import math
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

import vae
from toolkit.errors import UserError
from toolkit.files.reading import contents
from toolkit.model.inputs import to_floats

FILE = Path(__file__).parent / "features.npz"
LARGEST = 2**19  # bytes of that file
KNOWN = ("mnist", "fashion-mnist")  # data sets that the trained network has seen
CHUNK = 500  # pictures at a time


class Format(NamedTuple):
    """The pictures that a network takes, as to_floats needs it."""

    image_size: int
    channels: int
    binarize: str = "none"


class Network(nn.Module):
    """The encoder of vae.py, whose means are the features."""

    def __init__(self, words: str, image_size: int, channels: int, filters: int, units: int):
        super().__init__()
        self.words, self.units, self.format = words, units, Format(image_size, channels)
        self.encoder = vae.Encoder(image_size, channels, filters, units)

    def __call__(self, x: mx.array) -> mx.array:  # (N, S, S, C) → (N, units)
        return nn.leaky_relu(self.encoder(x)[0])

    def of(self, pictures: np.ndarray) -> np.ndarray:
        """The features of pictures, bytes (N, H, W, C) → (N, units), float64."""
        parts = (mx.array(pictures[i : i + CHUNK]) for i in range(0, len(pictures), CHUNK))
        return np.concatenate([np.array(self(to_floats(part, self.format)), np.float64) for part in parts])


def network_for(dataset: str, channels: int) -> Network:
    """The network for the pictures of a data set."""
    return trained() if dataset in KNOWN else fixed(channels)


def untrained() -> Network:
    return Network("a network trained on digits and clothes", 32, 1, 48, 64)


def trained() -> Network:
    """The network of this folder."""
    network, weights = untrained(), {}
    stored = np.load(io.BytesIO(contents(FILE, LARGEST)), allow_pickle=False)
    for name, array in parameters(network).items():
        if name not in stored or stored[name].shape != array.shape:
            raise UserError(f"{FILE} has no {name} of shape {array.shape} — install the toolkit again")
        weights[name] = mx.array(stored[name].astype(np.float32))
    network.load_weights(list(weights.items()), strict=False)
    return network.eval()


def parameters(network: Network) -> dict[str, mx.array]:
    """The arrays that the features depend on."""
    return {name: array for name, array in tree_flatten(network.parameters()) if "log_var" not in name}


def fixed(channels: int) -> Network:
    """A network with random weights of a spread that keeps the values of all layers alike."""
    network, random = Network("a network with fixed random weights", 64, channels, 64, 128), np.random.default_rng(0)
    weights = {}
    for name, array in parameters(network).items():
        if name.endswith("weight") and array.ndim > 1:
            weights[name] = random.normal(0, math.sqrt(2 / math.prod(array.shape[1:])), array.shape)
        elif name.endswith("bias"):  # those of the first layer make features depend on brightness
            weights[name] = random.normal(0, 0.5 if "conv1" in name else 0, array.shape)
    made = [(name, mx.array(array.astype(np.float32))) for name, array in weights.items()]
    network.load_weights(made, strict=False)
    return network.eval()
