"""Descriptions of a model and its checkpoint, for train.py, `generate.py --info` and reports."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from toolkit.architectures import ModelConfig
from toolkit.formats.checkpoint import Checkpoint
from toolkit.model.inputs import PIXELS
from toolkit.wording import counted, shown_name
from vae import VAE

TELLING = (  # options by which people tell models apart
    *("dataset", "conditional", "arch", "latent_dims", "max_filters", "image_size", "likelihood", "binarize"),
    *("objective", "prior", "beta", "free_bits", "recipe", "epochs", "seed"),
)


def architecture(config: ModelConfig) -> str:
    """Encoder and decoder in words."""
    own = [f"{name} {value}" for name, value in (asdict(config.net) if config.net else {}).items()]
    labels = [f"conditional on {config.num_classes} classes"] if config.num_classes else []
    return ", ".join([config.architecture.words, *own, *labels])


def images(config: ModelConfig) -> str:
    """A description of the images' size and colours."""
    colours = {1: "grey", 3: "colour"}.get(config.channels, f"{config.channels} channels")
    pixels = PIXELS[config.binarize].words
    return f"{config.image_size}×{config.image_size}, {colours}" + (f", {pixels}" if pixels else "")


def model_rows(model: VAE) -> list[tuple[str, str]]:
    """Title and text of each part of a model's configuration."""
    config = model.config
    return [
        ("Images", images(config)),
        ("Architecture", architecture(config)),
        ("Latent dimensions", str(config.latent_dims)),
        ("Filters", str(config.max_filters)),
        ("Likelihood", f"{model.likelihood.words} ({config.likelihood})"),
        *([("Prior", model.prior.words)] if config.prior != ModelConfig.prior else []),
        ("Parameters", f"{model.parameter_count():,}"),
    ]


def checkpoint_rows(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Title and text of a checkpoint's metadata."""
    rows = model_rows(checkpoint.model)
    if checkpoint.sampler:
        rows.append(("Fitted prior", checkpoint.sampler.words))
    rows.append(("Data set", checkpoint.dataset or "unknown"))
    if checkpoint.class_names:
        rows.append(("Classes", ", ".join(checkpoint.class_names)))
    if (epoch := checkpoint.epoch) is not None:
        of = checkpoint.options.get("epochs", epoch)
        rows.append(("Trained for", counted(epoch, "epoch") if of == epoch else f"epoch {epoch} of {of:g}"))
    for title, values in (("Options", checkpoint.options), ("Test metrics per image", checkpoint.test)):
        said = [f"{name} {round(v, 4) if isinstance(v, float) else v}" for name, v in values.items() if v is not None]
        if said:
            rows.append((title, ", ".join(said)))
    return [(title, " ".join(words.split())) for title, words in rows]


SETTINGS = {"beta": "β {}", "latent_dims": "{} dims", "max_filters": "{} filters", "epochs": "{} epochs"}


def setting(name: str, value: object) -> str:
    """An option of training in words: `β 4`, `8 dims`, `objective iwae`."""
    if name == "conditional":
        return "by class" if value else ""
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return shown_name(shown) if name == "dataset" else SETTINGS.get(name, f"{name} {{}}").format(shown)


def in_words(dataset: str, latent_dims: int, by_class: bool, options: dict[str, Any]) -> str:
    """A model in a few words: `MNIST by class, 8 latent dimensions, β 1`."""
    parts = [(shown_name(dataset) or "unknown data") + (" by class" if by_class else "")]
    parts += [counted(latent_dims, "latent dimension")]
    return ", ".join(parts + ([setting("beta", options["beta"])] if "beta" in options else []))


def told_apart(known: Sequence[dict[str, Any]], otherwise: Sequence[str]) -> list[str]:
    """Names for runs or models from their options: the settings in which they differ or, if these do not tell them
    apart, other names."""
    names = dict.fromkeys(name for each in known for name in each)
    differ = [name for name in names if len({str(each.get(name)) for each in known}) > 1]
    differ = [name for name in TELLING if name in differ] or differ
    short = [", ".join(filter(None, (setting(name, each[name]) for name in differ if name in each))) for each in known]
    return short if len(set(short)) == len(otherwise) else list(otherwise)


def title(checkpoint: Checkpoint, dataset: str = "", label: str | None = None) -> str:
    """The same of a checkpoint, with the class that is shown, if any; `dataset` is used if it names none."""
    config, of = checkpoint.model.config, f", class {label}" if label else ""
    name = checkpoint.dataset or dataset
    return in_words(name, config.latent_dims, bool(config.num_classes), checkpoint.options) + of
