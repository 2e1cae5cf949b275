"""Opening the model and the data that flags name, with the options that several commands have in common."""

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.files.targets import check_target
from toolkit.formats import hub
from toolkit.options import count, integer, number, option, path, text
from toolkit.shell.parser import Typed
from toolkit.training.plan import COLLAPSED_KL, dataset_option, limit_option, seed_option
from toolkit.wording import counted

ROOT = Path(__file__).resolve().parents[2]
COLLAPSED = f"the latents carry no information about the images (posterior collapse: KL below {COLLAPSED_KL:g})"
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


@dataclass(frozen=True)
class Opened:
    """A model as a command has opened it."""

    checkpoint: Any
    path: Path
    device: str  # in words
    name: str  # for people, without a path

    @property
    def model(self) -> Any:
        return self.checkpoint.model


def start_device(typed: Typed, together: bool = False) -> str:
    """Start the device that flags ask for, `together` with other ranks where a command can; returns its name."""
    from toolkit.machine import device

    return device.start(typed.of(DeviceOptions).cpu, together)


def open_model(typed: Typed, together: bool = False) -> Opened:
    """Start the device and load the model of --model."""
    device_name = start_device(typed, together)
    from toolkit.formats import checkpoint
    from toolkit.machine import ranks

    options = typed.of(ModelOptions)
    path = ranks.leader_first(lambda: find_model(options.model))
    loaded = checkpoint.load(path)
    config = loaded.model.config
    for flag, has in (
        ("latent_dims", config.latent_dims),
        ("max_filters", config.max_filters),
        ("nimg_channels", config.channels),
    ):
        asked = getattr(options, flag)
        if asked is not None and asked != has:
            raise UserError(f"--{flag} {asked} contradicts {options.model}, which has {has} — leave the flag out")
    if loaded.collapsed:
        print(f"Warning: in this model {COLLAPSED}", file=sys.stderr)
    return Opened(loaded, path, device_name, public_name(options.model))


def prior_of(opened: Opened, asked: str | None) -> Any:
    """The prior of a model that a flag asks for; without one, what was fitted to it, or else that of its training."""
    checkpoint = opened.checkpoint
    if asked == "mixture" and checkpoint.sampler is None:
        raise UserError(f"{opened.path} has no mixture — convert.py --fit_prior adds one")
    return checkpoint.prior if asked in (None, "mixture") else checkpoint.model.prior


def sampler_of(typed: Typed, opened: Opened) -> Any:
    """How flags ask for latent vectors to be drawn: a Sampler."""
    from toolkit.pictures.sampling import Sampler

    options = typed.of(PriorOptions)
    prior, seed = prior_of(opened, options.prior), typed.of(SeedOptions).seed
    return Sampler(prior, options.temperature, seed, noisy=options.pixels == "sample")


def find_model(name: str) -> Path:
    """Where a model is; the shipped ones are found wherever a command is called from, those of the Hub are fetched."""
    if hub.is_name(name):
        return hub.fetch(name)
    here, shipped = Path(name), ROOT / name
    return shipped if not here.exists() and shipped.exists() else here


def public_name(model: str) -> str:
    """The name of a model as it may travel in files for others."""
    return model if hub.is_name(model) else Path(os.path.abspath(model)).name


def dataset_of(typed: Typed, opened: Opened) -> str:
    """The full name of the data set to use with a model: the one asked for, or what the model was trained on."""
    from toolkit import datasets

    asked = typed.of(DataOptions).dataset
    return datasets.full_name(asked) if asked else trained_on(opened.path, opened.checkpoint.dataset)


def trained_on(model_file: Path, dataset: str | None) -> str:
    """The full name of the data set that a model was trained on, by the name in its file.

    A file from elsewhere does not choose a folder of its reader: one that our run has read is named by the run's state.
    """
    from toolkit import datasets
    from toolkit.formats import checkpoint

    name = datasets.full_name(dataset or "mnist")
    if ":" not in name:
        return name
    state = model_file.with_suffix("") / "state.npz"
    remembered = checkpoint.read(state).facts if state.is_file() else {}
    own = remembered.get("options", {}).get("dataset", "")
    if datasets.public_name(own) != datasets.public_name(name) or remembered.get("folder") != datasets.inode_of(own):
        where = datasets.public_name(name).partition(":")[2]
        raise UserError(f"{model_file} was trained on a folder {where} — name the pictures: --dataset folder:PATH")
    return own


