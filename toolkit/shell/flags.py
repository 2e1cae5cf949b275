"""Options that several commands share, and the check of their output files. Imports little, as help pages need it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from toolkit.files.targets import check_target
from toolkit.files.writing import is_stream
from toolkit.options import DATASETS, count, directory, number, option, path, seed, whole, word

DEFAULT_MODEL = "pretrained/vae_mnist_filters_0064_dims_0008.npz"
FITTED = ("mixture", "flow")  # priors that can be fitted after training
REPLACING = ("codes", "vis_lat_space")  # options of generate.py that replace sampling


def checking_option(kind: Any) -> Any:
    """A flag of earlier systems that is only checked against the checkpoint."""
    return option(None, "must match the checkpoint", "model", kind=kind, hidden=True)


def prior_option(about: str, **more: Any) -> Any:
    about += ": mixture or flow, fitted after training; normal or flow, used in training"
    return option(None, about, "sampling", kind=word, unit="PRIOR", **more)


@dataclass(frozen=True)
class ModelOptions:
    """The model; flags of earlier systems are checked against it."""

    model: str = option(
        DEFAULT_MODEL,
        "file or folder, conditional, cifar-10, last (newest in models/), or hf:org/name",
        "model",
        kind=path,
        unit="MODEL",
        common=True,
        default_text="the included MNIST model",
        aliases=("checkpoint_path",),
    )
    latent_dims: int | None = checking_option(count)
    max_filters: int | None = checking_option(count)
    nimg_channels: int | None = checking_option(whole)


@dataclass(frozen=True)
class PlaceOptions:
    data_dir: str | None = option(None, "the data sets", "data", kind=directory, default_text="$VAE_DATA_DIR, or data")
    cache_dir: str | None = option(None, "decoded images", "data", kind=directory, default_text="DATA_DIR/cache")


@dataclass(frozen=True)
class DataOptions:
    dataset: str | None = option(None, DATASETS, "data", common=True, default_text="the training data set")
    limit: int | None = option(None, "use only the first N images of each split", "data", kind=count, common=True)


@dataclass(frozen=True)
class LabelOptions:
    label: str | None = option(None, "their class", "data", kind=word, default_text="sub-folder", only_with=("images",))


@dataclass(frozen=True)
class SeedOptions:
    seed: int = option(0, "random seed", "sampling", kind=seed, common=True, not_with=("vis_lat_space",))


@dataclass(frozen=True)
class PriorOptions:
    prior: str | None = prior_option("prior of samples", default_text="the fitted one, if any", not_with=REPLACING)
    temperature: float = option(
        1.0,
        "scale of the latent noise; below 1, samples are cleaner and less varied",
        "sampling",
        kind=number(float, 0, 1000),
        common=True,
        not_with=REPLACING,
    )
    pixels: str = option(
        "mean",
        "mean: the expected pixels; sample: drawn from the likelihood",
        "sampling",
        choices=("mean", "sample"),
        not_with=("vis_lat_space",),
    )


@dataclass(frozen=True)
class WriteOptions:
    overwrite: bool = option(False, "replace existing files of any kind", "output")


@dataclass(frozen=True)
class PictureOptions(WriteOptions):
    open: bool = option(False, "open the result in the system's viewer", "output")


@dataclass(frozen=True)
class DeviceOptions:
    cpu: bool = option(False, "use the CPU even if there is a GPU", "general")


def show(write: PictureOptions, path: Path | str) -> None:
    """With --open, open a file in the system's viewer without waiting; pipes are not opened."""
    if not write.open or is_stream(path):
        return
    if not (viewer := shutil.which("open" if sys.platform == "darwin" else "xdg-open")):
        return print(f"--open: no viewer found (xdg-open); the file is {path}", file=sys.stderr)
    line = ["/bin/sh", "-c", '"$0" "$1" &', viewer, os.path.abspath(path)]
    with suppress(OSError):
        subprocess.run(line, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)


def check_targets(write: WriteOptions, kind: str, paths: Iterable[Path | str], *inputs: str | None) -> None:
    """Raise UserError if writing files of a kind would replace others, or one of the command's `inputs`."""
    for target in () if write.overwrite else paths:
        check_target(target, kind, list(filter(None, inputs)))
