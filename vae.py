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
from device import on_cpu
from errors import UserError

BINARIZE = ("none", "threshold", "dynamic")
GREY = (0.299, 0.587, 0.114)  # shares of red, green and blue, as in ITU-R 601


@dataclass(frozen=True)
class VAEConfig:
    """All the numbers that fix the shapes of a model, and how it wants its images."""

    latent_dims: int = 8
    max_filters: int = 64
    image_size: int = 64
    channels: int = 1
    binarize: str = "none"

    def __post_init__(self):
        if self.binarize not in BINARIZE:
            raise UserError(f"binarize {self.binarize!r} is unknown — take one of {', '.join(BINARIZE)}")
        for name, least in (("latent_dims", 1), ("max_filters", 4), ("image_size", 8), ("channels", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} {getattr(self, name)} is too small — take at least {least}")
        if self.image_size % 8:
            below = self.image_size // 8 * 8
            raise UserError(f"image_size {self.image_size} is not divisible by 8 — take {below} or {below + 8}")
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
    def parameter_bound(self):
        """Fewer parameters than the model has, by little; known before they are made."""
        a, b, c = self.filters
        return 9 * (self.channels * a + a * b + b * c) * 2 + 3 * self.features * self.latent_dims


# The layers. On a CPU `h` is a list of parts, one for each core: cpu.py says how and why.


def split(x):
    return cpu.split(x) if on_cpu() else x


def join(h):
    return cpu.join(h) if on_cpu() else h


def sigmoid(logits):
    """Logits → pixels."""
    return cpu.sigmoid(logits) if on_cpu() else mx.sigmoid(logits)


def down(h, conv, norm):
    """A convolution that halves the image, batch norm, leaky ReLU: (N, H, W, C) → (N, H/2, W/2, O)."""
    if on_cpu():
        return cpu.down(h, conv, norm)
    return nn.leaky_relu(norm(conv(h)))


class UpsampleConv(nn.Module):
    """Nearest ×2 upsampling and a convolution: (N, H, W, C) → (N, 2H, 2W, O); with `norm` as above."""

    def __init__(self, channels, filters):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)

    def __call__(self, h, norm=None):
        if on_cpu():
            return cpu.up(h, self.conv, norm)
        h = self.conv(mx.repeat(mx.repeat(h, 2, axis=1), 2, axis=2))
        return h if norm is None else nn.leaky_relu(norm(h))


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
        self.proj_mu = nn.Linear(config.features, config.latent_dims)
        self.proj_log_var = nn.Linear(config.features, config.latent_dims)

    def __call__(self, x):  # (N, S, S, C)
        h = split(x)
        h = down(h, self.conv1, self.bn1)  # (N, S/2, S/2, F/4)
        h = down(h, self.conv2, self.bn2)  # (N, S/4, S/4, F/2)
        h = down(h, self.conv3, self.bn3)  # (N, S/8, S/8, F)
        h = join(h).flatten(1)
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
        self.lin1 = nn.Linear(config.latent_dims, config.features)
        self.upconv1 = UpsampleConv(c, b)
        self.upconv2 = UpsampleConv(b, a)
        self.upconv3 = UpsampleConv(a, config.channels)
        self.bn1 = nn.BatchNorm(b)
        self.bn2 = nn.BatchNorm(a)
        self._grid = config.grid

    def __call__(self, z):  # (N, D)
        h = self.lin1(z).reshape(len(z), self._grid, self._grid, -1)  # (N, S/8, S/8, F)
        h = split(h)
        h = self.upconv1(h, self.bn1)  # (N, S/4, S/4, F/2)
        h = self.upconv2(h, self.bn2)  # (N, S/2, S/2, F/4)
        return join(self.upconv3(h))  # (N, S, S, C)


class VAE(nn.Module):
    """Encoder and decoder with the configuration that made them."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def __call__(self, x, key):
        mean, log_var = self.encoder(x)
        return self.decoder(sample(mean, log_var, key)), mean, log_var

    def parameter_count(self):
        """How many numbers training changes."""
        return sum(array.size for _, array in tree_flatten(self.trainable_parameters()))


def reconstruction_error(x, logits):
    """Squared error per image, summed over its pixels."""
    if on_cpu():
        return cpu.squared_error(x, logits)
    return mx.square(mx.sigmoid(logits) - x).sum(axis=(1, 2, 3))


def kl_divergence(mean, log_var):
    """KL divergence of a code's Gaussian from the standard one, per image, summed over its dimensions."""
    return 0.5 * (mx.square(mean) + mx.exp(log_var) - 1 - log_var).sum(axis=1)


def elbo(x, logits, mean, log_var):
    """The two terms of the negative evidence lower bound, per image; their sum is what training makes small."""
    return reconstruction_error(x, logits), kl_divergence(mean, log_var)


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


def compiled_training_step(model, optimizer):
    """A function (bytes, key) → sums over the batch of reconstruction and KL, which also updates the model."""

    def loss(images, key):
        keys = None
        if model.config.binarize == "dynamic":  # new draws at every step
            key, of_images = mx.random.split(key)
            keys = mx.random.split(of_images, len(images))
        x = to_floats(images, model.config, keys)
        logits, mean, log_var = model(x, key)
        reconstruction, kl = elbo(x, logits, mean, log_var)
        return mx.mean(reconstruction + kl), mx.stack([reconstruction.sum(), kl.sum()])

    loss_and_gradients = nn.value_and_grad(model, loss)

    def step(images, key):
        (_, sums), gradients = loss_and_gradients(images, key)
        optimizer.update(model, gradients)
        return sums

    state = [model.state, optimizer.state]
    return mx.compile(step, inputs=state, outputs=state)


# Below, `numbers` are those of the images in their split.


def compiled_encode(model):
    """A function (bytes, numbers) → mean and log-variance of the codes."""

    def encode(images, numbers):
        return model.encoder(to_floats(images, model.config, image_keys(numbers)))

    return mx.compile(encode, inputs=model.state)


def compiled_decode(model):
    """A function codes → pixels in [0, 1]."""
    return mx.compile(lambda z: sigmoid(model.decoder(z)), inputs=model.state)


def compiled_reconstruct(model):
    """A function (bytes, numbers) → the floats the model sees, and its reconstruction of them from the mean."""

    def reconstruct(images, numbers):
        x = to_floats(images, model.config, image_keys(numbers))
        mean, _ = model.encoder(x)
        return x, sigmoid(model.decoder(mean))

    return mx.compile(reconstruct, inputs=model.state)


def compiled_error(model):
    """A function (bytes, numbers, codes) → reconstruction error of what the codes decode to, per image."""

    def error(images, numbers, z):
        x = to_floats(images, model.config, image_keys(numbers))
        return reconstruction_error(x, model.decoder(z))

    return mx.compile(error, inputs=model.state)
