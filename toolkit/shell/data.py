"""Load the images that a command needs: a split of a data set, or picture files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit import datasets
from toolkit.architectures import ModelConfig
from toolkit.datasets import Split
from toolkit.datasets.tree import in_words
from toolkit.errors import UserError
from toolkit.files.progress import bar
from toolkit.formats import checkpoint
from toolkit.formats.checkpoint import Checkpoint
from toolkit.formats.labels import class_number
from toolkit.shell.flags import PlaceOptions
from toolkit.shell.opening import Opened
from toolkit.wording import public_name


def dataset_of(opened: Opened, asked: str | None) -> str:
    """The full name of the data set to use with a model: the given one, or the one it was trained on."""
    return datasets.full_name(asked) if asked else trained_on(opened.path, opened.checkpoint.dataset)


def trained_on(model_file: Path, dataset: str | None) -> str:
    """The full name of the data set that a model was trained on, from its metadata.

    A third-party file must not select a local folder: only the state of a run on this machine can name one.
    """
    name = datasets.full_name(dataset or "mnist")
    if ":" not in name:
        return name
    run = checkpoint.run_folder(model_file)
    facts = checkpoint.read(run / "state.npz").facts if run and (run / "state.npz").is_file() else {}
    own = facts.get("options", {}).get("dataset", "")
    if public_name(own) != public_name(name) or facts.get("folder") != datasets.inode_of(own):
        where = public_name(name).partition(":")[2]
        raise UserError(f"{model_file} was trained on a folder {where} — add --dataset folder:PATH")
    return own


def load_split(
    dataset: str, split: str, place: PlaceOptions, limit: int | None, image_size: int, channels: int | None, fit: str
) -> Split:
    """Load one split of a data set; prints which files were left out."""
    data_dir = place.data_dir or os.environ.get("VAE_DATA_DIR") or "data"
    with bar(None, f"Loading {public_name(dataset)}"):
        loaded = datasets.load(dataset, split, data_dir, limit, image_size, channels, place.cache_dir, fit)
    print_left_out(loaded, "" if split == "train" else f" of the {split} pictures")
    return loaded


def print_left_out(loaded: Split, of: str = "") -> None:
    """Print the files that were left out: other kinds once, with the training pictures, damaged ones for each split."""
    damaged = ""
    if count := len(loaded.skipped):
        file, why = loaded.skipped[0]
        damaged = f"{count} damaged ({file}: {why}{'; …' if count > 1 else ''})"
    if words := in_words({} if of else loaded.left_out, damaged):
        print(f"Left out{of}: {words}")


def load_for(checkpoint: Checkpoint, dataset: str, split: str, place: PlaceOptions, limit: int | None = None) -> Split:
    """Load one split for a model: with its size, channels and classes."""
    config = with_colours(checkpoint)
    loaded = load_split(dataset, split, place, limit, config.image_size, config.channels, config.fit)
    if not (classes := config.num_classes):
        return loaded
    if loaded.labels is None:
        raise UserError(f"the model needs labels and {dataset} has none — use a data set with {classes} classes")
    numbers = tuple(map(str, range(classes)))  # used as names in files without names
    if len(loaded.class_names) != classes or checkpoint.class_names not in (tuple(loaded.class_names), numbers):
        others = f"{dataset} has {len(loaded.class_names)} others"
        raise UserError(f"the model has {classes} classes and {others} — take the data set it was trained on")
    return loaded


def with_colours(checkpoint: Checkpoint) -> ModelConfig:
    """The configuration of a model; raises UserError unless it has 1 or 3 channels."""
    config = checkpoint.model.config
    if config.channels not in (1, 3):
        raise UserError(f"the model has {config.channels} channels, pictures have 1 or 3 — see vae.py for arrays")
    return config


def load_pictures(checkpoint: Checkpoint, paths: Sequence[str], label: str | None = None) -> Split:
    """Load picture files for a model: cropped like its training images, with its classes.

    The class of a picture is `label` or, without it, its sub-folder.
    """
    config = with_colours(checkpoint)
    asked = class_number(checkpoint, label, encoding=True)
    loaded = datasets.load_files(paths, config.image_size, config.channels, checkpoint.dataset, config.fit)
    print_left_out(loaded)
    if not (known := checkpoint.class_names):
        return loaded
    found = [""] * len(loaded.images) if loaded.labels is None else [loaded.class_names[i] for i in loaded.labels]
    for name, folder in zip(loaded.names, found, strict=True):
        if asked is None and folder not in known:
            raise UserError(f"{name}: the model needs a label — give --label, or a folder with a sub-folder per class")
    labels = [known.index(folder) if asked is None else asked for folder in found]
    return loaded._replace(labels=np.array(labels, np.int32), class_names=known)