def load_split(typed: Typed, dataset: str, split: str, limit: int | None, image_size: int, channels: int | None) -> Any:
    """One split of a data set; says so if files had to be left out."""
    from toolkit import datasets

    place = typed.of(PlaceOptions)
    data_dir = place.data_dir or os.environ.get("VAE_DATA_DIR") or "data"
    loaded = datasets.load(dataset, split, data_dir, limit, image_size, channels, place.cache_dir)
    if loaded.left_out and split == "train":
        print(f"Left out: {counted(loaded.left_out, 'picture')} that this toolkit made")
    say_skipped(loaded, f"{split} pictures")
    return loaded


def say_skipped(loaded: Any, what: str) -> None:
    if count := len(loaded.skipped):
        file, why = loaded.skipped[0]
        print(f"Skipped {count} of {loaded.total} {what} that cannot be read, such as {file!r}: {why}")


def load_for(typed: Typed, opened: Opened, split: str) -> Any:
    """One split as a model wants it: of its size and channels, with the classes that it knows."""
    dataset, config = dataset_of(typed, opened), opened.model.config
    loaded = load_split(typed, dataset, split, typed.of(DataOptions).limit, config.image_size, config.channels)
    if not (classes := config.num_classes):
        return loaded
    if loaded.labels is None:
        raise UserError(f"the model needs labels and {dataset} has none — take a data set with {classes} classes")
    numbers = tuple(map(str, range(classes)))  # stand for names in files that have none
    if len(loaded.classes) != classes or opened.checkpoint.class_names not in (tuple(loaded.classes), numbers):
        raise UserError(
            f"the model has {classes} classes and {dataset} has {len(loaded.classes)} others — take the data set it "
            "was trained on"
        )
    return loaded


def load_pictures(opened: Opened, paths: Sequence[str], label: str | None = None) -> Any:
    """Picture files as a model wants them: cropped as what it was trained on, with the classes that it knows.

    The class of a picture is `label`, or else the sub-folder in which it was found.
    """
    import numpy as np

    from toolkit import datasets
    from toolkit.pictures.sampling import class_number

    model, checkpoint = opened.model, opened.checkpoint
    if (channels := model.config.channels) not in (1, 3):
        raise UserError(f"this model sees {channels} channels, pictures have 1 or 3 — see vae.py for arrays")
    asked = class_number(checkpoint, label, encoding=True)
    loaded = datasets.load_files(paths, model.config.image_size, channels, checkpoint.dataset)
    say_skipped(loaded, "pictures")
    if not (known := checkpoint.class_names):
        return loaded
    found = [""] * len(loaded.images) if loaded.labels is None else [loaded.classes[i] for i in loaded.labels]
    for name, folder in zip(loaded.names, found, strict=True):
        if asked is None and folder not in known:
            raise UserError(f"{name}: the model needs its class — give --label, or name a folder of such sub-folders")
    labels = [known.index(folder) if asked is None else asked for folder in found]
    return loaded._replace(labels=np.array(labels, np.int32), classes=known)


def check_effects(typed: Typed, names: Collection[str], on: str) -> None:
    """Stop where a flag was typed that has no effect on what is to be done."""
    for name in names:
        if name in typed:
            raise UserError(f"--{name} has no effect on {on} — leave it out")


def check_targets(typed: Typed, kind: str, paths: Iterable[Path | str], *inputs: str | None) -> None:
    """Stop before the work where its results would replace what they may not; `inputs` are files besides the model."""
    if typed.of(WriteOptions).overwrite:
        return
    model = typed.of(ModelOptions).model
    read = [*filter(None, inputs), *([] if hub.is_name(model) else [find_model(model)])]
    for target in paths:
        check_target(target, kind, read)
