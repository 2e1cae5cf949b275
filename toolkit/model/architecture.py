"""What an architecture is: a pair of classes, encoder and decoder, and what must be known before either is made.

An encoder returns mean and log-variance (N, D) of images (N, S, S, C), a decoder of latent vectors (N, D) what the
likelihood wants (N, S, S, C · outputs); both take the labels of a class-conditional model, though a decoder need not
look at them. vae.py holds the table.

For programs that run a model elsewhere, both may also have `layers()`: what they do, in order. Each is the name of a
layer in toolkit/layers/forms.py with the modules that it is given, or one of two others: at "labels" the label follows
the features, as 0s and a 1, and "heads" are the linear layers of mean and log-variance.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from toolkit.errors import UserError
from toolkit.model.inputs import Config

Layer = tuple[Any, ...]


class Architecture:
    """The questions that an architecture answers; `config` is that of the model."""

    name: str  # of --arch
    words: str
    default_width: int  # of --max_filters
    least_width: int
    least_size: int  # of images, in pixels
    step = 1  # between the sizes that it can have
    has_kernels = True  # of convolutions
    has_layers = True  # as a list, for programs that run a model elsewhere
    decodes_classes = True  # whether its decoder sees the class that it is to make
    recipe: dict[str, Any] = {}  # what the default recipe of training has of its own for it

    def defaults(self, config: Config) -> dict[str, Any]:
        """Name and default of those options of the model that differ between architectures; others it has not."""
        return {"max_filters": self.default_width}

    def detail(self, config: Config) -> str:
        """What its own options say, in words."""
        return ""

    def encoder(self, config: Config) -> nn.Module:
        raise NotImplementedError

    def decoder(self, config: Config) -> nn.Module:
        raise NotImplementedError

    def check(self, config: Config) -> None:
        """Stop where the configuration is one that the architecture cannot have."""
        for name, least in (("max_filters", self.least_width), ("image_size", self.least_size)):
            if (value := getattr(config, name)) < least:
                raise UserError(f"{name} {value} is too small for --arch {self.name} — take at least {least}")
        if config.image_size % self.step:
            size, below = config.image_size, config.image_size // self.step * self.step
            ways = f"take {below} or {below + self.step}, or another --arch"
            raise UserError(f"image_size {size} is not a multiple of {self.step} — {ways}")

    def parameter_bound(self, config: Config) -> int:
        """A lower bound on the number of parameters, and nearly that; known before they are made."""
        raise NotImplementedError

    def activations(self, config: Config) -> int:
        """A lower bound on the numbers that a training step keeps of one image."""
        raise NotImplementedError

    def least_batch(self, config: Config) -> int:
        """Images that a training batch needs."""
        return 1

    def confine(self, model: Any) -> None:
        """Bring back, after a step, the weights of a model that have left their bounds."""

    def recognise(self, arrays: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, Any] | None:
        """The configuration of a model of this kind, from the shapes of its arrays; None for other kinds.

        For files from elsewhere, which may tell the options of their training; our own hold their configuration.
        """
        raise NotImplementedError


def normal_start(layer: Any, spread: float) -> Any:
    """A layer whose weights are drawn from a normal of that spread, and whose biases are zero."""
    layer.weight = spread * mx.random.normal(layer.weight.shape)
    layer.bias = mx.zeros_like(layer.bias)
    return layer


def dims_and_classes(arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """Latent dimensions and classes of a model that tells its class to the first layer of the decoder."""
    dims = len(arrays["encoder.proj_mu.bias"])
    return {"latent_dims": dims, "num_classes": arrays["decoder.lin1.weight"].shape[1] - dims}
