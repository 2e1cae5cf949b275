"""Likelihoods: how probable an image is, given what a decoder made of a latent vector.

A likelihood is a class and its row in LIKELIHOODS; flags, losses, pictures, metrics and checkpoints ask the object.
A decoder returns `outputs` numbers for each number of an image, logits of its brightness first. Parameters that a
likelihood has itself are arrays of its module, trained and saved with the rest. docs/contributing.md adds one.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from toolkit.layers import forms
from toolkit.model.inputs import PIXELS, Config


class Likelihood(nn.Module):
    """What all have in common; `config` is that of the model, for its kind of pixels."""

    name: str  # of --likelihood
    words: str  # what training minimises
    outputs = 1

    def __init__(self, config: Config):
        super().__init__()
        self._pixels, self._binarized = config.pixels, PIXELS[config.binarize].binary

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        """-log p(x | output) of each image in nats, without `constant`: (N, S, S, C) and what a decoder made → (N,)."""
        raise NotImplementedError

    def mean(self, output: mx.array) -> mx.array:
        """The expected image, floats in [0, 1]: (N, S, S, C)."""
        return forms.sigmoid(output)

    @property
    def title(self) -> str:
        """The distribution by its name, with its parameters."""
        raise NotImplementedError

    @property
    def constant(self) -> float:
        """What log p(x | output) has besides the error, per image."""
        return 0.0

    @property
    def is_distribution(self) -> bool:
        """Whether it is a distribution over what the pixels can be, so that log p(x) means something."""
        return True

    def bits_per_dimension(self, log_probability: float) -> float | None:
        """log p(x) of an image in bits per pixel and channel, negated; None where these compare with nobody's."""
        return None

    def bits(self, log_probability: float) -> float:
        return -log_probability / self._pixels / math.log(2)


class SquaredError(Likelihood):
    """A Gaussian of variance ½ around each pixel, whose error is the squared distance."""

    name = "mse"
    words = "squared error"
    title = "Gaussian of variance 1/2"

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        return forms.squared_error(x, output)

    @property
    def constant(self) -> float:
        return -0.5 * self._pixels * math.log(math.pi)


class Bernoulli(Likelihood):
    """Pixels that are 0 or 1; of grey ones the error is still a useful loss, but of no distribution."""

    name = "bce"
    words = "binary cross-entropy"
    title = "Bernoulli"

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        return forms.cross_entropy(x, output)

    @property
    def is_distribution(self) -> bool:
        return self._binarized

    def bits_per_dimension(self, log_probability: float) -> float | None:
        return self.bits(log_probability) if self._binarized else None


class Normal(Likelihood):
    """A Gaussian around each pixel whose variance, one number for the whole model, is learned with it."""

    name = "normal"
    words = "Gaussian with a learned variance"
    GREY_LEVELS = 256

    def __init__(self, config: Config):
        super().__init__(config)
        self.log_variance = mx.array(-2.0)  # about the mean squared error of a model that has just begun to learn

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        squared = forms.squared_error(x, output)
        return 0.5 * (squared * mx.exp(-self.log_variance) + self._pixels * self.log_variance)

    @property
    def title(self) -> str:
        return f"Gaussian of variance {math.exp(self.log_variance.item()):.5f}"

    @property
    def constant(self) -> float:
        return -0.5 * self._pixels * math.log(2 * math.pi)

    def bits_per_dimension(self, log_probability: float) -> float | None:
        """The density at a pixel times the width of a grey level stands for the probability of that level."""
        return None if self._binarized else self.bits(log_probability) + math.log2(self.GREY_LEVELS)


LIKELIHOODS = {likelihood.name: likelihood for likelihood in (SquaredError, Bernoulli, Normal)}
