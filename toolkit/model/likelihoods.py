"""Likelihoods: how probable an image is, given what a decoder made of a latent vector.

A likelihood is a class and its row in LIKELIHOODS; flags, losses, pictures, metrics and checkpoints ask the object.
A decoder returns `outputs` numbers for each number of an image. Parameters that a likelihood has itself are arrays of
its module, trained and saved with the rest. docs/contributing.md adds one.
"""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from toolkit.layers import forms
from toolkit.model.inputs import PIXELS, drawn
from toolkit.random import noise, uniform

LEVELS = 256  # of brightness


class Likelihood(nn.Module):
    """What all have in common; an image has so many `pixels`, which are of the kind `binarize`."""

    name: str  # of --likelihood
    words: str  # what training minimises
    Options = None  # it has none of its own
    outputs = 1  # of the decoder for each number of an image
    mean_of: tuple[str, float, float] = ("sigmoid", 1.0, 0.0)  # what `mean` does, for programs that run it elsewhere:
    # a function, and scale and shift of the numbers that it takes, which are the first of each pixel

    def __init__(self, pixels: int, channels: int, binarize: str = "none"):
        super().__init__()
        self.pixels, self.channels, self.is_binary = pixels, channels, PIXELS[binarize].binary

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        """-log p(x | output) of each image in nats, without `constant`: (N, S, S, C) and what a decoder made → (N,)."""
        raise NotImplementedError

    def mean(self, output: mx.array) -> mx.array:
        """The expected image, floats in [0, 1]: (N, S, S, C)."""
        return forms.sigmoid(output)

    def draw(self, output: mx.array, keys: mx.array) -> mx.array:
        """An image with all the noise that the distribution gives its pixels, by a random key for each."""
        raise NotImplementedError

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
        return -log_probability / self.pixels / math.log(2)


class SquaredError(Likelihood):
    """A Gaussian of variance ½ around each pixel, whose error is the squared distance."""

    name = "mse"
    words = "squared error"
    title = "Gaussian of variance 1/2"

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        return forms.squared_error(x, output)

    def draw(self, output: mx.array, keys: mx.array) -> mx.array:
        return self.mean(output) + math.sqrt(0.5) * noise(keys, output.shape)

    @property
    def constant(self) -> float:
        return -0.5 * self.pixels * math.log(math.pi)


class Bernoulli(Likelihood):
    """Pixels that are 0 or 1; of grey ones the error is still a useful loss, but of no distribution."""

    name = "bce"
    words = "binary cross-entropy"
    title = "Bernoulli"

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        return forms.cross_entropy(x, output)

    def draw(self, output: mx.array, keys: mx.array) -> mx.array:
        return drawn(self.mean(output), keys)

    @property
    def is_distribution(self) -> bool:
        return self.is_binary

    def bits_per_dimension(self, log_probability: float) -> float | None:
        return self.bits(log_probability) if self.is_binary else None


class Normal(Likelihood):
    """A Gaussian around each pixel whose variance, one number for the whole model, is learned with it."""

    name = "normal"
    words = "Gaussian with a learned variance"

    def __init__(self, *kind: Any):
        super().__init__(*kind)
        self.log_variance = mx.array(-2.0)  # about the mean squared error of a model that has just begun to learn

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        squared = forms.squared_error(x, output)
        return 0.5 * (squared * mx.exp(-self.log_variance) + self.pixels * self.log_variance)

    def draw(self, output: mx.array, keys: mx.array) -> mx.array:
        return self.mean(output) + mx.exp(0.5 * self.log_variance) * noise(keys, output.shape)

    @property
    def title(self) -> str:
        return f"Gaussian of variance {math.exp(self.log_variance.item()):.5f}"

    @property
    def constant(self) -> float:
        return -0.5 * self.pixels * math.log(2 * math.pi)

    def bits_per_dimension(self, log_probability: float) -> float | None:
        """The density at a pixel times the width of a grey level stands for the probability of that level."""
        return None if self.is_binary else self.bits(log_probability) + math.log2(LEVELS)


class Logistic(Likelihood):
    """Probabilities of the 256 levels of a pixel: what a logistic distribution has between the borders of each.

    The outermost levels have its tails, too, so the 256 sum to one. For every pixel and channel the decoder says where
    the middle of the distribution is, and the logarithm of its scale (Kingma et al. 2016, Salimans et al. 2017). The
    middle may lie outside [0, 1], so that black and white can be certain.
    """

    name = "logistic"
    words = "discretised logistic"
    title = f"logistic over {LEVELS} levels, with a scale for each pixel"
    outputs = 2
    mean_of = ("clip", 0.25, 0.5)
    FIRST_LOG_SCALE = -2.0  # where the decoder says 0: about that of a model that has just begun to learn

    def middle_and_log_scale(self, output: mx.array) -> tuple[mx.array, mx.array]:
        """(N, S, S, 2 C) → (N, S, S, C) twice, in brightness from 0 to 1."""
        middle, log_scale = output[..., : self.channels], output[..., self.channels :]
        _, scale, shift = self.mean_of
        return shift + scale * middle, mx.clip(self.FIRST_LOG_SCALE + log_scale, -10, 10)

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        return forms.level_error(x, *self.middle_and_log_scale(output), LEVELS)

    def mean(self, output: mx.array) -> mx.array:
        return mx.clip(self.middle_and_log_scale(output)[0], 0, 1)

    def draw(self, output: mx.array, keys: mx.array) -> mx.array:
        middle, log_scale = self.middle_and_log_scale(output)
        u = mx.clip(uniform(keys, middle.shape), 1e-7, 1 - 1e-7)
        x = mx.clip(middle + mx.exp(log_scale) * (mx.log(u) - mx.log1p(-u)), 0, 1)
        return mx.round((LEVELS - 1) * x) / (LEVELS - 1)

    def bits_per_dimension(self, log_probability: float) -> float | None:
        return None if self.is_binary else self.bits(log_probability)


LIKELIHOODS = {likelihood.name: likelihood for likelihood in (SquaredError, Bernoulli, Normal, Logistic)}
