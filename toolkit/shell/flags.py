"""The options that several commands share, and the checks that go with them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.files.targets import check_target
from toolkit.options import count, integer, number, option, path, text
from toolkit.shell.parser import Typed
from toolkit.training.plan import dataset_option, limit_option, seed_option

DEFAULT_MODEL = "pretrained/vae_mnist_filters_0064_dims_0008.npz"


@dataclass(frozen=True)
class ModelOptions:
    """Which model; its file says the rest, and two flags of earlier systems are checked against it."""

    model: str = option(
        DEFAULT_MODEL,
        "checkpoint: .npz, .safetensors or .pth; a folder for the Hugging Face Hub; or hf:org/name on it",
        "model",
        kind=path,
        unit="FILE",
        aliases=("checkpoint_path",),
    )
    latent_dims: int | None = option(None, "must match the checkpoint", "model", kind=count, unit="N", hidden=True)
    max_filters: int | None = option(None, "must match the checkpoint", "model", kind=count, unit="N", hidden=True)
    nimg_channels: int | None = option(None, "must match the checkpoint", "model", kind=integer, unit="N", hidden=True)


@dataclass(frozen=True)
class PlaceOptions:
    """Where data sets lie."""

    data_dir: str | None = option(
        None,
        "folder of the data sets, to which missing ones are downloaded",
        "data",
        kind=path,
        unit="DIR",
        default_text="the variable VAE_DATA_DIR, or data",
    )
    cache_dir: str | None = option(
        None, "folder for decoded pictures", "data", kind=path, unit="DIR", default_text="DATA_DIR/cache"
    )


@dataclass(frozen=True)
class DataOptions:
    """Which data, for a trained model."""

    dataset: str | None = dataset_option(None, "the one that the model was trained on")
    limit: int | None = limit_option()


@dataclass(frozen=True)
class SeedOptions:
    seed: int = seed_option("sampling")


def prior_option(default: str | None, about: str, default_text: str = "") -> Any:
    about += ". mixture: the Gaussians that were fitted to the training images; normal: the prior of the training"
    return option(default, about, "sampling", kind=text, choices=("mixture", "normal"), default_text=default_text)


@dataclass(frozen=True)
class PriorOptions:
    """What samples are drawn from."""

    prior: str | None = prior_option(None, "what latent vectors are drawn from", "mixture if the model has one")
    temperature: float = option(
        1.0,
        "scale of the noise of latent vectors; below 1 cleaner and less varied",
        "sampling",
        kind=number(float, 0, 1000),
        unit="X",
    )
    pixels: str = option(
        "mean",
        "mean: what the likelihood expects of each pixel; sample: with the noise that it gives them",
        "sampling",
        kind=text,
        choices=("mean", "sample"),
    )


@dataclass(frozen=True)
class WriteOptions:
    overwrite: bool = option(False, "replace files that are there, of any kind", "output")


@dataclass(frozen=True)
class DeviceOptions:
    cpu: bool = option(False, "use the CPU even if there is a GPU", "device")


def check_effects(typed: Typed, names: Collection[str], on: str) -> None:
    """Stop where a flag was typed that has no effect on what is to be done."""
    for name in names:
        if name in typed:
            raise UserError(f"--{name} has no effect on {on} — leave it out")


def check_targets(write: WriteOptions, kind: str, paths: Iterable[Path | str], *inputs: str | None) -> None:
    """Raise if writing files of a kind would replace others, or one of `inputs`, the files that the command reads."""
    for target in () if write.overwrite else paths:
        check_target(target, kind, list(filter(None, inputs)))
