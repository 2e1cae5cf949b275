"""Objectives: the functions that training minimises, of a model, images, labels, random keys and β.

Each returns the loss of a batch, and loss, error and KL of each image (3, N). `vae.elbo` is the default.
"""

import math
from typing import Any, NamedTuple

import mlx.core as mx

from toolkit.machine import ranks
from toolkit.model.priors import log_normal
from toolkit.random import noise

LEAST_SHARE = 1e-12  # of a sample; smaller ones change nothing, but lead to subnormal numbers, which slow CPUs down


class Elbo(NamedTuple):
    """The negative evidence lower bound: error + β KL.

    With free bits, the KL of a group, averaged over the batch, is penalised only above `free_bits` nats. A group is a
    dimension or, if the prior's KL has no closed form, all of them.
    """

    free_bits: float = 0

    samples = 1  # per image
    name = "elbo"
    words = "evidence lower bound"

    def __call__(self, model: Any, x: mx.array, labels: mx.array | None, keys: mx.array, beta: Any) -> tuple:
        error, kl = model.terms(x, labels, keys)
        total = kl.sum(axis=1)
        counted = mx.maximum(ranks.mean(kl), self.free_bits).sum() if self.free_bits else total.mean()
        return error.mean() + beta * counted, mx.stack([error + total, error, total])

    def of_terms(self, terms: dict[str, float], beta: float) -> float:
        """The loss, from the means of the terms over images."""
        return terms["reconstruction"] + beta * terms["kl"]

    def title(self, errors: str, kl: str) -> str:
        """A description, from those of the two terms."""
        return f"{errors} + {kl}" + (f", {self.free_bits:g} free nats" if self.free_bits else "")


class ImportanceWeighted(NamedTuple):
    """Minus the importance-weighted bound: log of the mean of p(x, z) / q(z | x) over K samples (Burda et al. 2015).

    Gradients are doubly reparametrised (Tucker et al. 2019): the parameters of q are constants in its density, and a
    gradient on its way from a sample to the encoder is multiplied once more by that sample's share of the sum.
    """

    samples: int = 8

    name = "iwae"
    words = "importance-weighted bound from several samples"

    def __call__(self, model: Any, x: mx.array, labels: mx.array | None, keys: mx.array, beta: Any) -> tuple:
        mean, log_var = model.posterior(x, labels)
        shape = len(mean), self.samples, mean.shape[1]
        many, widths = (mx.broadcast_to(a[:, None], shape) for a in (mean, log_var))
        shares = []  # will hold each sample's share of the sum before gradients are computed

        @mx.custom_function
        def to_decoder(z):
            return z

        @to_decoder.vjp
        def to_encoder(_, gradient, __):
            return gradient * shares[0][..., None]

        z = to_decoder(many + mx.exp(0.5 * widths) * noise(keys, shape))
        error = model.errors(x, labels, z)
        log_q = log_normal(z, mx.stop_gradient(many), mx.stop_gradient(widths))
        log_w = model.prior.log_density(z, labels) - log_q - error  # (N, K)
        log_sum = mx.logsumexp(log_w, axis=1)
        share = mx.exp(log_w - log_sum[:, None])
        shares.append(mx.stop_gradient(share * (share > LEAST_SHARE)))
        kl = model.prior.kl(mean, log_var, z[:, 0], labels).sum(axis=1)
        terms = mx.stack([math.log(self.samples) - log_sum, error.mean(axis=1), kl])
        return -(shares[0] * log_w).sum(axis=1).mean(), terms

    def of_terms(self, terms: dict[str, float], beta: float) -> float:
        return terms["loss"]

    def title(self, errors: str, kl: str) -> str:
        return f"importance-weighted bound of {self.samples} samples, with {errors}"
