"""The fully connected architecture: two hidden layers on either side of the latent vector, for images of any size."""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from toolkit.layers import forms
from toolkit.model.architecture import Architecture, Layer, dims_and_classes
from toolkit.model.inputs import Config, with_labels


class FullyConnected(Architecture):
    name = "mlp"
    words = "fully connected"
    default_width = 512
    least_width = 8
    least_size = 1
    has_kernels = False
    recipe = {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01}

    def encoder(self, config: Config) -> nn.Module:
        return Encoder(config)

    def decoder(self, config: Config) -> nn.Module:
        return Decoder(config)

    def parameter_bound(self, config: Config) -> int:
        narrow, wide = widths(config)
        heads = 3 * config.latent_dims + config.num_classes
        return 2 * (config.pixels * wide + wide * narrow) + narrow * heads

    def activations(self, config: Config) -> int:
        return 2 * (config.pixels + sum(widths(config)))

    def recognise(self, arrays: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, Any] | None:
        if "encoder.lin1.weight" not in arrays:
            return None
        pixels = len(arrays["decoder.lin3.bias"])
        channels = 1 if math.isqrt(pixels) ** 2 == pixels else 3
        size = math.isqrt(pixels // channels)
        width = len(arrays["encoder.lin1.bias"])
        return {"max_filters": width, "image_size": size, "channels": channels} | dims_and_classes(arrays)


def widths(config: Config) -> tuple[int, int]:
    """Units of the two hidden layers, the narrower first."""
    return config.max_filters // 8, config.max_filters


class Encoder(nn.Module):
    """Image → mean and log-variance of a Gaussian over latent vectors."""

    def __init__(self, config: Config):
        super().__init__()
        narrow, wide = widths(config)
        self.lin1 = nn.Linear(config.pixels + config.num_classes, wide)
        self.lin2 = nn.Linear(wide, narrow)
        self.proj_mu = nn.Linear(narrow, config.latent_dims)
        self.proj_log_var = nn.Linear(narrow, config.latent_dims)
        self._classes = config.num_classes

    def __call__(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        h = with_labels(x.flatten(1), labels, self._classes)
        h = forms.dense(h, self.lin1, nn.relu)  # (N, F)
        h = forms.dense(h, self.lin2, nn.relu).flatten(1)  # (N, F/8)
        return self.proj_mu(h), self.proj_log_var(h)  # (N, D) each

    def layers(self) -> list[Layer]:
        hidden = [("dense", linear, nn.relu) for linear in (self.lin1, self.lin2)]
        return [("labels",), *hidden, ("heads", self.proj_mu, self.proj_log_var)]


class Decoder(nn.Module):
    """Latent vector → what the likelihood wants of the pixels."""

    def __init__(self, config: Config):
        super().__init__()
        narrow, wide = widths(config)
        self.lin1 = nn.Linear(config.latent_dims + config.num_classes, narrow)
        self.lin2 = nn.Linear(narrow, wide)
        self.lin3 = nn.Linear(wide, config.pixels * config.outputs)
        self._classes, self._size = config.num_classes, config.image_size

    def __call__(self, z: mx.array, labels: mx.array | None = None) -> mx.array:  # (N, D)
        h = with_labels(z, labels, self._classes)
        h = forms.dense(h, self.lin1, nn.relu)  # (N, F/8)
        h = forms.dense(h, self.lin2, nn.relu)  # (N, F)
        return forms.dense(h, self.lin3).reshape(len(z), self._size, self._size, -1)  # (N, S, S, C · outputs)

    def layers(self) -> list[Layer]:
        hidden = [("dense", linear, nn.relu) for linear in (self.lin1, self.lin2)]
        return [("labels",), *hidden, ("dense", self.lin3, None)]
