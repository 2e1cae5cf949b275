"""The model: a convolutional variational autoencoder, its bound, and its compiled functions.

It knows arrays only. Images come in as bytes (N, H, W, C) of any size, grey or coloured, and leave as floats in [0, 1]
at the model's size. Where data comes from is datasets, where weights are kept is checkpoint.py, how they are learned is
training.py.
"""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

import cpu
from architectures import MLPDecoder, MLPEncoder, TransposeDecoder
from device import on_cpu
from errors import UserError
from layers import UpsampleConv, down, join, sigmoid, split, with_labels

BINARIZE = ("none", "threshold", "dynamic")
LIKELIHOODS = ("mse", "bce")
GREY = (0.299, 0.587, 0.114)  # shares of red, green and blue, as in ITU-R 601
# The default of max_filters for each architecture; transpose: convolutions with another decoder.
WIDTHS = {"conv": 64, "transpose": 64, "mlp": 512}


@dataclass(frozen=True)
class VAEConfig:
    """All the numbers that fix the shapes of a model, how it wants its images, and how it compares them."""

    latent_dims: int = 8
    max_filters: int = 64
    image_size: int = 64
    channels: int = 1
    classes: int = 0  # of a class-conditional model
    arch: str = "conv"
    binarize: str = "none"
    likelihood: str = "mse"

    def __post_init__(self):
        for name, known in (("arch", WIDTHS), ("binarize", BINARIZE), ("likelihood", LIKELIHOODS)):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"{name} {value!r} is unknown — take one of {', '.join(known)}")
        mlp = self.arch == "mlp"
        least_filters, least_size = (8, 1) if mlp else (4, 8)
        for name, least in (
            ("latent_dims", 1),
            ("max_filters", least_filters),
            ("image_size", least_size),
            ("channels", 1),
            ("classes", 0),
        ):
            if getattr(self, name) < least:
                raise UserError(f"{name} {getattr(self, name)} is too small — take at least {least}")
        if self.image_size % 8 and not mlp:
            below = self.image_size // 8 * 8
            raise UserError(
                f"image_size {self.image_size} is not divisible by 8 — take {below} or {below + 8}, or --arch mlp"
            )
        if self.parameter_bound > 10**9:
            raise UserError(
                f"a model of {self.max_filters} filters, {self.latent_dims} latent dims and {self.image_size}×"
                f"{self.image_size} pixels has more than a billion parameters — take smaller numbers"
            )

    @property
    def filters(self):
        """Output channels of the three encoder convolutions."""
        return self.max_filters // 4, self.max_filters // 2, self.max_filters

    @property
    def grid(self):
        """Side of the smallest feature map."""
        return self.image_size // 8

    @property
    def features(self):
        """Numbers in the smallest feature map of one image."""
        return self.grid**2 * self.max_filters

    @property
    def pixels(self):
        """Numbers in one image."""
        return self.image_size**2 * self.channels

    @property
    def widths(self):
        """Units of the two hidden layers of the fully connected architecture, the narrower first."""
        return self.max_filters // 8, self.max_filters

    @property
    def parameter_bound(self):
        """Fewer parameters than the model has, by little; known before they are made."""
        inner = self.latent_dims + self.classes
        if self.arch == "mlp":
            narrow, wide = self.widths
            return 2 * (self.pixels * wide + wide * narrow) + 3 * narrow * inner
        a, b, c = self.filters
        return 9 * (self.channels * a + a * b + b * c) * 2 + 3 * self.features * inner


