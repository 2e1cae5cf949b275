"""The definition of an architecture: a row of the table in `toolkit/architectures`, in a file of its own.

An encoder maps images (N, S, S, C) to mean and log-variance (N, D), a decoder latent vectors (N, D) to parameters of
the likelihood (N, S, S, C · outputs). Both also take the labels of a class-conditional model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn


class Architecture(NamedTuple):
    """One row. `encoder` and `decoder` build a module from a ModelConfig."""

    name: str  # of --arch
    words: str
    encoder: Callable[[Any], nn.Module]
    decoder: Callable[[Any], nn.Module]
    width: int  # the default of --max_filters
    least_width: int
    least_size: int  # of images, in pixels
    multiple: int = 1  # image sizes must be multiples of this
    Options: type | None = None  # a frozen dataclass of its own options; `config.net` is an instance
    decodes_classes: bool = True  # whether the decoder is conditioned on the label


def init_normal(layer: Any, spread: float) -> Any:
    """Initialise a layer with normal weights of this standard deviation and zero biases."""
    layer.weight = spread * mx.random.normal(layer.weight.shape)
    layer.bias = mx.zeros_like(layer.bias)
    return layer
