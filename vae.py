"""The model: a variational autoencoder, from its configuration to its compiled functions.

An encoder turns an image into a Gaussian over latent vectors, a vector is sampled from it, and a decoder turns that
back into an image (Kingma & Welling 2013). It knows arrays only. Images come in as bytes (N, H, W, C) of any size, grey
or coloured; toolkit/model/inputs.py makes of them what the model sees. Where they come from is toolkit/datasets, where
weights are kept is toolkit/formats, how they are trained is toolkit/training.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from toolkit.errors import UserError
from toolkit.layers import forms
from toolkit.machine import ranks
from toolkit.model.architecture import Architecture, Layer, dims_and_classes
from toolkit.model.bounded import Bounded
from toolkit.model.gaussians import damped, log_density, noise, reparametrise
from toolkit.model.inputs import PIXELS, image_keys, to_floats, with_labels
from toolkit.model.likelihoods import LIKELIHOODS
from toolkit.model.mlp import FullyConnected
from toolkit.model.priors import PRIORS
from toolkit.model.resnet import Residual
from toolkit.options import count, option, text, weight
from toolkit.wording import by_value

# Configuration


@dataclass(frozen=True)
class ModelConfig:
    """All that fixes a model's shapes, how it wants its images, and how it compares them. Every checkpoint holds it."""

    latent_dims: int = option(8, "size of the latent vector", "model", kind=count, unit="N", aliases=("hidden_dim",))
    arch: str = option(
        "conv",
        lambda: "; ".join(f"{known.name}: {known.words}" for known in ARCHITECTURES.values()),
        "model",
        kind=text,
        choices=lambda: ARCHITECTURES,
    )
    max_filters: int | None = option(
        None,
        "filters of the widest layer",
        "model",
        kind=count,
        unit="N",
        default_text=lambda: widths_in_words(),
    )
    depth: int | None = option(
        None,
        "resnet: residual blocks at each of its two sizes, on either side",
        "model",
        kind=count,
        unit="N",
        default_text="2",
    )
    decoder_filters: int | None = option(
        None, "bounded: filters of its decoder", "model", kind=count, unit="N", default_text="as --max_filters"
    )
    image_size: int = option(
        64,
        "side of the images in pixels; a multiple of 8 for conv, transpose and bounded, of 4 for resnet",
        "model",
        kind=count,
        unit="N",
    )
    channels: int = 1  # 1 for grey, 3 for colour
    num_classes: int = 0  # of a class-conditional model, which sees the label
    label_planes: str | None = option(
        None,
        "bounded, with --conditional: how its encoder sees the class. one_hot: as a plane for each class; cat: as one "
        "plane filled with its number",
        "model",
        kind=text,
        choices=("one_hot", "cat"),
        default_text="one_hot",
    )
    embed_factor: float | None = option(
        None,
        "bounded, with --conditional: factor of what fills these planes",
        "model",
        kind=weight,
        unit="X",
        default_text="1",
    )
    likelihood: str = option(
        "mse",
        lambda: "; ".join(f"{known.name}: {known.words}" for known in LIKELIHOODS.values()),
        "objective",
        kind=text,
        choices=lambda: LIKELIHOODS,
        aliases=("likelihood_type",),
    )
    binarize: str = option(
        "none",
        "turn pixels into 0 and 1. threshold: those above 128 become 1; dynamic: each is 1 with probability equal to "
        "its brightness, resampled at every training step and fixed for evaluation",
        "objective",
        kind=text,
        choices=lambda: PIXELS,
    )

    prior: str = "normal"  # that KL is measured against

    def __post_init__(self):
        for name, known in (
            ("arch", ARCHITECTURES),
            ("binarize", PIXELS),
            ("likelihood", LIKELIHOODS),
            ("prior", PRIORS),
        ):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"{name} {value!r} is unknown — take one of {', '.join(known)}")
        for name in (field.name for field in fields(self) if field.default is None):
            defaults = self.architecture.defaults(self)
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                raise UserError(f"--arch {self.arch} has no {name} to choose — leave --{name} out")
        for name, least in (("latent_dims", 1), ("channels", 1), ("num_classes", 0)):
            if (value := getattr(self, name)) < least:
                raise UserError(f"{name} {value} is too small — take at least {least}")
        self.architecture.check(self)
        if self.architecture.parameter_bound(self) > 10**9:
            raise UserError(
                f"a model of {self.max_filters} filters, {self.latent_dims} latent dims and {self.image_size}×"
                f"{self.image_size} pixels has more than a billion parameters — take smaller numbers"
            )

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.arch]

    @property
    def decoder_classes(self) -> int:
        """Classes that can be asked for."""
        return self.num_classes if self.architecture.decodes_classes else 0

    @property
    def pixels(self) -> int:
        """Numbers in one image."""
        return self.image_size**2 * self.channels

    @property
    def outputs(self) -> int:
        """Numbers that the decoder makes for each of them."""
        return LIKELIHOODS[self.likelihood].outputs


