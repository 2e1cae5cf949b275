"""The table of architectures, the configuration of a model, and `build`. A new architecture is one file and one row."""

import math
from collections import ChainMap
from dataclasses import asdict, dataclass, fields
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from toolkit.architectures.bounded import BOUNDED
from toolkit.architectures.convolutional import CONV
from toolkit.architectures.mlp import MLP
from toolkit.architectures.resnet import RESNET
from toolkit.architectures.row import Architecture
from toolkit.architectures.transpose import TRANSPOSE
from toolkit.errors import UserError
from toolkit.layers import forms
from toolkit.model.inputs import PIXELS
from toolkit.model.likelihoods import LIKELIHOODS
from toolkit.model.priors import PRIORS
from toolkit.options import count, from_values, number, option, options_of, text
from toolkit.wording import by_value
from vae import VAE

ARCHITECTURES = {row.name: row for row in (CONV, TRANSPOSE, MLP, RESNET, BOUNDED)}
OWN = {"net": ("arch", ARCHITECTURES), "prior_net": ("prior", PRIORS)}  # fields with options of rows, and their tables
MOST_PARAMETERS = 10**9


def widths_in_words() -> str:
    """The default of --max_filters."""
    others = {row.name: row.width for row in ARCHITECTURES.values() if row.width != CONV.width}
    return ", or ".join([str(CONV.width), *by_value(others)])


def sizes_in_words() -> str:
    """The help text of --image_size."""
    others = {row.name: row.multiple for row in ARCHITECTURES.values() if row.multiple not in (1, CONV.multiple)}
    return f"image side in pixels; a multiple of {CONV.multiple}, or {' or '.join(by_value(others))}"


@dataclass(frozen=True)
class ModelConfig:
    """Everything that defines a model: shapes, input format, likelihood. It is part of every checkpoint."""

    latent_dims: int = option(8, "size of the latent vector", "model", kind=count, common=True, aliases=("hidden_dim",))
    arch: str = option("conv", "", "model", kind=text, rows=lambda: ARCHITECTURES, common=True)
    max_filters: int | None = option(
        None, "filters of the widest layer", "model", kind=count, unit="N", default_text=widths_in_words
    )
    image_size: int = option(64, sizes_in_words, "model", kind=number(int, 1, 2**15), unit="N")
    fit: str = option(
        "crop",
        "own pictures that are not square: crop their sides, or pad them with white",
        "data",
        choices=("crop", "pad"),
    )
    channels: int = 1  # 1 for grey, 3 for colour
    num_classes: int = 0  # of a class-conditional model; 0 for others
    likelihood: str = option("mse", "", "objective", kind=text, rows=lambda: LIKELIHOODS, aliases=("likelihood_type",))
    binarize: str = option(
        "none",
        "pixels of 0 or 1: threshold (above 128), dynamic (sampled by brightness at each step), or none",
        "objective",
        choices=("none", "threshold", "dynamic"),
    )
    prior: str = option("normal", "p(z) in the KL term", "model", kind=text, rows=lambda: PRIORS)
    net: Any = None  # the architecture's own options
    prior_net: Any = None  # the prior's own options

    def __post_init__(self):
        tables = {"arch": ARCHITECTURES, "binarize": PIXELS, "likelihood": LIKELIHOODS, "prior": PRIORS}
        for name, known in tables.items():
            if (value := getattr(self, name)) not in known:
                raise UserError(f"{name} {value!r} is unknown — choose one of {', '.join(known)}")
        row = self.architecture
        if self.max_filters is None:
            object.__setattr__(self, "max_filters", row.width)
        for name, (selector, table) in OWN.items():
            Options = table[getattr(self, selector)].Options
            if getattr(self, name) is None and Options:
                object.__setattr__(self, name, Options())
            if type(getattr(self, name)) is not (Options or type(None)):
                chosen = f"--{selector} {getattr(self, selector)}"
                raise UserError(f"these options do not belong to {chosen} — leave them out")
        least = {"latent_dims": 1, "channels": 1, "num_classes": 0}
        for name, value in (least | {"max_filters": row.least_width, "image_size": row.least_size}).items():
            if (found := getattr(self, name)) < value:
                raise UserError(f"--{name} must be {value} or more with --arch {self.arch} — it is {found}")
        if self.image_size % row.multiple:
            below = self.image_size // row.multiple * row.multiple
            ways = f"use {below} or {below + row.multiple}, or another --arch"
            raise UserError(f"--image_size {self.image_size} is not a multiple of {row.multiple} — {ways}")

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.arch]

    @property
    def decoder_classes(self) -> int:
        """Classes the decoder is conditioned on."""
        return self.num_classes if self.architecture.decodes_classes else 0

    @property
    def pixels(self) -> int:
        """Values in one image."""
        return self.image_size**2 * self.channels

    @property
    def outputs(self) -> int:
        """Decoder outputs per pixel."""
        return self.channels * LIKELIHOODS[self.likelihood].outputs

    def values(self) -> dict[str, Any]:
        """All names and values, including the architecture's own options, as stored in files."""
        own = [asdict(getattr(self, name)) for name in OWN if getattr(self, name)]
        return {name: value for name, value in vars(self).items() if name not in OWN} | dict(ChainMap(*own))


