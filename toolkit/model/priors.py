"""The prior of training: the distribution of latent vectors that KL is measured against.

A prior is an object that samples, knows its density, and how far a posterior is from it. Another one, for samples, is
fitted when training has ended (mixture.py).
"""

from statistics import NormalDist
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from toolkit.model import gaussians


class StandardNormal(nn.Module):
    """N(0, I)."""

    name = "normal"
    words = "the standard normal"

    def __init__(self, latent_dims: int):
        super().__init__()
        self._dims = latent_dims

    def sample(self, count: int, key: mx.array, temperature: float = 1.0, labels: Any = None) -> mx.array:
        """Latent vectors (count, D), `temperature` times as far from the middle as the prior has them."""
        return temperature * mx.random.normal((count, self._dims), key=key)

    def kl(self, mean: gaussians.Array, log_var: gaussians.Array) -> gaussians.Array:
        """KL of each image's Gaussian from the prior, in each dimension: (N, D) twice → (N, D)."""
        return gaussians.kl_from_standard(mean, log_var)

    def divergence(
        self, mean: gaussians.Array, log_var: gaussians.Array, z: gaussians.Array, labels: Any = None
    ) -> gaussians.Array:
        """KL of each image's Gaussian from the prior, (N,): in closed form, whatever was sampled from it."""
        return self.kl(mean, log_var).sum(axis=1)

    def log_density(self, z: gaussians.Array, labels: Any = None) -> gaussians.Array:
        """log p(z), (…, D) → (…); it is the same for all labels."""
        zero = np.zeros_like(z) if isinstance(z, np.ndarray) else mx.zeros_like(z)
        return gaussians.log_density(z, zero, zero)

    def centre(self) -> np.ndarray:
        """The most probable latent vector, (D,)."""
        return np.zeros(self._dims)

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """Where each dimension of the prior has so much of its mass below: (K,) → (K, D)."""
        return np.array([[NormalDist().inv_cdf(share)] * self._dims for share in shares])


PRIORS = {prior.name: prior for prior in (StandardNormal,)}