class Encoder(nn.Module):
    """Image → mean and log-variance of a Gaussian over codes."""

    def __init__(self, config):
        super().__init__()
        a, b, c = config.filters
        self.conv1 = nn.Conv2d(config.channels, a, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(b, c, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm(a)
        self.bn2 = nn.BatchNorm(b)
        self.bn3 = nn.BatchNorm(c)
        self.proj_mu = nn.Linear(config.features + config.classes, config.latent_dims)
        self.proj_log_var = nn.Linear(config.features + config.classes, config.latent_dims)
        self._classes = config.classes

    def __call__(self, x, labels=None):  # (N, S, S, C)
        h = split(x)
        h = down(h, self.conv1, self.bn1)  # (N, S/2, S/2, F/4)
        h = down(h, self.conv2, self.bn2)  # (N, S/4, S/4, F/2)
        h = down(h, self.conv3, self.bn3)  # (N, S/8, S/8, F)
        h = with_labels(join(h).flatten(1), labels, self._classes)
        return self.proj_mu(h), self.proj_log_var(h)  # (N, D) each


def sample(mean, log_var, key):
    """Draw one code per image: mean + standard deviation · noise, so that gradients flow through both."""
    eps = mx.random.normal(mean.shape, key=key)
    return mean + mx.exp(0.5 * log_var) * eps


class Decoder(nn.Module):
    """Code → logits of the pixels."""

    def __init__(self, config):
        super().__init__()
        a, b, c = config.filters
        self.lin1 = nn.Linear(config.latent_dims + config.classes, config.features)
        self.upconv1 = UpsampleConv(c, b)
        self.upconv2 = UpsampleConv(b, a)
        self.upconv3 = UpsampleConv(a, config.channels)
        self.bn1 = nn.BatchNorm(b)
        self.bn2 = nn.BatchNorm(a)
        self._grid, self._classes = config.grid, config.classes

    def __call__(self, z, labels=None):  # (N, D)
        h = self.lin1(with_labels(z, labels, self._classes))
        h = split(h.reshape(len(z), self._grid, self._grid, -1))  # (N, S/8, S/8, F)
        h = self.upconv1(h, self.bn1)  # (N, S/4, S/4, F/2)
        h = self.upconv2(h, self.bn2)  # (N, S/2, S/2, F/4)
        return join(self.upconv3(h))  # (N, S, S, C)


ARCHITECTURES = {
    "conv": (Encoder, Decoder),
    "transpose": (Encoder, TransposeDecoder),
    "mlp": (MLPEncoder, MLPDecoder),
}


class VAE(nn.Module):
    """Encoder and decoder with the configuration that made them."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        encoder, decoder = ARCHITECTURES[config.arch]
        self.encoder = encoder(config)
        self.decoder = decoder(config)

    def __call__(self, x, labels, key):
        mean, log_var = self.encoder(x, labels)
        return self.decoder(sample(mean, log_var, key), labels), mean, log_var

    def parameter_count(self):
        """How many numbers training changes."""
        return sum(array.size for _, array in tree_flatten(self.trainable_parameters()))


def reconstruction_error(x, logits, likelihood):
    """Per image, summed over its pixels: squared error, or the negative log-likelihood of pixels that are 0 or 1."""
    if on_cpu():
        return cpu.pixel_error(x, logits, likelihood)
    if likelihood == "mse":
        return mx.square(mx.sigmoid(logits) - x).sum(axis=(1, 2, 3))
    return (mx.logaddexp(0, logits) - x * logits).sum(axis=(1, 2, 3))


def kl_by_dimension(mean, log_var):
    """KL divergence of each code's Gaussian from the standard one, in each of its dimensions: (N, D)."""
    return 0.5 * (mx.square(mean) + mx.exp(log_var) - 1 - log_var)


def kl_divergence(mean, log_var):
    """The same per image, summed over the dimensions."""
    return kl_by_dimension(mean, log_var).sum(axis=1)


def elbo(x, logits, mean, log_var, likelihood):
    """The two terms of the negative evidence lower bound, per image."""
    return reconstruction_error(x, logits, likelihood), kl_divergence(mean, log_var)


def resize_matrix(size, new_size):
    """The matrix R of linear interpolation: R @ pixels has `new_size` of them.

    Pixel centres lie at half steps and edges are clamped; when shrinking, the triangle widens with the step so that
    every pixel counts.
    """
    step = size / new_size
    centres = (np.arange(new_size) + 0.5) * step - 0.5
    distance = np.abs(centres[:, None] - np.arange(size)[None, :])
    weights = np.maximum(0, 1 - distance / max(1, step))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def to_floats(images, config, keys=None):
    """Bytes (N, H, W, C) → floats in [0, 1] as the model wants them; `keys`, one an image, for dynamic binarisation."""
    x = images.astype(mx.float32) / 255
    if images.shape[3] == 3 and config.channels == 1:
        x = x @ mx.array(GREY)[:, None]
    height, width = images.shape[1:3]
    if (height, width) != (config.image_size, config.image_size):  # by two small matrix products per image
        rows = mx.array(resize_matrix(height, config.image_size))
        columns = mx.array(resize_matrix(width, config.image_size))
        x = (rows @ x.transpose(0, 3, 1, 2) @ columns.T).transpose(0, 2, 3, 1)
    if config.binarize == "threshold":
        x = (x > 128.5 / 255).astype(mx.float32)  # bytes above 128
    elif config.binarize == "dynamic":
        chance = mx.vmap(lambda key: mx.random.uniform(shape=x.shape[1:], key=key))(keys)
        x = (chance < x).astype(mx.float32)
    return mx.repeat(x, 3, axis=3) if config.channels > x.shape[3] else x


def image_keys(numbers):
    """The keys of images by their numbers in a split: what chance makes of one is the same whenever it is looked at."""
    return mx.stack([mx.zeros_like(numbers), numbers], axis=1)


def compiled_training_step(model, optimizer, free_bits=0):
    """A function (bytes, labels, key, β) → sums over the batch of reconstruction and KL, which also updates the model.

    It makes reconstruction + β · KL small. With `free_bits`, a dimension's KL, averaged over the batch, counts only
    above that many nats.
    """
    config = model.config

    def loss(images, labels, key, beta):
        keys = None
        if config.binarize == "dynamic":  # new draws at every step
            key, of_images = mx.random.split(key)
            keys = mx.random.split(of_images, len(images))
        x = to_floats(images, config, keys)
        logits, mean, log_var = model(x, labels, key)
        reconstruction, kl = elbo(x, logits, mean, log_var, config.likelihood)
        price = kl.mean()
        if free_bits:
            price = mx.maximum(kl_by_dimension(mean, log_var).mean(axis=0), free_bits).sum()
        return mx.mean(reconstruction) + beta * price, mx.stack([reconstruction.sum(), kl.sum()])

    loss_and_gradients = nn.value_and_grad(model, loss)

    def step(images, labels, key, beta):
        (_, sums), gradients = loss_and_gradients(images, labels, key, beta)
        optimizer.update(model, gradients)
        return sums

    state = [model.state, optimizer.state]
    return mx.compile(step, inputs=state, outputs=state)


# Below, `numbers` are those of the images in their split, and `labels` count for class-conditional models only.


def compiled_encode(model):
    """A function (bytes, numbers, labels) → mean and log-variance of the codes."""

    def encode(images, numbers, labels=None):
        return model.encoder(to_floats(images, model.config, image_keys(numbers)), labels)

    return mx.compile(encode, inputs=model.state)


def compiled_decode(model):
    """A function (codes, labels) → pixels in [0, 1]."""
    return mx.compile(lambda z, labels=None: sigmoid(model.decoder(z, labels)), inputs=model.state)


def compiled_reconstruct(model):
    """A function (bytes, numbers, labels) → the floats the model sees, and what it makes of them from the mean code."""

    def reconstruct(images, numbers, labels=None):
        x = to_floats(images, model.config, image_keys(numbers))
        mean, _ = model.encoder(x, labels)
        return x, sigmoid(model.decoder(mean, labels))

    return mx.compile(reconstruct, inputs=model.state)


def compiled_error(model):
    """A function (bytes, numbers, labels, codes) → reconstruction error of what the codes decode to, per image."""

    def error(images, numbers, labels, z):
        x = to_floats(images, model.config, image_keys(numbers))
        return reconstruction_error(x, model.decoder(z, labels), model.config.likelihood)

    return mx.compile(error, inputs=model.state)
