"""A model in words, from its configuration and its facts: for train.py's options, `generate.py --info` and reports."""

from typing import Any

from toolkit.model.inputs import PIXELS
from toolkit.wording import counted
from vae import VAE, ModelConfig


def architecture(config: ModelConfig) -> str:
    """What the encoder and the decoder are made of."""
    known = config.architecture
    labels = f"conditional on {config.classes} classes" if config.decoder_classes else ""
    return ", ".join(filter(None, (known.words, known.detail(config), labels)))


def images(config: ModelConfig) -> str:
    """Size and colours of the images."""
    colours = {1: "grey", 3: "colour"}.get(config.channels, f"{config.channels} channels")
    pixels = PIXELS[config.binarize].words
    return f"{config.image_size}×{config.image_size}, {colours}" + (f", {pixels}" if pixels else "")


def model_rows(model: VAE) -> list[tuple[str, str]]:
    """Title and words of all that its configuration says of a model."""
    config = model.config
    return [
        ("Images", images(config)),
        ("Architecture", architecture(config)),
        ("Latent dimensions", str(config.latent_dims)),
        ("Filters", str(config.max_filters)),
        ("Likelihood", f"{model.likelihood.words} ({config.likelihood})"),
        ("Parameters", f"{model.parameter_count():,}"),
        *([("Fitted prior", model.mixture.words)] if model.mixture else []),
    ]


def fact_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Title and words of what a checkpoint says besides."""
    rows = [("Data set", facts.get("dataset", "unknown"))]
    if facts.get("classes"):
        rows.append(("Classes", ", ".join(map(str, facts["classes"]))))
    if "epoch" in facts:
        rows.append(("Trained for", counted(facts["epoch"], "epoch")))
    if "test_loss" in facts:
        rows.append(("Test loss", f"{facts['test_loss']:g}, as its training measured it"))
    for title, values in (("Options", facts.get("options", {})), ("Test metrics per image", facts.get("test", {}))):
        said = [f"{name} {round(v, 4) if isinstance(v, float) else v}" for name, v in values.items() if v is not None]
        if said:
            rows.append((title, ", ".join(said)))
    return [(title, " ".join(words.split())) for title, words in rows]
