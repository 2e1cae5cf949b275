"""What an architecture is: a row of the table in `toolkit/architectures`, with a file for all that is its own.

An encoder returns mean and log-variance (N, D) of images (N, S, S, C), a decoder of latent vectors (N, D) the
parameters of the likelihood (N, S, S, C · outputs). Both take the labels of a class-conditional model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn


class Architecture(NamedTuple):
    """One row. `encoder` and `decoder` make a module from a ModelConfig."""

    name: str  # of --arch
    words: str
    encoder: Callable[[Any], nn.Module]
    decoder: Callable[[Any], nn.Module]
    width: int  # the default of --max_filters
    least_width: int
    least_size: int  # of images, in pixels
    multiple: int = 1  # image sizes are multiples of it
    Options: type | None = None  # a frozen dataclass of the options that it alone has; `config.net` is one
    decodes_classes: bool = True  # whether its decoder is conditioned on the label


def normal_start(layer: Any, spread: float) -> Any:
    """A layer whose weights are drawn from a normal of that spread, and whose biases are zero."""
    layer.weight = spread * mx.random.normal(layer.weight.shape)
    layer.bias = mx.zeros_like(layer.bias)
    return layer
