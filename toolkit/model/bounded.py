"""The architecture of the β-annealed VAE: convolutions without norms, and trained bounds of means and variances.

Its encoder sees the class of an image as planes behind the pixels. Its decoder never sees the class, so none can be
asked for.
"""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from toolkit.layers import forms
from toolkit.model.architecture import Architecture, normal_start
from toolkit.model.inputs import Config, one_hot

LEAST, MOST = 1, 100  # that the bounds may be
FIRST = 4.0  # bound of means at the start: with a bound of 1, large first gradients would press all means against it
MNIST_CLASSES = 10  # all models from elsewhere are of MNIST


class Bounded(Architecture):
    name = "bounded"
    words = "convolutions without norms, means and variances within trained bounds"
    default_width = 32
    least_width = 1
    least_size = 8
    step = 8
    has_layers = False
    decodes_classes = False

    def defaults(self, config: Config) -> dict[str, Any]:
        own = {"decoder_filters": config.max_filters, "label_planes": "one_hot", "embed_factor": 1.0}
        return super().defaults(config) | own

    def encoder(self, config: Config) -> nn.Module:
        return Encoder(config)

    def decoder(self, config: Config) -> nn.Module:
        return Decoder(config)

    def detail(self, config: Config) -> str:
        parts = []
        if config.decoder_filters != config.max_filters:
            parts.append(f"{config.decoder_filters} filters in the decoder")
        if config.num_classes:
            kind = f"{config.label_planes} planes × {config.embed_factor:g}"
            parts.append(f"its encoder sees {config.num_classes} classes ({kind})")
        return ", ".join(parts)

    def parameter_bound(self, config: Config) -> int:
        wide, out = config.max_filters, config.decoder_filters
        heads = (config.image_size // 8) ** 2 * config.latent_dims * (2 * wide + out)
        return 9 * (config.channels * wide + 2 * wide**2) + 32 * out**2 + heads

    def activations(self, config: Config) -> int:
        return config.image_size**2 * (config.max_filters + config.decoder_filters) // 4

    def confine(self, model: Any) -> None:
        encoder = model.encoder
        encoder.mu_scale = mx.clip(encoder.mu_scale, LEAST, MOST)
        encoder.logv_scale = mx.clip(encoder.logv_scale, LEAST, MOST)

    def recognise(self, arrays: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, Any] | None:
        if "encoder.mu_scale" not in arrays:
            return None
        width, channels = len(arrays["decoder.cnn1.bias"]), len(arrays["decoder.cnn3.bias"])
        planes = arrays["encoder.cnn1.weight"].shape[3] - channels
        return {
            "latent_dims": len(arrays["encoder.dense.bias"]) // 2,
            "max_filters": len(arrays["encoder.cnn1.bias"]),
            "decoder_filters": width,
            "image_size": 8 * math.isqrt(len(arrays["decoder.dense.bias"]) // width),
            "channels": channels,
            "num_classes": MNIST_CLASSES if planes == 1 else planes,
            "label_planes": "cat" if planes == 1 else "one_hot",
            "embed_factor": options.get("embed_factor", 1.0),
        }


def planes_of(config: Config) -> int:
    """How many planes show the class of an image."""
    return {"cat": min(1, config.num_classes), "one_hot": config.num_classes}[config.label_planes]


def by_he(layer: Any, fan: int) -> Any:
    """A layer with weights by He et al. (2015), which keep the variance of gradients if each meets `fan` of them."""
    return normal_start(layer, math.sqrt(2 / fan))


def halving(channels: int, filters: int) -> nn.Conv2d:
    return by_he(nn.Conv2d(channels, filters, 3, stride=2, padding=1), 9 * filters)


def doubling(channels: int, filters: int) -> nn.ConvTranspose2d:
    return by_he(nn.ConvTranspose2d(channels, filters, 4, stride=2, padding=1), 16 * channels)


def rectified(h):
    """ReLU of each number."""
    return forms.rectified(h, slope=0)


class Encoder(nn.Module):
    """Image and class → mean and log-variance of a Gaussian over latent vectors."""

    def __init__(self, config: Config):
        super().__init__()
        width, dims = config.max_filters, config.latent_dims
        self.cnn1 = halving(config.channels + planes_of(config), width)
        self.cnn2 = halving(width, width)
        self.cnn3 = halving(width, width)
        self.dense = by_he(nn.Linear((config.image_size // 8) ** 2 * width, 2 * dims), 2 * dims)
        self.mu_scale = mx.array(FIRST)  # means lie between its negative and it
        self.logv_scale = mx.full((1, dims), float(LEAST))  # variances lie below
        self._classes, self._kind, self._factor = config.num_classes, config.label_planes, config.embed_factor

    def __call__(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        h = rectified(forms.conv(self.with_planes(x, labels), self.cnn1))  # (N, S/2, S/2, F)
        h = rectified(forms.conv(h, self.cnn2))  # (N, S/4, S/4, F)
        h = rectified(forms.conv(h, self.cnn3))  # (N, S/8, S/8, F)
        mean, variance = mx.split(mx.sigmoid(self.dense(h.flatten(1))), 2, axis=1)  # (N, D) each, as shares
        return self.mu_scale * (2 * mean - 1), mx.log(self.logv_scale * variance + 1e-8)

    def with_planes(self, x: mx.array, labels: mx.array | None) -> mx.array:  # (N, S, S, C) → (N, S, S, C + P)
        """Images with the planes of their class behind them: one filled with its number, or one for each class."""
        if not self._classes:
            return x
        values = one_hot(labels, self._classes)  # (N, P)
        if self._kind == "cat":
            values = values @ mx.arange(float(self._classes))[:, None]
        planes = mx.broadcast_to(self._factor * values[:, None, None], (*x.shape[:3], values.shape[1]))
        return mx.concatenate([x, planes], axis=3)


class Decoder(nn.Module):
    """Latent vector → what the likelihood wants of the pixels."""

    def __init__(self, config: Config):
        super().__init__()
        width, out = config.decoder_filters, config.channels * config.outputs
        self._grid = config.image_size // 8
        self.dense = by_he(nn.Linear(config.latent_dims, self._grid**2 * width), self._grid**2 * width)
        self.cnn1 = doubling(width, width)
        self.cnn2 = doubling(width, width)
        self.cnn3 = doubling(width, out)

    def __call__(self, z: mx.array, labels: mx.array | None = None) -> mx.array:  # (N, D)
        h = forms.dense(z, self.dense, nn.relu).reshape(len(z), self._grid, self._grid, -1)  # (N, S/8, S/8, F)
        h = rectified(forms.transposed(h, self.cnn1))  # (N, S/4, S/4, F)
        h = rectified(forms.transposed(h, self.cnn2))  # (N, S/2, S/2, F)
        h = forms.transposed(h, self.cnn3)
        return h.reshape(len(z), 8 * self._grid, 8 * self._grid, -1)  # (N, S, S, C · outputs)