# Encoder, sample, decoder


class Encoder(nn.Module):
    """Image → mean and log-variance of a Gaussian over latent vectors, by three convolutions that halve it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        a, b, c = filters(config)
        self.conv1 = nn.Conv2d(config.channels, a, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(b, c, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm(a)
        self.bn2 = nn.BatchNorm(b)
        self.bn3 = nn.BatchNorm(c)
        self.proj_mu = nn.Linear(features(config) + config.num_classes, config.latent_dims)
        self.proj_log_var = nn.Linear(features(config) + config.num_classes, config.latent_dims)
        self._classes = config.num_classes

    def __call__(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        h = forms.down(x, self.conv1, self.bn1)  # (N, S/2, S/2, F/4)
        h = forms.down(h, self.conv2, self.bn2)  # (N, S/4, S/4, F/2)
        h = forms.down(h, self.conv3, self.bn3)  # (N, S/8, S/8, F)
        h = with_labels(h.flatten(1), labels, self._classes)
        return self.proj_mu(h), self.proj_log_var(h)  # (N, D) each

    def layers(self) -> list[Layer]:
        convs = zip((self.conv1, self.conv2, self.conv3), (self.bn1, self.bn2, self.bn3), strict=True)
        return [*(("down", *pair) for pair in convs), ("labels",), ("heads", self.proj_mu, self.proj_log_var)]


def sample(mean: mx.array, log_var: mx.array, key: mx.array) -> mx.array:
    """One latent vector for each mean and log-variance, (N, D) or (N, K, D); `key` is one, or one for each image.

    This is the one place where noise enters, as mean + standard deviation · noise, so that gradients reach both.
    """
    return reparametrise(mean, log_var, noise(key, mean.shape))


class UpsampleConv(nn.Module):
    """Nearest ×2 upsampling and a convolution."""

    key = "upconv"  # its name in checkpoints

    def __init__(self, channels: int, filters: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)

    def __call__(self, x: mx.array, norm: nn.BatchNorm | None = None) -> mx.array:  # (N, H, W, C) → (N, 2H, 2W, O)
        return forms.up(x, self.conv, norm)

    def layer(self, norm: nn.BatchNorm | None = None) -> Layer:
        return ("up", self.conv, norm)


class TransposedConv(nn.ConvTranspose2d):
    """A transposed convolution that doubles the image."""

    key = "conv"

    def __init__(self, channels: int, filters: int):
        super().__init__(channels, filters, 3, stride=2, padding=1, output_padding=1)

    def __call__(self, x: mx.array, norm: nn.BatchNorm | None = None) -> mx.array:  # (N, H, W, C) → (N, 2H, 2W, O)
        return forms.transposed(x, self, norm)

    def layer(self, norm: nn.BatchNorm | None = None) -> Layer:
        return ("transposed", self, norm)


class Decoder(nn.Module):
    """Latent vector → what the likelihood wants of the pixels, by three layers that double the image."""

    def __init__(self, config: ModelConfig, doubling: type[UpsampleConv] | type[TransposedConv]):
        super().__init__()
        a, b, c = filters(config)
        self.lin1 = nn.Linear(config.latent_dims + config.num_classes, features(config))
        for i, (channels, out) in enumerate(((c, b), (b, a), (a, config.channels * config.outputs)), 1):
            self[f"{doubling.key}{i}"] = doubling(channels, out)
        self.bn1 = nn.BatchNorm(b)
        self.bn2 = nn.BatchNorm(a)
        self._key, self._grid, self._classes = doubling.key, config.image_size // 8, config.num_classes

    def __call__(self, z: mx.array, labels: mx.array | None = None) -> mx.array:  # (N, D)
        first, second, third = (self[f"{self._key}{i}"] for i in (1, 2, 3))
        h = self.lin1(with_labels(z, labels, self._classes))
        h = h.reshape(len(z), self._grid, self._grid, -1)  # (N, S/8, S/8, F)
        h = first(h, self.bn1)  # (N, S/4, S/4, F/2)
        h = second(h, self.bn2)  # (N, S/2, S/2, F/4)
        return third(h).reshape(len(z), 8 * self._grid, 8 * self._grid, -1)  # (N, S, S, C · outputs)

    def layers(self) -> list[Layer]:
        first, second, third = (self[f"{self._key}{i}"] for i in (1, 2, 3))
        doublings = (first.layer(self.bn1), second.layer(self.bn2), third.layer())
        return [("labels",), ("dense", self.lin1, None), *doublings]


def filters(config: ModelConfig) -> tuple[int, int, int]:
    """Output channels of the three encoder convolutions."""
    return config.max_filters // 4, config.max_filters // 2, config.max_filters


def features(config: ModelConfig) -> int:
    """Numbers in the smallest feature map of one image."""
    return (config.image_size // 8) ** 2 * config.max_filters


class Convolutional(Architecture):
    """The encoder above, and the decoder with one of its two ways to double an image."""

    default_width, least_width, least_size, step = 64, 4, 8, 8

    def __init__(self, name: str, words: str, doubling: type[UpsampleConv] | type[TransposedConv]):
        self.name, self.words, self.doubling = name, words, doubling

    def encoder(self, config: ModelConfig) -> nn.Module:
        return Encoder(config)

    def decoder(self, config: ModelConfig) -> nn.Module:
        return Decoder(config, self.doubling)

    def parameter_bound(self, config: ModelConfig) -> int:
        a, b, c = filters(config)
        heads = 3 * config.latent_dims + config.num_classes
        return 9 * (config.channels * a + a * b + b * c) * 2 + features(config) * heads

    def activations(self, config: ModelConfig) -> int:
        return config.image_size**2 * config.max_filters

    def least_batch(self, config: ModelConfig) -> int:
        return 2 if config.image_size == 8 else 1  # batch norm of a 1×1 map needs two values

    def recognise(self, arrays: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, Any] | None:
        first = f"decoder.{self.doubling.key}1"
        if not {f"{first}.bias", f"{first}.conv.bias"} & arrays.keys():
            return None
        width = len(arrays["encoder.conv3.bias"])
        return {
            "max_filters": width,
            "image_size": 8 * math.isqrt(len(arrays["decoder.lin1.bias"]) // width),
            "channels": arrays["encoder.conv1.weight"].shape[3],
        } | dims_and_classes(arrays)


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Convolutional("conv", "convolutions, upsampling decoder", UpsampleConv),
        Convolutional("transpose", "convolutions, transposed decoder", TransposedConv),
        FullyConnected(),
        Residual(),
        Bounded(),
    )
}


def widths_in_words() -> str:
    """The default of --max_filters."""
    usual = ARCHITECTURES["conv"].default_width
    others = {a.name: a.default_width for a in ARCHITECTURES.values() if a.default_width != usual}
    return ", or ".join([str(usual), *by_value(others)])


# Model and bound


class VAE(nn.Module):
    """Encoder, decoder, likelihood and prior, made by one configuration; and its compiled functions, made once.

    The compiled functions take images as bytes with their `numbers` in the split, and the `labels` of those that a
    class-conditional model asks for.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = config.architecture.encoder(config)
        self.decoder = config.architecture.decoder(config)
        self.likelihood = LIKELIHOODS[config.likelihood](config)
        self.prior = PRIORS[config.prior](config.latent_dims)

    def posterior(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        """Mean and log-variance of the latent vectors of each image: (N, D) each."""
        mean, log_var = self.encoder(x, labels)
        return mean, damped(log_var)

    def negative_bound(
        self, x: mx.array, labels: mx.array | None, key: mx.array
    ) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        """The two terms of the negative evidence lower bound of each image: error (N,), and KL by dimension (N, D)."""
        mean, log_var = self.posterior(x, labels)
        output = self.decoder(sample(mean, log_var, key), labels)
        return self.likelihood.error(x, output), self.prior.kl(mean, log_var)

    def parameter_count(self) -> int:
        """How many numbers training changes."""
        return sum(array.size for _, array in tree_flatten(self.trainable_parameters()))

    def compiled(self, function: Callable) -> Callable:
        return mx.compile(function, inputs=self.state)

    @cached_property
    def encode(self) -> Callable:
        """(bytes, numbers, labels) → mean and log-variance of the latent vectors, (N, D) each."""

        def encode(images, numbers, labels=None):
            return self.posterior(to_floats(images, self.config, image_keys(numbers)), labels)

        return self.compiled(encode)

    @cached_property
    def decode(self) -> Callable:
        """(latent vectors, labels) → pixels in [0, 1], (N, S, S, C)."""
        return self.compiled(lambda z, labels=None: self.likelihood.mean(self.decoder(z, labels)))

    @cached_property
    def draw(self) -> Callable:
        """(latent vectors, labels, a key for each) → pixels with the noise of the likelihood, (N, S, S, C)."""
        return self.compiled(lambda z, labels, keys: self.likelihood.draw(self.decoder(z, labels), keys))

    @cached_property
    def reconstruct(self) -> Callable:
        """(bytes, numbers, labels) → the floats that the model sees, and what it makes of them from their means."""

        def reconstruct(images, numbers, labels=None):
            x = to_floats(images, self.config, image_keys(numbers))
            mean, _ = self.posterior(x, labels)
            return x, self.likelihood.mean(self.decoder(mean, labels))

        return self.compiled(reconstruct)

    @cached_property
    def error(self) -> Callable:
        """(bytes, numbers, labels, latent vectors) → the likelihood's error of what these decode to, (N,)."""

        def error(images, numbers, labels, z):
            x = to_floats(images, self.config, image_keys(numbers))
            return self.likelihood.error(x, self.decoder(z, labels))

        return self.compiled(error)

    @cached_property
    def log_ratios(self) -> Callable:
        """(floats, labels, mean, log_var, a key for each image, K, B) → K of B samples z, and log p(x|z) / q(z|x).

        Without the constant of the likelihood, which would cost float32 its last digits.
        """

        def log_ratios(x, labels, mean, log_var, keys, count, block):
            mean, log_var = (mx.broadcast_to(a[:, None], (len(a), block, a.shape[1])) for a in (mean, log_var))
            z = sample(mean, log_var, keys)[:, :count]  # (N, K, D)
            return z, -self.errors(x, labels, z) - log_density(z, mean[:, :count], log_var[:, :count])

        return self.compiled(log_ratios)

    def errors(self, x: mx.array, labels: mx.array | None, z: mx.array) -> mx.array:
        """The likelihood's error of K latent vectors for each image: (N, S, S, C) and (N, K, D) → (N, K)."""
        count, samples, dims = z.shape
        labels = None if labels is None else mx.repeat(labels, samples)
        output = self.decoder(z.reshape(-1, dims), labels)
        return self.likelihood.error(mx.repeat(x, samples, axis=0), output).reshape(count, samples)


# Objectives: what training minimises


class Elbo:
    """The negative evidence lower bound: error + β KL.

    With free bits, the KL of a dimension, averaged over the batch, counts only above so many nats.
    """

    name = "elbo"
    words = "evidence lower bound"
    ignores = ("iw_samples", "iw_warmup")  # options that mean nothing to it
    samples = 1  # of each image

    def __init__(self, free_bits: float = 0, iw_samples: int = 1):
        self.free_bits = free_bits

    def cost(
        self, model: VAE, x: mx.array, labels: mx.array | None, key: mx.array, beta: mx.array
    ) -> tuple[mx.array, mx.array]:
        """What the gradients are of, and the terms of each image: loss, error and KL, (3, N)."""
        error, kl_by_dimension = model.negative_bound(x, labels, key)
        kl = kl_by_dimension.sum(axis=1)
        counted = kl.mean()
        if self.free_bits:
            counted = mx.maximum(ranks.mean(kl_by_dimension), self.free_bits).sum()
        return error.mean() + beta * counted, mx.stack([error + kl, error, kl])

    def of_terms(self, terms: dict[str, float], beta: float) -> float:
        """What is minimised, from the means of the terms over images."""
        return terms["reconstruction"] + beta * terms["kl"]

    def title(self, errors: str, kl: str) -> str:
        """In words, made of those for its two terms."""
        return f"{errors} + {kl}" + (f", {self.free_bits:g} free nats per dimension" if self.free_bits else "")


class ImportanceWeighted:
    """The negative importance-weighted bound: -log of the mean of p(x, z) / q(z|x) over K samples (Burda et al. 2015).

    The gradients are the doubly reparametrised ones (Tucker et al. 2019): the densities of q hold its parameters fixed,
    and on its way from a sample to the encoder a gradient is multiplied once more by that sample's share of the sum.
    """

    name = "iwae"
    words = "importance-weighted bound, by several samples"
    ignores = ("beta", "beta_warmup", "beta_start", "free_bits")

    def __init__(self, free_bits: float = 0, iw_samples: int = 1):
        self.samples = iw_samples

    def cost(
        self, model: VAE, x: mx.array, labels: mx.array | None, key: mx.array, beta: mx.array
    ) -> tuple[mx.array, mx.array]:
        """As that of Elbo."""
        mean, log_var = model.posterior(x, labels)
        kl = model.prior.kl(mean, log_var).sum(axis=1)
        shape = len(mean), self.samples, mean.shape[1]
        mean, log_var = (mx.broadcast_to(a[:, None], shape) for a in (mean, log_var))
        shares = []  # holds the share that every sample has in its sum, by the time that gradients are asked for

        @mx.custom_function
        def to_decoder(z):
            return z

        @to_decoder.vjp
        def to_encoder(_, gradient, __):
            return gradient * shares[0][..., None]

        z = to_decoder(sample(mean, log_var, key))
        error = model.errors(x, labels, z)
        log_q = log_density(z, mx.stop_gradient(mean), mx.stop_gradient(log_var))
        log_w = model.prior.log_density(z, labels) - log_q - error  # (N, K)
        log_sum = mx.logsumexp(log_w, axis=1)
        shares.append(mx.stop_gradient(mx.exp(log_w - log_sum[:, None])))
        terms = mx.stack([math.log(self.samples) - log_sum, error.mean(axis=1), kl])
        return -(shares[0] * log_w).sum(axis=1).mean(), terms

    def of_terms(self, terms: dict[str, float], beta: float) -> float:
        return terms["loss"]

    def title(self, errors: str, kl: str) -> str:
        return f"importance-weighted bound of {self.samples} samples, with {errors}"


OBJECTIVES = {objective.name: objective for objective in (Elbo, ImportanceWeighted)}


def training_step(model: VAE, optimizer: Any, objective: Elbo | ImportanceWeighted | None = None) -> Callable:
    """A compiled function (bytes, labels, key, β) → sums over the batch of loss, error and KL, which updates the model.

    Of several ranks each gives some images of the batch with their place in it (the number of the first, and how many
    there are in all), and all make the same update.
    """
    objective = objective or Elbo()

    def loss(x, labels, keys, beta, share):
        cost, terms = objective.cost(model, x, labels, keys, beta)
        return cost * share, terms.sum(axis=1)

    loss_and_gradients = nn.value_and_grad(model, loss)

    def step(images, labels, key, beta, place=None):
        first, count = place or (0, len(images))
        pixels, noise = (mx.random.split(one, count)[first : first + len(images)] for one in mx.random.split(key))
        x = to_floats(images, model.config, pixels)  # binary ones are sampled anew at every step
        (_, sums), gradients = loss_and_gradients(x, labels, noise, beta, len(images) / count)
        sums, gradients = ranks.sum_gradients((sums, gradients))
        optimizer.update(model, gradients)
        model.config.architecture.confine(model)
        return sums

    state = [model.state, optimizer.state]
    return mx.compile(step, inputs=state, outputs=state)
