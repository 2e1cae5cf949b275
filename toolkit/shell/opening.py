"""Opening a model: where its file is, the device that it runs on, and the prior that its samples come from."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.formats import checkpoint, hub
from toolkit.formats.checkpoint import Checkpoint
from toolkit.machine import device, ranks
from toolkit.shell.flags import DeviceOptions, ModelOptions
from toolkit.training.plan import COLLAPSED_KL
from vae import VAE

ROOT = Path(__file__).resolve().parents[2]
COLLAPSED = f"the latents carry no information about the images (posterior collapse: KL below {COLLAPSED_KL:g})"


@dataclass(frozen=True)
class Opened:
    """A model as a command has opened it."""

    checkpoint: Checkpoint
    path: Path
    device: str  # in words
    name: str  # for people, without a path

    @property
    def model(self) -> VAE:
        return self.checkpoint.model


def open_model(options: ModelOptions, on: DeviceOptions, together: bool = False) -> Opened:
    """Start the device and load a model; `together` with other ranks where a command can."""
    device_name = device.start(on.cpu, together)
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


def find_model(name: str) -> Path:
    """Where a model is; the shipped ones are found wherever a command is called from, those of the Hub are fetched."""
    if hub.is_name(name):
        return hub.fetch(name)
    here, shipped = Path(name), ROOT / name
    return shipped if not here.exists() and shipped.exists() else here


def public_name(model: str) -> str:
    """The name of a model as it may travel in files for others."""
    return model if hub.is_name(model) else Path(os.path.abspath(model)).name
