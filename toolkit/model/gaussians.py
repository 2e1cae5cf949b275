"""Diagonal Gaussians over latent vectors, given by mean and log-variance: their formulas, each once.

They work on MLX arrays and, for what must be exact beyond float32, on NumPy arrays alike.
"""

import math

import mlx.core as mx
import numpy as np

Array = mx.array | np.ndarray


def exp(x: Array) -> Array:
    return np.exp(x) if isinstance(x, np.ndarray) else mx.exp(x)


def damped(log_var: mx.array) -> mx.array:
    """Log-variances as they are up to 1, and 1 + log beyond: the variance then grows linearly, not exponentially.

    No useful posterior is that wide, but in the first steps at a high learning rate an encoder may say so, and exp
    would make a KL of millions of it.
    """
    return mx.where(log_var > 1, 1 + mx.log(mx.maximum(log_var, 1)), log_var)


def reparametrise(mean: Array, log_var: Array, eps: Array) -> Array:
    """A latent vector for noise `eps` of N(0, I); gradients flow through mean and log-variance."""
    return mean + exp(0.5 * log_var) * eps


def log_density(z: Array, mean: Array, log_var: Array) -> Array:
    """log N(z; mean, exp(log_var)), summed over the last axis."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (z - mean) * (z - mean) * exp(-log_var)).sum(axis=-1)


def kl_from_standard(mean: Array, log_var: Array) -> Array:
    """KL divergence from N(0, 1) in each dimension: (N, D) twice → (N, D)."""
    return 0.5 * (mean * mean + exp(log_var) - 1 - log_var)


def noise(key: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Standard Gaussian noise from one random key, or from one for each row."""
    if key.ndim == 1:
        return mx.random.normal(shape, key=key)
    return mx.vmap(lambda one: mx.random.normal(shape[1:], key=one))(key)
