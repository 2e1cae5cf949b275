"""The metrics of a trained model on a split, as dictionaries; words.py describes them."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from toolkit.datasets import Split
from toolkit.machine import ranks
from toolkit.metrics import bounds, latents
from toolkit.metrics.similarity import psnr
from toolkit.model import inference
from vae import VAE

ACTIVE = 0.01  # a dimension is active if the variance of its posterior mean over the data exceeds this


def with_error(values: np.ndarray) -> dict[str, float]:
    """The mean over images and its standard error."""
    spread = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": float(values.mean()), "standard_error": float(spread)}


def measure(*arguments: Any) -> dict[str, Any]:
    """All metrics of a model on a split, with the arguments of `measure_in_turn`."""
    return {name: value for part in measure_in_turn(*arguments) for name, value in part.items()}


def measure_in_turn(
    model: VAE, split: Split, train: Split | None, importance_samples: int, seed: int, batch_size: int
) -> Iterator[dict[str, Any]]:
    """The metrics of a model on a split, some at a time, as they are ready; without `train`, no classifiers."""
    likelihood, prior = model.likelihood, model.prior
    means, log_vars = inference.encode(model, split, batch_size)
    error, kl, squared, similar = bounds.single_sample_terms(model, split, seed, batch_size)
    elbo = likelihood.constant - error - kl
    first = {
        "images": len(split.images),
        "likelihood": likelihood.title,
        "constant": likelihood.constant,
        "prior": prior.words,
        "loss": with_error(error + kl),
        "elbo": with_error(elbo),
        "reconstruction": with_error(error),
        "kl": with_error(kl),
        "mean_squared_error": float(squared.mean()),
        "psnr": psnr(squared.mean()),
        "ssim": with_error(similar),
    }
    if (bits := likelihood.bits_per_dimension(elbo.mean())) is not None:
        first["bits_per_dimension"] = float(bits)
    yield first
    variances = means.var(axis=0)
    active = {"active_units": int((variances > ACTIVE).sum()), "latent_dims": model.config.latent_dims}
    yield active | {"variance_by_dimension": variances.tolist()}
    mutual_information, marginal_kl = latents.information(means, log_vars, prior, seed, split.labels)
    yield {"mutual_information": mutual_information}
    if not prior.by_class:
        yield {"marginal_kl": marginal_kl}
    if prior.by_dimension:
        yield {"kl_by_dimension": latents.kl_by_dimension(means, log_vars).tolist()}
    if train is not None:
        train_means, _ = inference.encode(model, train, batch_size)
        known = (train_means, train.labels, means, split.labels, len(split.class_names))
        yield {"linear_probe": latents.linear_probe(*known)}
        yield {"nearest_neighbours": latents.nearest_neighbours(*known)}
    if likelihood.is_distribution and importance_samples:
        own = ranks.share(np.arange(len(split.images)))
        bound = inference.importance_bound(model, split, importance_samples, seed, batch_size, own)
        bound = ranks.gather(bound, len(split.images))
        found = with_error(bound) | {"importance_samples": importance_samples}
        if (bits := likelihood.bits_per_dimension(bound.mean())) is not None:
            found["bits_per_dimension"] = float(bits)
        yield {"log_likelihood": found}
