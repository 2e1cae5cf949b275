"""All metrics of a trained model on a split, as a dictionary; words.py describes them."""

import math
from typing import Any

import numpy as np

from toolkit.datasets import Split
from toolkit.machine import ranks
from toolkit.metrics import bounds, latents
from toolkit.metrics.similarity import psnr
from toolkit.model import inference
from toolkit.model.priors import Prior
from vae import VAE

ACTIVE = 0.01  # a dimension is active if the variance of its posterior mean over the data exceeds this


def with_error(values: np.ndarray) -> dict[str, float]:
    """The mean over images and its standard error."""
    spread = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": float(values.mean()), "standard_error": float(spread)}


def measure(
    model: VAE, split: Split, train: Split | None, importance_samples: int, seed: int, batch_size: int
) -> dict[str, Any]:
    """All metrics of a model on a split; without `train`, those of the classifiers are left out."""
    likelihood, prior = model.likelihood, model.prior
    means, log_vars = inference.encode(model, split, batch_size)
    error, kl, squared, similar = bounds.single_sample_terms(model, split, seed, batch_size)
    elbo = likelihood.constant - error - kl
    mutual_information, marginal_kl = latents.information(means, log_vars, prior, seed, split.labels)
    variances = means.var(axis=0)
    metrics = {
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
        "active_units": int((variances > ACTIVE).sum()),
        "latent_dims": model.config.latent_dims,
        "variance_by_dimension": variances.tolist(),
        "mutual_information": mutual_information,
    }
    trained = isinstance(prior, Prior)  # not fitted afterwards
    if trained or not model.config.decoder_classes:  # otherwise the prior differs between classes
        metrics["marginal_kl"] = marginal_kl
    if trained:
        metrics["kl_by_dimension"] = latents.kl_by_dimension(means, log_vars).tolist()
    if (bits := likelihood.bits_per_dimension(elbo.mean())) is not None:
        metrics["bits_per_dimension"] = float(bits)
    if likelihood.is_distribution and importance_samples:
        own = ranks.share(np.arange(len(split.images)))
        bound = inference.importance_bound(model, split, importance_samples, seed, batch_size, own)
        bound = ranks.gather(bound, len(split.images))
        metrics["log_likelihood"] = with_error(bound) | {"importance_samples": importance_samples}
        if (bits := likelihood.bits_per_dimension(bound.mean())) is not None:
            metrics["log_likelihood"]["bits_per_dimension"] = float(bits)
    if train is not None:
        train_means, _ = inference.encode(model, train, batch_size)
        known = (train_means, train.labels, means, split.labels, len(split.class_names))
        metrics["linear_probe"] = latents.linear_probe(*known)
        metrics["nearest_neighbours"] = latents.nearest_neighbours(*known)
    return metrics
