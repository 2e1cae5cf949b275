"""The residual architecture: blocks that add to what they are given, without norms, at half and quarter size, and a
hidden layer between them and the latent vector.

Where nothing is normalised, how weights begin decides whether a deep network can be trained: every block begins as the
identity, as the second of its convolutions begins at zero (Zhang et al. 2019, De & Smith 2020).
"""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from toolkit.layers import forms
from toolkit.model.architecture import Architecture, Layer, normal_start
from toolkit.model.inputs import Config, with_labels


class Residual(Architecture):
    name = "resnet"
    words = "residual blocks without norms"
    default_width = 32
    least_width = 2
    least_size = 4
    step = 4
    recipe = {"lr": 0.003}

    def defaults(self, config: Config) -> dict[str, Any]:
        return super().defaults(config) | {"depth": 2}

    def detail(self, config: Config) -> str:
        return f"{config.depth} at each of two sizes"

    def encoder(self, config: Config) -> nn.Module:
        return Encoder(config)

    def decoder(self, config: Config) -> nn.Module:
        return Decoder(config)

    def parameter_bound(self, config: Config) -> int:
        narrow, wide = widths(config)
        blocks = 2 * 18 * config.depth * (narrow**2 + wide**2)
        heads = 3 * config.latent_dims + config.num_classes
        return blocks + 18 * narrow * wide + hidden(config) * (2 * features(config) + heads)

    def activations(self, config: Config) -> int:
        narrow, wide = widths(config)
        return 40 * config.depth * (4 * narrow + wide) * (config.image_size // 4) ** 2

    def recognise(self, arrays: dict[str, np.ndarray], options: dict[str, Any]) -> None:
        return None  # such files come from here alone, and hold their configuration


def widths(config: Config) -> tuple[int, int]:
    """Channels at a half and at a quarter of the size."""
    return config.max_filters // 2, config.max_filters


def features(config: Config) -> int:
    """Numbers in the smallest feature map of one image."""
    return (config.image_size // 4) ** 2 * config.max_filters


def hidden(config: Config) -> int:
    """Units of the hidden layer."""
    return 8 * config.max_filters


def dense(inputs: int, units: int, gain: float = 1) -> nn.Linear:
    """A linear layer whose weights keep the variance of what goes through it."""
    return normal_start(nn.Linear(inputs, units), gain / math.sqrt(inputs))


def kernel(channels: int, filters: int, stride: int = 1, gain: float = math.sqrt(2)) -> nn.Conv2d:
    """A 3×3 convolution whose weights keep the variance of what goes through it, by He et al. (2015)."""
    conv = nn.Conv2d(channels, filters, 3, stride=stride, padding=1)
    return normal_start(conv, gain / math.sqrt(9 * channels))


class Block(nn.Module):
    """x and what two convolutions add to it; nothing at first."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = kernel(width, width)
        self.conv2 = kernel(width, width, gain=0)

    def __call__(self, x):
        return forms.residual(x, self.conv1, self.conv2)

    def layer(self) -> Layer:
        return ("residual", self.conv1, self.conv2)


class Encoder(nn.Module):
    """Image → mean and log-variance of a Gaussian over latent vectors."""

    def __init__(self, config: Config):
        super().__init__()
        narrow, wide = widths(config)
        self.down1 = kernel(config.channels, narrow, stride=2)
        self.blocks1 = [Block(narrow) for _ in range(config.depth)]
        self.down2 = kernel(narrow, wide, stride=2, gain=1)
        self.blocks2 = [Block(wide) for _ in range(config.depth)]
        self.hidden = dense(features(config) + config.num_classes, hidden(config), gain=math.sqrt(2))
        self.proj_mu = nn.Linear(hidden(config), config.latent_dims)
        self.proj_log_var = nn.Linear(hidden(config), config.latent_dims)
        self._classes = config.num_classes

    def __call__(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        h = forms.conv(x, self.down1)  # (N, S/2, S/2, F/2)
        for block in self.blocks1:
            h = block(h)
        h = forms.conv(h, self.down2)  # (N, S/4, S/4, F)
        for block in self.blocks2:
            h = block(h)
        h = with_labels(forms.rectified(h).flatten(1), labels, self._classes)
        h = forms.dense(h, self.hidden, nn.leaky_relu).flatten(1)  # (N, 8 F)
        return self.proj_mu(h), self.proj_log_var(h)  # (N, D) each

    def layers(self) -> list[Layer]:
        first, second = ([block.layer() for block in blocks] for blocks in (self.blocks1, self.blocks2))
        middle = [("rectified",), ("labels",), ("dense", self.hidden, nn.leaky_relu)]
        heads = ("heads", self.proj_mu, self.proj_log_var)
        return [("conv", self.down1), *first, ("conv", self.down2), *second, *middle, heads]


class Decoder(nn.Module):
    """Latent vector → what the likelihood wants of the pixels."""

    def __init__(self, config: Config):
        super().__init__()
        narrow, wide = widths(config)
        self._grid, self._classes = config.image_size // 4, config.num_classes
        self.hidden1 = dense(config.latent_dims + config.num_classes, hidden(config))
        self.hidden2 = dense(hidden(config), features(config), gain=math.sqrt(2))
        self.blocks1 = [Block(wide) for _ in range(config.depth)]
        self.up1 = kernel(wide, narrow, gain=1)
        self.blocks2 = [Block(narrow) for _ in range(config.depth)]
        self.up2 = kernel(narrow, config.channels * config.outputs, gain=1)

    def __call__(self, z: mx.array, labels: mx.array | None = None) -> mx.array:  # (N, D)
        h = forms.dense(with_labels(z, labels, self._classes), self.hidden1, nn.leaky_relu)  # (N, 8 F)
        h = forms.dense(h, self.hidden2).reshape(len(z), self._grid, self._grid, -1)  # (N, S/4, S/4, F)
        for block in self.blocks1:
            h = block(h)
        h = forms.up(h, self.up1)  # (N, S/2, S/2, F/2)
        for block in self.blocks2:
            h = block(h)
        h = forms.up(forms.rectified(h), self.up2)
        return h.reshape(len(z), 4 * self._grid, 4 * self._grid, -1)  # (N, S, S, C · outputs)

    def layers(self) -> list[Layer]:
        first, second = ([block.layer() for block in blocks] for blocks in (self.blocks1, self.blocks2))
        start = [("labels",), ("dense", self.hidden1, nn.leaky_relu), ("dense", self.hidden2, None)]
        return [*start, *first, ("up", self.up1, None), *second, ("rectified",), ("up", self.up2, None)]