def config_of(values: dict[str, Any]) -> ModelConfig:
    """The configuration with these values; raises ValueError or UserError if they are invalid."""
    shared, made = {name: value for name, value in values.items() if name not in OWN}, {}
    for name, (selector, table) in OWN.items():
        chosen = values.get(selector, getattr(ModelConfig, selector))
        row = table.get(chosen) if isinstance(chosen, str) else None
        own = {option for option, _, _ in options_of(row.Options)} & shared.keys() if row and row.Options else set()
        made[name] = from_values(row.Options, {option: shared.pop(option) for option in own}) if own else None
    config = from_values(ModelConfig, shared)
    return ModelConfig(**{field.name: getattr(config, field.name) for field in fields(config)} | made)


def build(config: ModelConfig) -> VAE:
    """A model with random weights, which are computed lazily."""
    row = config.architecture
    try:
        likelihood = LIKELIHOODS[config.likelihood](config.pixels, config.channels, config.binarize)
        prior = PRIORS[config.prior](config.latent_dims, config.decoder_classes, config.prior_net)
        model = VAE(config, row.encoder(config), row.decoder(config), likelihood, prior)
        fits = model.parameter_count() <= MOST_PARAMETERS
    except (OverflowError, ValueError, TypeError, RuntimeError):  # sizes beyond MLX's limits
        fits = False
    if not fits:
        raise UserError(
            f"a model of {config.max_filters} filters, {config.latent_dims} latent dims and {config.image_size}×"
            f"{config.image_size} pixels has more than a billion parameters — use smaller numbers"
        )
    return model


def layers(model: VAE) -> tuple[list[forms.Call], list[forms.Call]]:
    """The layer calls of encoder and decoder in order, recorded with an image and a latent vector of zeros."""
    config, was_training = model.config, model.training
    model.eval()  # in training mode, the zeros would enter batch norm's statistics
    labels = mx.zeros(1, dtype=mx.int32) if config.num_classes else None
    with forms.recording() as encoder:
        model.encoder(mx.zeros((1, config.image_size, config.image_size, config.channels)), labels)
    with forms.recording() as decoder:
        model.decoder(mx.zeros((1, config.latent_dims)), labels)
    model.train(was_training)
    return encoder, decoder


def slow_channels(model: VAE) -> list[int]:
    """Channel counts for which MLX has no fast convolution on a GPU: above 4 in or 16 out, and no multiple of 16."""
    shapes = [part.weight.shape for part in model.modules() if isinstance(part, nn.Conv2d)]
    counts = {channels for *_, channels in shapes if channels > 4} | {out for out, *_ in shapes if out > 16}
    return sorted(count for count in counts if count % 16)


def activations(model: VAE) -> int:
    """A lower bound on the activations that a training step stores per image."""
    return sum(math.prod(call.shape) for calls in layers(model) for call in calls)
