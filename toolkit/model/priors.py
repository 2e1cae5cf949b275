"""Priors p(z) over latent vectors: samples are drawn from them, and the KL term is measured against them.

A prior has samples, a density, and a KL from the posterior. Models are trained with the standard normal; mixture.py is
fitted to a trained model. docs/contributing.md shows how to add one.
"""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn


def log_normal(z: mx.array, mean: mx.array, log_var: mx.array) -> mx.array:
    """log N(z; mean, exp(log_var)), summed over the last axis."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (z - mean) * (z - mean) * mx.exp(-log_var)).sum(axis=-1)


class Prior(nn.Module):
    """The interface. A prior's arrays are trained and saved with the model, as `prior.*`."""

    name: str
    words: str

    def sample(self, count: int, key: mx.array, temperature: float = 1.0, labels: Any = None) -> mx.array:
        """Latent vectors (count, D), with the noise scaled by `temperature`."""
        raise NotImplementedError

    def log_density(self, z: mx.array, labels: Any = None) -> mx.array:
        """log p(z), (N, …, D) → (N, …)."""
        raise NotImplementedError

    def kl(self, mean: mx.array, log_var: mx.array, z: mx.array, labels: Any = None) -> mx.array:
        """KL of each posterior from the prior, (N, D) → (N, G). By default estimated from the sample z, with G = 1."""
        return (log_normal(z, mean, log_var) - self.log_density(z, labels))[:, None]


class StandardNormal(Prior):
    """N(0, I)."""

    name = "normal"
    words = "the standard normal"

    def __init__(self, latent_dims: int):
        super().__init__()
        self.latent_dims = latent_dims

    def sample(self, count: int, key: mx.array, temperature: float = 1.0, labels: Any = None) -> mx.array:
        return temperature * mx.random.normal((count, self.latent_dims), key=key)

    def log_density(self, z: mx.array, labels: Any = None) -> mx.array:
        return log_normal(z, mx.zeros_like(z), mx.zeros_like(z))

    def kl(self, mean: mx.array, log_var: mx.array, z: Any = None, labels: Any = None) -> mx.array:
        """In closed form, (N, D), whatever the sample."""
        return 0.5 * (mean * mean + mx.exp(log_var) - 1 - log_var)


PRIORS = {prior.name: prior for prior in (StandardNormal,)}
