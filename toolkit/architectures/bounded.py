"""The architecture of the β-annealed VAE: convolutions without norms, and learned bounds on means and variances.

The encoder receives the label of an image as additional channels. The decoder receives none, so it cannot generate a
given class.
"""

import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from toolkit.architectures.row import Architecture, init_normal
from toolkit.layers import forms, plain
from toolkit.options import option, text, weight, whole

LEAST, MOST = 1, 100  # limits of the learned bounds
FIRST = 4.0  # initial bound of the means: with 1, the large first gradients would push all means to the bound


@dataclass(frozen=True)
class Options:
    decoder_filters: int = option(0, "filters of the decoder; 0: same as --max_filters", "model", kind=whole, unit="N")
    label_planes: str = option(
        "one_hot",
        "how the encoder receives the label. one_hot: one plane per class; cat: one plane filled with the class number",
        "model",
        kind=text,
        choices=("one_hot", "cat"),
        only_with=("conditional", "type_of_embedding"),
    )
    embed_factor: float = option(
        1.0, "value of the label planes", "model", kind=weight, unit="X", only_with=("conditional", "type_of_embedding")
    )


def planes_of(config) -> int:
    """Number of label planes."""
    return {"cat": min(1, config.num_classes), "one_hot": config.num_classes}[config.net.label_planes]


def init_he(layer: Any, fan: int) -> Any:
    """Initialise a layer as in He et al. (2015), which preserves the variance of gradients for a fan-out of `fan`."""
    return init_normal(layer, math.sqrt(2 / fan))


def halving(channels: int, filters: int) -> nn.Conv2d:
    return init_he(nn.Conv2d(channels, filters, 3, stride=2, padding=1), 9 * filters)


def doubling(channels: int, filters: int) -> nn.ConvTranspose2d:
    return init_he(nn.ConvTranspose2d(channels, filters, 4, stride=2, padding=1), 16 * channels)


def relu(h):
    return forms.rectify(h, slope=0)


def clip_scale(scale: mx.array) -> mx.array:
    """A learned scale clipped to its limits, with the gradient of the unclipped scale, so that it can return."""
    return scale + mx.stop_gradient(mx.clip(scale, LEAST, MOST) - scale)


class Encoder(nn.Module):
    """Image and label → mean and log-variance of q(z | x)."""

    def __init__(self, config):
        super().__init__()
        width, dims = config.max_filters, config.latent_dims
        self.cnn1 = halving(config.channels + planes_of(config), width)
        self.cnn2 = halving(width, width)
        self.cnn3 = halving(width, width)
        self.dense = init_he(nn.Linear((config.image_size // 8) ** 2 * width, 2 * dims), 2 * dims)
        self.mu_scale = mx.array(FIRST)  # bound of the means' absolute values
        self.logv_scale = mx.full((1, dims), float(LEAST))  # upper bound of the variances
        self.num_classes, self.options = config.num_classes, config.net

    def __call__(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        h = relu(forms.conv(self.with_planes(x, labels), self.cnn1))  # (N, S/2, S/2, F)
        h = relu(forms.conv(h, self.cnn2))  # (N, S/4, S/4, F)
        h = relu(forms.conv(h, self.cnn3))  # (N, S/8, S/8, F)
        h = mx.sigmoid(forms.join(forms.dense(forms.flatten(h), self.dense)))
        mean, variance = mx.split(h, 2, axis=1)  # (N, D) each, in (0, 1)
        return clip_scale(self.mu_scale) * (2 * mean - 1), mx.log(clip_scale(self.logv_scale) * variance + 1e-8)

    def with_planes(self, x: mx.array, labels: mx.array | None) -> mx.array:  # (N, S, S, C) → (N, S, S, C + P)
        """Images followed by their label planes: one filled with the label's number, or one per class."""
        if not self.num_classes:
            return x
        values = plain.one_hot(labels, self.num_classes)  # (N, P)
        if self.options.label_planes == "cat":
            values = values @ mx.arange(float(self.num_classes))[:, None]
        planes = mx.broadcast_to(self.options.embed_factor * values[:, None, None], (*x.shape[:3], values.shape[1]))
        return mx.concatenate([x, planes], axis=3)


class Decoder(nn.Module):
    """Latent vector → parameters of the likelihood."""

    def __init__(self, config):
        super().__init__()
        width, self.grid = config.net.decoder_filters or config.max_filters, config.image_size // 8
        self.dense = init_he(nn.Linear(config.latent_dims, self.grid**2 * width), self.grid**2 * width)
        self.cnn1 = doubling(width, width)
        self.cnn2 = doubling(width, width)
        self.cnn3 = doubling(width, config.outputs)

    def __call__(self, z: mx.array, labels: mx.array | None = None) -> mx.array:  # (N, D)
        h = forms.reshape(forms.dense(z, self.dense, nn.relu), self.grid)  # (N, S/8, S/8, F)
        h = relu(forms.conv_transpose(h, self.cnn1))  # (N, S/4, S/4, F)
        h = relu(forms.conv_transpose(h, self.cnn2))  # (N, S/2, S/2, F)
        return forms.join(forms.conv_transpose(h, self.cnn3))  # (N, S, S, outputs)


WORDS = "convolutions, bounded posterior"
BOUNDED = Architecture("bounded", WORDS, Encoder, Decoder, 32, 1, 8, 8, Options, decodes_classes=False)
