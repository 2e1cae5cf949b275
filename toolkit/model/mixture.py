"""A mixture of Gaussians as a prior, fitted to the latent vectors of a trained model.

The latent vectors of images do not fill the standard normal evenly, so a vector drawn from it often lies where no image
does, and decodes to nothing in particular. A mixture fitted afterwards knows where the images are. The weights of the
model stay as they are, and so does the KL that trained them. It is fitted in NumPy's float64.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from toolkit.errors import UserError
from toolkit.model import inference
from toolkit.model.inputs import Images
from toolkit.model.priors import Prior
from toolkit.random import generator

SIZES = (1, 2, 5, 10, 20, 50, 100, 200)  # numbers of components that are tried
LARGEST = 200_000  # numbers of a mixture of several Gaussians
TRIED_ON = 20_000  # latent vectors that numbers of components are tried on; a tenth of them is held out
LEAST = 10  # latent vectors for each component
MOST_STEPS, CONVERGED = 100, 1e-4  # of EM, and the gain in nats below which it has converged
FLOOR = 1e-4  # added to all variances, as a share of those of all latent vectors
CHUNK, CHUNK_VALUES = 5000, 2**22  # posteriors at a time, and values


class Mixture:
    """Gaussians with full covariances; of a class-conditional model a mixture of its own for each class.

    All classes share one list of M components, of which each class weights its own and the others are 0.
    """

    name = "mixture"

    def __init__(self, weights: np.ndarray, means: np.ndarray, scales: np.ndarray):
        """`weights` (C, M) with C = 1 without classes, `means` (M, D), and the lower triangles of the covariances'
        Cholesky factors, row by row, as `scales` (M, D(D+1)/2)."""
        self.weights, self.means, self.scales = (np.asarray(a, np.float64) for a in (weights, means, scales))
        count, self.dims = self.means.shape
        self.factors = np.zeros((count, self.dims, self.dims))
        rows, columns = np.tril_indices(self.dims)
        self.factors[:, rows, columns] = self.scales
        inverses = np.linalg.inv(self.factors)
        heights = np.log(np.abs(np.diagonal(inverses, axis1=1, axis2=2))).sum(axis=1)
        with np.errstate(divide="ignore"):
            logs = np.log(self.weights)
        # What makes every component a standard normal: a matrix, a shift, and the logarithm of its height.
        across = inverses.transpose(2, 0, 1).reshape(self.dims, count * self.dims)
        shift = (inverses @ self.means[:, :, None]).reshape(-1)
        self.whitening = across, shift, logs + heights - 0.5 * self.dims * math.log(2 * math.pi)

    @property
    def words(self) -> str:
        counts = sorted({int(count) for count in (self.weights > 0).sum(axis=1)})
        each = " for each class" if len(self.weights) > 1 else ""
        if counts == [1]:
            return f"one Gaussian{each}"
        return f"a mixture of {' to '.join(map(str, counts[:: len(counts) - 1 or 1]))} Gaussians{each}"

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file keeps of it."""
        return {name: getattr(self, name).astype(np.float32) for name in ("weights", "means", "scales")}

    @staticmethod
    def check_shapes(arrays: dict[str, np.ndarray], config: Any) -> None:
        """Stop at arrays that are no mixture for a model, by their shapes; ValueError."""
        dims, count = config.latent_dims, arrays["weights"].shape[-1]
        shapes = {"weights": (max(1, config.decoder_classes), count), "means": (count, dims)}
        shapes["scales"] = (count, dims * (dims + 1) // 2)
        if not count or {name: array.shape for name, array in arrays.items()} != shapes:
            raise ValueError("its fitted prior has the wrong shapes")

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Mixture":
        """A mixture from what a file has kept; ValueError where it is none."""
        with np.errstate(invalid="ignore"):  # the next lines see what is no number
            weights, means, scales = (np.asarray(arrays[name], np.float64) for name in ("weights", "means", "scales"))
        if not all(np.isfinite(array).all() for array in (weights, means, scales)):
            raise ValueError("its fitted prior contains impossible values")
        diagonal = scales[:, np.cumsum(np.arange(1, means.shape[1] + 1)) - 1]
        if (weights < 0).any() or not np.allclose(weights.sum(axis=1), 1, atol=1e-3) or (diagonal <= 0).any():
            raise ValueError("its fitted prior is no distribution")
        return cls(weights / weights.sum(axis=1, keepdims=True), means, scales)

    def sample(self, count: int, key: mx.array, temperature: float = 1.0, labels: Any = None) -> mx.array:
        """Latent vectors (count, D), `temperature` times as far from the middle of their component as it has them.

        The same key gives the same noise in every class.
        """
        of_component, of_noise = mx.random.split(key)
        uniform = np.array(mx.random.uniform(shape=(count,), key=of_component))
        eps = np.array(mx.random.normal((count, self.dims), key=of_noise))
        rows, shares = self.rows(count, labels), np.cumsum(self.weights, axis=1)
        shares /= shares[:, -1:]
        # The first component whose share ends behind the number.
        chosen = np.array([np.searchsorted(shares[row], u, side="right") for row, u in zip(rows, uniform, strict=True)])
        z = np.empty((count, self.dims), np.float32)
        for component in np.unique(chosen):
            own = chosen == component
            z[own] = self.means[component] + temperature * eps[own] @ self.factors[component].T
        return mx.array(z)

    kl = Prior.kl

    def log_density(self, z: mx.array, labels: Any = None) -> mx.array:
        """log p(z) or, with classes, log p(z | label): (N, …, D) and (N,) → (N, …)."""
        count = len(self.means)
        if len(self.weights) > 1 and labels is None:
            raise ValueError("the prior is class-conditional: give a label for each latent vector")
        across, shift, heights = (mx.array(array.astype(np.float32)) for array in self.whitening)
        own = heights[mx.array(labels)] if len(self.weights) > 1 else heights  # (N, M) or (1, M)
        whitened = (z @ across - shift).reshape(*z.shape[:-1], count, self.dims)
        own = own.reshape(len(own), *[1] * (z.ndim - 2), count)
        return mx.logsumexp(own - 0.5 * (whitened * whitened).sum(axis=-1), axis=-1)

    def rows(self, count: int, labels: Any) -> np.ndarray:
        """The row of weights of each latent vector."""
        if len(self.weights) == 1:
            return np.zeros(count, int)
        if labels is None:
            raise ValueError("the prior is class-conditional: give a label for each latent vector")
        return np.array(labels).astype(int)


# Fitting

Watch = Callable[[str, float, int], None]  # (work, done, total), which shows the progress


def nobody(*_: Any, **__: Any) -> None:
    """Watches nothing."""


def parameter_count(size: int, dims: int, classes: int) -> int:
    """Numbers in a mixture of `size` components for each class."""
    return size * classes * (classes + dims + dims * (dims + 1) // 2)


def fit_prior(model: Any, split: Images, seed: int = 0, watch: Watch = nobody) -> Mixture:
    """Fit a mixture to the latent vectors of a model's training images.

    What is fitted are the posteriors q(z|x) of all images, each with its variance, so that the mixture comes near to
    their sum. Components are added until more of them are no better on latent vectors held out.
    """
    return fit(*latent_vectors(model, split, watch), seed, watch)


def latent_vectors(model: Any, split: Images, watch: Watch = nobody) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Means and log-variances of all images, (N, D) each, and the numbers of those of each class."""
    classes, count = model.config.decoder_classes, len(split.images)
    means, log_vars = inference.encode(model, split, watch=lambda done: watch("Encoding", done, count))
    labels = np.asarray(split.labels) if classes else np.zeros(count, int)
    return means, log_vars, [np.flatnonzero(labels == c) for c in range(max(1, classes))]


def fit(
    means: np.ndarray, log_vars: np.ndarray, groups: list[np.ndarray], seed: int = 0, watch: Watch = nobody
) -> Mixture:
    """The mixture of posteriors (N, D) each; `groups` are the numbers of those of each class.

    A class of which there are too few has the Gaussian of all classes.
    """
    if not len(means):
        raise UserError("there is no image to fit a prior to — use more images")
    groups = [group if len(group) >= LEAST else np.arange(len(means)) for group in groups]
    best = best_size(means, log_vars, groups, seed, watch)
    fitted = []
    for i, group in enumerate(groups):
        size = min(best, max(1, len(group) // LEAST))
        shown = partial(watch, "Fitting the prior", total=len(groups))
        fitted.append(em(means[group], log_vars[group], size, generator(seed, size, i), shown))
    return joined(fitted)


def best_size(means, log_vars, groups, seed, watch):
    """How many components each class needs: the first number that the next one does not better, on vectors held out."""
    dims, best, before = means.shape[1], 1, -math.inf
    for size in SIZES:
        tried = [group for group in groups if min(len(group), TRIED_ON // len(groups)) >= size * LEAST]
        if not tried or (size > 1 and parameter_count(size, dims, len(groups)) > LARGEST):
            break
        total = 0.0
        for i, group in enumerate(groups):
            random = generator(seed, i)
            chosen = random.permutation(group)[: TRIED_ON // len(groups)]
            held_out, kept = np.split(chosen, [max(1, len(chosen) // 10)])
            if len(kept) < LEAST:
                continue
            shown = partial(watch, "Choosing the number of components", total=len(SIZES) * len(groups))
            mixture = em(means[kept], log_vars[kept], min(size, len(kept) // LEAST), random, shown)
            z = means[held_out] + np.exp(0.5 * log_vars[held_out]) * random.normal(size=(len(held_out), dims))
            total += mixture.log_density(mx.array(z.astype(np.float32))).mean().item()
        if total <= before:
            break
        best, before = size, total
    return best


def em(
    means: np.ndarray, log_vars: np.ndarray, size: int, random: np.random.Generator, watch: Callable = nobody
) -> Mixture:
    """Expectation maximisation: `size` Gaussians for the posteriors of one class, from a k-means++ start.

    `watch(done)` sees the share of its steps.
    """
    middle = means.mean(axis=0)
    spread = np.sqrt(means.var(axis=0) + np.exp(log_vars).mean(axis=0)) + 1e-12
    if size == 1:  # no step is needed
        covariance = np.cov(means.T, bias=True).reshape(len(middle), -1) + np.diag(np.exp(log_vars).mean(axis=0))
        covariance += FLOOR * np.diag(spread**2)
        watch(done=1)
        return Mixture(
            np.ones((1, 1)), middle[None], np.linalg.cholesky(covariance)[np.tril_indices(len(middle))][None]
        )
    posteriors = (means - middle) / spread, np.exp(log_vars) / spread**2  # in units of what all of them spread
    seeds = kmeans_plus_plus(posteriors[0], size, random)

    def nearest(features):
        """At the start a posterior belongs to the component with the nearest seed."""
        means = features[:, -seeds.shape[1] :]
        return np.eye(size)[((seeds**2).sum(axis=1) - 2 * means @ seeds.T).argmin(axis=1)], 0.0

    statistics, before, done = sufficient_statistics(posteriors, nearest), -math.inf, 0.0
    for _ in range(MOST_STEPS):
        weights, centres, covariances = m_step(*statistics[:2])
        statistics = sufficient_statistics(posteriors, e_step(weights, centres, covariances))
        reached = statistics[2] / len(means)
        if reached - before < CONVERGED:
            break
        before, done = reached, done + 1 / MOST_STEPS
        watch(done=1 / MOST_STEPS)
    watch(done=1 - done)
    rows, columns = np.tril_indices(len(middle))
    scales = (np.linalg.cholesky(covariances) * spread[:, None])[:, rows, columns]
    return Mixture(weights[None], centres * spread + middle, scales)


def sufficient_statistics(posteriors, responsibilities):
    """Sums over all posteriors: of their responsibilities (K,), of their features by these (K, F), and of log p.

    The features of a posterior are what the density of a Gaussian is linear in: the lower triangle of E[z zᵀ], row by
    row, and E[z].
    """
    means, variances = posteriors
    dims = means.shape[1]
    products = dims * (dims + 1) // 2
    features = np.empty((max(1, min(CHUNK, CHUNK_VALUES // products, len(means))), products + dims))
    totals, sums, log_p = 0.0, 0.0, 0.0
    for start in range(0, len(means), len(features)):
        mean, variance = (array[start : start + len(features)] for array in posteriors)
        part = features[: len(mean)]
        end = 0
        for row in range(dims):
            begin, end = end, end + row + 1
            np.multiply(mean[:, : row + 1], mean[:, row : row + 1], out=part[:, begin:end])
            part[:, end - 1] += variance[:, row]
        part[:, products:] = mean
        shares, logs = responsibilities(part)
        totals, sums, log_p = totals + shares.sum(axis=0), sums + shares.T @ part, log_p + np.sum(logs)
    return totals, sums, log_p


def m_step(totals, sums):
    """Weights (K,), centres (K, D) and covariances (K, D, D) of the Gaussians with these sums of features."""
    totals = np.maximum(totals, 1e-9)  # of a component that lost all its posteriors
    dims = (math.isqrt(9 + 8 * sums.shape[1]) - 3) // 2  # as there are D(D+1)/2 + D features
    rows, columns = np.tril_indices(dims)
    centres = sums[:, -dims:] / totals[:, None]
    covariances = np.empty((len(totals), dims, dims))
    covariances[:, rows, columns] = covariances[:, columns, rows] = sums[:, :-dims] / totals[:, None]
    covariances += FLOOR * np.eye(dims) - centres[:, :, None] * centres[:, None, :]
    return totals / totals.sum(), centres, covariances


def e_step(weights, centres, covariances):
    """A function from features (N, F) to responsibilities (N, K), and log p of each (N,) without its constant."""
    rows, columns = np.tril_indices(centres.shape[1])
    precisions = np.linalg.inv(covariances)
    towards = (precisions @ centres[:, :, None])[:, :, 0]
    twice = np.where(rows == columns, 1.0, 2.0)  # the lower triangle stands for both
    slopes = np.hstack([-0.5 * twice * precisions[:, rows, columns], towards]).T
    heights = np.log(weights) - 0.5 * np.linalg.slogdet(covariances)[1] - 0.5 * (towards * centres).sum(axis=1)

    def responsibilities(features):
        logs = features @ slopes + heights
        total = np.logaddexp.reduce(logs, axis=1)
        return np.exp(logs - total[:, None]), total

    return responsibilities


def kmeans_plus_plus(points: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Seeds, each drawn by its squared distance from those before."""
    points = points[random.permutation(len(points))[:10_000]]
    seeds = [points[0]]
    distance = np.full(len(points), math.inf)
    for _ in range(size - 1):
        distance = np.minimum(distance, ((points - seeds[-1]) ** 2).sum(axis=1))
        total = distance.sum()
        seeds.append(points[random.choice(len(points), p=distance / total if total > 0 else None)])
    return np.array(seeds)


def joined(mixtures: list[Mixture]) -> Mixture:
    """One mixture for each class, as one list of components."""
    counts = [len(mixture.means) for mixture in mixtures]
    weights = np.zeros((len(mixtures), sum(counts)))
    for i, mixture in enumerate(mixtures):
        weights[i, sum(counts[:i]) : sum(counts[: i + 1])] = mixture.weights[0]
    return Mixture(weights, *(np.concatenate([getattr(m, name) for m in mixtures]) for name in ("means", "scales")))
