"""Opening a model: its file, by any of its names, the device that it runs on, and the prior of its samples."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UserError, warn
from toolkit.formats import checkpoint, hub
from toolkit.formats.checkpoint import Checkpoint
from toolkit.machine import device, ranks
from toolkit.shell.flags import FITTED, DeviceOptions, ModelOptions
from toolkit.training.plan import COLLAPSED_KL
from vae import VAE

ROOT = Path(__file__).resolve().parents[2]
RUNS, INCLUDED, LAST = "models", "pretrained", "last"
ENDINGS = (*checkpoint.ENDINGS, ".pth")
COLLAPSED = f"the latents carry no information about the images (posterior collapse: KL below {COLLAPSED_KL:g})"


@dataclass(frozen=True)
class Opened:
    """An open model."""

    checkpoint: Checkpoint
    path: Path
    device: str  # in words
    name: str  # display name, without a path

    @property
    def model(self) -> VAE:
        return self.checkpoint.model


def open_model(options: ModelOptions, on: DeviceOptions, together: bool = False) -> Opened:
    """Start the device and load a model; `together` with other ranks if the command supports them."""
    device_name = device.start(on.cpu, together)
    path = ranks.leader_first(lambda: find_model(options.model))
    loaded = checkpoint.load(path)
    config = loaded.model.config
    values = {"latent_dims": config.latent_dims, "max_filters": config.max_filters, "nimg_channels": config.channels}
    for flag, has in values.items():
        asked = getattr(options, flag)
        if asked is not None and asked != has:
            raise UserError(f"--{flag} {asked} contradicts {options.model}, which has {has} — leave the flag out")
    if loaded.collapsed:
        warn(f"in this model {COLLAPSED}")
    return Opened(loaded, path, device_name, shared_name(options.model, path))


def prior_of(opened: Opened, asked: str | None) -> Any:
    """The prior selected by a flag; by default the fitted prior or, without one, the training prior."""
    priors = {prior.name: prior for prior in reversed(opened.checkpoint.priors)}  # of one name, the fitted one
    if asked is None:
        return opened.checkpoint.prior
    if asked not in priors:
        ways = "convert.py --fit_prior adds one" if asked in FITTED else f"choose {' or '.join(priors)}"
        raise UserError(f"{opened.path} has no prior named {asked} — {ways}")
    return priors[asked]


# Names of models as people type them


def find_model(name: str) -> Path:
    """The file or folder of a model, by path, `last`, the name of a run, or that of an included model.

    A model of the Hub is fetched. Prints what a short name stands for.
    """
    if hub.is_name(name):
        return hub.fetch(name)
    places = [Path(folder, name) for folder in ("", ROOT, RUNS, INCLUDED, ROOT / INCLUDED)]
    place = next((place for place in places if place.exists()), None)
    found = model_in(place, name) if place else last_model() if name == LAST else included(name)
    if found not in places[:2]:
        print(f"{name} is {found}")
    return found


def model_in(place: Path, name: str) -> Path:
    """The model of a file or folder: next to a run's folder, or the only one in another folder."""
    if not place.is_dir() or hub.is_folder(place):
        return place
    beside, models = model_of(place), models_in(place)
    if beside.is_file() and ((place / "state.npz").exists() or not models):
        return beside
    if not models:
        within = [path for folder in sorted(place.iterdir()) if folder.is_dir() for path in models_in(folder)]
        ways = f"name one, such as {within[0]}" if within else "name a file"
        raise UserError(f"{place} is a folder without a model — {ways}")
    return only(models, name)


def model_of(run: Path) -> Path:
    """The model of a run, beside its folder."""
    return run.parent / f"{run.name}.npz"


def models_in(folder: Path) -> list[Path]:
    """The models directly in a folder."""
    return sorted(path for path in folder.glob("[!.]*") if path.suffix in ENDINGS and path.name != "state.npz")


def included(word: str) -> Path:
    """The included model of a data set: `cifar-10`, `likelihood/mnist`."""
    folder, _, dataset = word.rpartition("/")
    root = Path() if Path.cwd() == ROOT else ROOT
    models = models_in(root / INCLUDED / folder) if "\0" not in word else []
    if models := [path for path in models if dataset and path.name.startswith(f"vae_{dataset}_")]:
        return only(models, word)
    names = included_names()
    own = [path for pattern in ("*", "*/*") for path in Path(RUNS).glob(pattern)]
    known = {str(path): str(path) for path in own if path.is_dir() or path.suffix in ENDINGS}
    known |= {path.name: str(path) for path in own if path.suffix in ENDINGS} | {name: name for name in [LAST, *names]}
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    others = f"name a file, a run's folder, {LAST}, or one of {', '.join(names)}"
    raise UserError(f"no such file or model: {word} — {f'did you mean {known[near[0]]}?' if near else others}")


def included_names() -> list[str]:
    """The short names of the included models that stand for one model: `conditional`, `likelihood/mnist`."""
    files = [path.relative_to(ROOT / INCLUDED) for path in (ROOT / INCLUDED).rglob("*.npz")]
    homes = [path.parent for path in files]
    names = [str(Path(home, path.name.split("_")[1])) for home, path in zip(homes, files, strict=True)]
    names = [str(home) if homes.count(home) == 1 else name for home, name in zip(homes, names, strict=True)]
    return sorted(name for name in names if names.count(name) == 1)


def only(models: list[Path], word: str) -> Path:
    """The one model; an error that lists them if there are several."""
    if len(models) > 1:
        names = [str(path).removeprefix(f"{ROOT}/").removeprefix(f"{INCLUDED}/") for path in models[:8]]
        raise UserError(f"{word} matches {len(models)} models — name one of {', '.join(names)}")
    return models[0]


def last_model() -> Path:
    """The model of the run under models/ that was saved last."""
    states = [path for depth in ("*", "*/*", "*/*/*") for path in Path(RUNS).glob(f"{depth}/state.npz")]
    runs = [path for path in states if model_of(path.parent).is_file()]
    if not runs:
        raise UserError(f"there is no model in {RUNS}/ yet — train one, or name a file")
    return model_of(max(runs, key=lambda path: path.stat().st_mtime_ns).parent)


def find_run(name: str) -> Path:
    """The folder or the log of a run, by its own name or that of its model: `last`, `models/b1`."""
    place = Path(name)
    if place.exists() and place.suffix not in ENDINGS and not (place.is_dir() and models_in(place)):
        return place
    return find_model(name).with_suffix("")


def shared_name(name: str, path: Path) -> str:
    """The name of a model, safe to publish in files."""
    return name if hub.is_name(name) else Path(os.path.abspath(path)).name
