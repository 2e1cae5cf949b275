"""The residual architecture: residual blocks without norms at half and quarter resolution, and a hidden layer between
them and the latent vector.

Without normalisation, the initial weights decide whether a deep network can be trained: every block starts as the
identity, because its second convolution starts at zero (Zhang et al. 2019, De & Smith 2020).
"""

import math
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from toolkit.architectures.row import Architecture, init_normal
from toolkit.layers import forms
from toolkit.options import number, option


@dataclass(frozen=True)
class Options:
    depth: int = option(
        2, "residual blocks per resolution, in encoder and decoder", "model", kind=number(int, 1, 101), unit="N"
    )


def dense(inputs: int, units: int, gain: float = 1) -> nn.Linear:
    """A linear layer whose initial weights preserve the variance of its input."""
    return init_normal(nn.Linear(inputs, units), gain / math.sqrt(inputs))


def kernel(channels: int, filters: int, stride: int = 1, gain: float = math.sqrt(2)) -> nn.Conv2d:
    """A 3×3 convolution whose initial weights preserve the variance of its input, as in He et al. (2015)."""
    conv = nn.Conv2d(channels, filters, 3, stride=stride, padding=1)
    return init_normal(conv, gain / math.sqrt(9 * channels))


class Block(nn.Module):
    """A residual block, which starts as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = kernel(width, width)
        self.conv2 = kernel(width, width, gain=0)

    def __call__(self, x):
        return forms.residual(x, self.conv1, self.conv2)


class Encoder(nn.Module):
    """Image → mean and log-variance of q(z | x)."""

    def __init__(self, config):
        super().__init__()
        narrow, wide, units = config.max_filters // 2, config.max_filters, 8 * config.max_filters
        features = (config.image_size // 4) ** 2 * wide
        self.down1 = kernel(config.channels, narrow, stride=2)
        self.blocks1 = [Block(narrow) for _ in range(config.net.depth)]
        self.down2 = kernel(narrow, wide, stride=2, gain=1)
        self.blocks2 = [Block(wide) for _ in range(config.net.depth)]
        self.hidden = dense(features + config.num_classes, units, gain=math.sqrt(2))
        self.proj_mu = nn.Linear(units, config.latent_dims)
        self.proj_log_var = nn.Linear(units, config.latent_dims)
        self.num_classes = config.num_classes

    def __call__(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        h = forms.conv(x, self.down1)  # (N, S/2, S/2, F/2)
        for block in self.blocks1:
            h = block(h)
        h = forms.conv(h, self.down2)  # (N, S/4, S/4, F)
        for block in self.blocks2:
            h = block(h)
        h = forms.append_labels(forms.flatten(forms.rectify(h)), labels, self.num_classes)
        h = forms.dense(h, self.hidden, nn.leaky_relu)  # (N, 8 F)
        return forms.heads(h, self.proj_mu, self.proj_log_var)  # (N, D) each


class Decoder(nn.Module):
    """Latent vector → parameters of the likelihood."""

    def __init__(self, config):
        super().__init__()
        narrow, wide, units = config.max_filters // 2, config.max_filters, 8 * config.max_filters
        features = (config.image_size // 4) ** 2 * wide
        self.grid, self.num_classes = config.image_size // 4, config.num_classes
        self.hidden1 = dense(config.latent_dims + config.num_classes, units)
        self.hidden2 = dense(units, features, gain=math.sqrt(2))
        self.blocks1 = [Block(wide) for _ in range(config.net.depth)]
        self.up1 = kernel(wide, narrow, gain=1)
        self.blocks2 = [Block(narrow) for _ in range(config.net.depth)]
        self.up2 = kernel(narrow, config.outputs, gain=1)

    def __call__(self, z: mx.array, labels: mx.array | None = None) -> mx.array:  # (N, D)
        h = forms.dense(forms.append_labels(z, labels, self.num_classes), self.hidden1, nn.leaky_relu)  # (N, 8 F)
        h = forms.reshape(forms.dense(h, self.hidden2), self.grid)  # (N, S/4, S/4, F)
        for block in self.blocks1:
            h = block(h)
        h = forms.up(h, self.up1)  # (N, S/2, S/2, F/2)
        for block in self.blocks2:
            h = block(h)
        return forms.join(forms.up(forms.rectify(h), self.up2))  # (N, S, S, outputs)


RESNET = Architecture("resnet", "residual blocks without norms", Encoder, Decoder, 32, 2, 4, 4, Options)
