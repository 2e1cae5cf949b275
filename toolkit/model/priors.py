"""Priors p(z) over latent vectors: samples are drawn from them, and the KL term is measured against them.

A prior has samples, a density, and a KL from the posterior. Models are trained with the standard normal, or with a flow
that is learned at the same time. After training, fitting.py can fit another prior to a model. How to add one is shown
in docs/contributing.md.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from toolkit.options import count, option

LARGEST_LOG_SCALE = 2.0  # of a coupling layer


def log_normal(z: mx.array, mean: mx.array, log_var: mx.array) -> mx.array:
    """log N(z; mean, exp(log_var)), summed over the last axis."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (z - mean) * (z - mean) * mx.exp(-log_var)).sum(axis=-1)


class Prior(nn.Module):
    """The interface. A prior's arrays are trained and saved with the model, as `prior.*`."""

    name: str  # of --prior
    words: str
    Options: type | None = None  # a frozen dataclass of its own options
    by_dimension = False  # whether its KL has a value for each dimension
    by_class = False  # whether it differs between classes

    def __init__(self, latent_dims: int, num_classes: int = 0, options: Any = None):
        super().__init__()
        self.latent_dims = latent_dims

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
    by_dimension = True

    def sample(self, count: int, key: mx.array, temperature: float = 1.0, labels: Any = None) -> mx.array:
        return temperature * mx.random.normal((count, self.latent_dims), key=key)

    def log_density(self, z: mx.array, labels: Any = None) -> mx.array:
        return log_normal(z, mx.zeros_like(z), mx.zeros_like(z))

    def kl(self, mean: mx.array, log_var: mx.array, z: Any = None, labels: Any = None) -> mx.array:
        """In closed form, (N, D), whatever the sample."""
        return 0.5 * (mean * mean + mx.exp(log_var) - 1 - log_var)


@dataclass(frozen=True)
class FlowOptions:
    flow_layers: int = option(10, "coupling layers", "model", kind=count)
    flow_units: int = option(256, "hidden units of a coupling layer", "model", kind=count)


class Flow(Prior):
    """A real-valued non-volume preserving flow (RealNVP, Dinh et al. 2017), learned with the model.

    Coupling layers turn noise u ~ N(0, I) into latent vectors. They are inverted exactly, so the density is

        log p(z) = log N(u; 0, I) + log |det du/dz|
    """

    name = "flow"
    words = "a flow of coupling layers, learned with the model"
    Options = FlowOptions

    def __init__(self, latent_dims: int, num_classes: int = 0, options: FlowOptions | None = None):
        super().__init__(latent_dims)
        own = options or FlowOptions()
        self.num_classes, self.by_class = num_classes, num_classes > 0
        self.words = f"a flow of {own.flow_layers} coupling layers"
        self.layers = [Coupling(latent_dims, own.flow_units, num_classes, i) for i in range(own.flow_layers)]

    def sample(self, count: int, key: mx.array, temperature: float = 1.0, labels: Any = None) -> mx.array:
        return self.from_noise(temperature * mx.random.normal((count, self.latent_dims), key=key), labels)

    def from_noise(self, u: mx.array, labels: Any = None) -> mx.array:
        """Noise (N, D) → latent vectors."""
        label = self.one_hot(labels, u)
        for layer in self.layers:
            u = layer.forward(u, label)
        return u

    def log_density(self, z: mx.array, labels: Any = None) -> mx.array:
        label, log_det = self.one_hot(labels, z), mx.zeros(z.shape[:-1])
        for layer in reversed(self.layers):
            z, added = layer.inverse(z, label)
            log_det = log_det + added
        return log_normal(z, mx.zeros_like(z), mx.zeros_like(z)) + log_det

    def one_hot(self, labels: Any, z: mx.array) -> mx.array | None:
        """Labels (N,) as vectors that fit to z, (N, D) or (N, K, D)."""
        if not self.num_classes:
            return None
        if labels is None:
            raise ValueError("the prior is class-conditional: give a label for each latent vector")
        label = mx.eye(self.num_classes)[mx.array(labels)]
        return label if z.ndim == 2 else mx.broadcast_to(label[:, None], (*z.shape[:-1], self.num_classes))

    def arrays(self) -> dict[str, mx.array]:
        """The arrays to save, of a flow that was fitted after training."""
        return dict(tree_flatten(self.parameters()))

    @classmethod
    def of_shapes(cls, arrays: dict[str, np.ndarray], config: Any) -> "Flow":
        """A flow with arrays of these shapes, for a model; raises ValueError if there is none."""
        layers = len({key.split(".")[1] for key in arrays if "." in key})
        units = arrays.get("layers.0.lin2.bias", np.zeros(0)).size
        with suppress(OverflowError, RuntimeError, TypeError, ValueError):  # MLX's errors for impossible sizes
            flow = cls(config.latent_dims, config.decoder_classes, FlowOptions(layers, units))
            if {key: array.shape for key, array in flow.arrays().items()} == {k: a.shape for k, a in arrays.items()}:
                return flow
        raise ValueError("its fitted prior has the wrong shapes")

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], config: Any) -> "Flow":
        """A flow from saved arrays; raises ValueError if they are invalid."""
        flow = cls.of_shapes(arrays, config)
        with np.errstate(over="ignore"):  # the next lines check for infinity
            arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("its fitted prior contains impossible values")
        flow.update(tree_unflatten([(key, mx.array(array)) for key, array in arrays.items()]))
        return flow


class Coupling(nn.Module):
    """A coupling layer: one half of the vector is kept, the other is scaled and shifted by functions of the kept half.

    Log-scales are bounded by tanh. The output layer starts at zero, so the layer starts as the identity.
    """

    def __init__(self, dims: int, units: int, num_classes: int, number: int):
        super().__init__()
        order = np.random.default_rng(number // 2).permutation(dims)  # two layers in a row keep one half each
        kept = order[: dims // 2] if number % 2 else order[dims // 2 :]
        self._kept = mx.array(np.isin(np.arange(dims), kept).astype(np.float32))  # not a parameter
        self.lin1 = nn.Linear(dims + num_classes, units)
        self.lin2 = nn.Linear(units, units)
        self.lin3 = nn.Linear(units, 2 * dims)
        self.lin3.weight, self.lin3.bias = mx.zeros_like(self.lin3.weight), mx.zeros_like(self.lin3.bias)

    def scale_and_shift(self, vector: mx.array, label: mx.array | None) -> tuple[mx.array, mx.array]:
        kept = self._kept * vector
        h = kept if label is None else mx.concatenate([kept, label], axis=-1)
        h = nn.leaky_relu(self.lin1(h))
        h = nn.leaky_relu(self.lin2(h))
        log_scale, shift = mx.split(self.lin3(h), 2, axis=-1)
        log_scale = LARGEST_LOG_SCALE * mx.tanh(log_scale / LARGEST_LOG_SCALE)
        return (1 - self._kept) * log_scale, (1 - self._kept) * shift

    def forward(self, u: mx.array, label: mx.array | None) -> mx.array:
        log_scale, shift = self.scale_and_shift(u, label)
        return u * mx.exp(log_scale) + shift

    def inverse(self, z: mx.array, label: mx.array | None) -> tuple[mx.array, mx.array]:
        """The inverse, and the logarithm of its determinant."""
        log_scale, shift = self.scale_and_shift(z, label)
        return (z - shift) * mx.exp(-log_scale), -log_scale.sum(axis=-1)


PRIORS = {prior.name: prior for prior in (StandardNormal, Flow)}
