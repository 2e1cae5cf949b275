"""Likelihoods p(x | z): how probable an image is, given the output of a decoder.

A likelihood is a class and its row in LIKELIHOODS; flags, losses, pictures, metrics and checkpoints use the object. A
decoder returns `outputs` values per pixel and channel. A likelihood's own parameters are arrays of its module, trained
and saved with the model. docs/contributing.md shows how to add one.
"""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from toolkit.layers import forms
from toolkit.model.inputs import PIXELS, draw_binary
from toolkit.random import noise, uniform

LEVELS = 256  # of brightness


class Likelihood(nn.Module):
    """The interface. `pixels` counts the values of an image, `channels` those of a pixel."""

    name: str  # of --likelihood
    words: str  # what training minimises
    title: str  # the distribution with its parameters
    Options = None  # no options of its own
    outputs = 1  # of the decoder, per pixel and channel
    needs_grey = False  # meaningless for pixels that are 0 or 1
    constant = 0.0  # additive constant of log p(x | output), per image
    is_distribution = True  # over the values that pixels can have, so that log p(x) is meaningful
    mean_of: tuple[str, float, float] = ("sigmoid", 1.0, 0.0)  # `mean`, for programs that run the model elsewhere:
    # a function, and the scale and shift of its argument, the first outputs of each pixel

    def __init__(self, pixels: int, channels: int, binarize: str = "none"):
        super().__init__()
        self.pixels, self.channels, self.is_binary = pixels, channels, PIXELS[binarize].binary

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        """-log p(x | output) of each image in nats, without `constant`: images and decoder outputs → (N,)."""
        raise NotImplementedError

    def mean(self, output: mx.array) -> mx.array:
        """The expected image, floats in [0, 1]: (N, S, S, C)."""
        return forms.sigmoid(output)

    def draw(self, output: mx.array, keys: mx.array) -> mx.array:
        """Images sampled from the likelihood, with one random key each."""
        raise NotImplementedError

    def bits_per_dimension(self, log_probability: float) -> float | None:
        """-log p(x) of an image in bits per pixel and channel; None if not comparable with published values."""
        return None

    def bits(self, log_probability: float) -> float:
        return -log_probability / self.pixels / math.log(2)


class SquaredError(Likelihood):
    """A Gaussian with variance ½ for each pixel, whose error is the squared distance."""

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
    """Pixels are 0 or 1. For grey pixels the error is still a useful loss, but not a log-probability."""

    name = "bce"
    words = "binary cross-entropy"
    title = "Bernoulli"

    def error(self, x: mx.array, output: mx.array) -> mx.array:
        return forms.cross_entropy(x, output)

    def draw(self, output: mx.array, keys: mx.array) -> mx.array:
        return draw_binary(self.mean(output), keys)

    @property
    def is_distribution(self) -> bool:
        return self.is_binary

    def bits_per_dimension(self, log_probability: float) -> float | None:
        return self.bits(log_probability) if self.is_binary else None


class Normal(Likelihood):
    """A Gaussian for each pixel, with one learned variance for the whole model."""

    name = "normal"
    words = "Gaussian with a learned variance"
    needs_grey = True

    def __init__(self, *kind: Any):
        super().__init__(*kind)
        self.log_variance = mx.array(-2.0)  # close to the mean squared error early in training

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
        """The probability of a grey level is approximated by the density times the level's width."""
        return None if self.is_binary else self.bits(log_probability) + math.log2(LEVELS)


class Logistic(Likelihood):
    """Probabilities of the 256 levels of a pixel: the difference of a logistic CDF over each bin.

    The outermost bins include the tails, so the probabilities sum to one. Per pixel and channel the decoder returns the
    middle of the distribution and the logarithm of its scale (Kingma et al. 2016, Salimans et al. 2017). The middle may
    lie outside [0, 1], so black and white can be certain.
    """

    name = "logistic"
    words = "discretised logistic"
    title = f"logistic over {LEVELS} levels, with a scale for each pixel"
    outputs = 2
    needs_grey = True
    mean_of = ("clip", 0.25, 0.5)
    FIRST_LOG_SCALE = -2.0  # for an output of 0; close to that early in training

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
