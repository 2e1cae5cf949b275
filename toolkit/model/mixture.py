"""A mixture of Gaussians as a prior, fitted to the latent vectors of a trained model. In float64, in NumPy."""

import math
import time
from typing import Any

import mlx.core as mx
import numpy as np

from toolkit.files.progress import shown
from toolkit.model.priors import Prior
from toolkit.random import generator

SIZES = (1, 2, 5, 10, 20, 50, 100, 200)  # numbers of components to try
LARGEST = 200_000  # parameters of a mixture of several Gaussians
TRIED_ON = 20_000  # latent vectors for choosing the number of components; a tenth of them is held out
LEAST = 10  # latent vectors per component
MOST_STEPS, CONVERGED = 100, 1e-4  # of EM; a gain in nats below which it has converged
PASSES = 80  # over all latent vectors, a typical number; only for estimates of time
FLOOR = 1e-4  # added to all variances, as a fraction of the variance of all latent vectors
CHUNK, CHUNK_VALUES = 5000, 2**22  # posteriors, and features of posteriors, at a time


class Mixture:
    """Gaussians with full covariances; for a class-conditional model, one mixture per class.

    All classes share one list of M components; a class has zero weights for the components of other classes.
    """

    name = "mixture"
    by_dimension = False

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
        self.by_class = len(self.weights) > 1
        with np.errstate(divide="ignore"):
            logs = np.log(self.weights)
        # Maps each component to the standard normal: a matrix, a shift, and the log-density at its mean.
        across = inverses.transpose(2, 0, 1).reshape(self.dims, count * self.dims)
        shift = (inverses @ self.means[:, :, None]).reshape(-1)
        self.whitening = across, shift, logs + heights - 0.5 * self.dims * math.log(2 * math.pi)

    @property
    def words(self) -> str:
        """A description: `a mixture of 20 to 50 Gaussians for each class`."""
        counts = (self.weights > 0).sum(axis=1)
        least, most = counts.min(), counts.max()
        size = f"a mixture of {least if least == most else f'{least} to {most}'} Gaussians"
        return ("one Gaussian" if most == 1 else size) + (" for each class" if len(self.weights) > 1 else "")

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to save."""
        return {name: getattr(self, name).astype(np.float32) for name in ("weights", "means", "scales")}

    @staticmethod
    def of_shapes(arrays: dict[str, np.ndarray], config: Any) -> None:
        """Raise ValueError if the shapes of arrays do not fit a model."""
        dims, count = config.latent_dims, arrays["weights"].shape[-1]
        shapes = {"weights": (max(1, config.decoder_classes), count), "means": (count, dims)}
        shapes["scales"] = (count, dims * (dims + 1) // 2)
        if not count or {name: array.shape for name, array in arrays.items()} != shapes:
            raise ValueError("its fitted prior has the wrong shapes")

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], config: Any) -> "Mixture":
        """A mixture from saved arrays; raises ValueError if they are invalid."""
        cls.of_shapes(arrays, config)
        with np.errstate(invalid="ignore"):  # the next lines check for NaN
            weights, means, scales = (np.asarray(arrays[name], np.float64) for name in ("weights", "means", "scales"))
        if not all(np.isfinite(array).all() for array in (weights, means, scales)):
            raise ValueError("its fitted prior contains impossible values")
        diagonal = scales[:, np.cumsum(np.arange(1, means.shape[1] + 1)) - 1]
        if (weights < 0).any() or not np.allclose(weights.sum(axis=1), 1, atol=1e-3) or (diagonal <= 0).any():
            raise ValueError("its fitted prior is not a distribution")
        return cls(weights / weights.sum(axis=1, keepdims=True), means, scales)

    def sample(self, count: int, key: mx.array, temperature: float = 1.0, labels: Any = None) -> mx.array:
        """Latent vectors (count, D), with the noise of each component scaled by `temperature`.

        The same key gives the same noise in every class.
        """
        of_component, of_noise = mx.random.split(key)
        uniform = np.array(mx.random.uniform(shape=(count,), key=of_component))
        eps = np.array(mx.random.normal((count, self.dims), key=of_noise))
        rows, shares = np.array(self.rows(count, labels)), np.cumsum(self.weights, axis=1)
        shares /= shares[:, -1:]
        components = np.array([np.searchsorted(shares[row], u, "right") for row, u in zip(rows, uniform, strict=True)])
        z = np.empty((count, self.dims), np.float32)
        for component in np.unique(components):
            own = components == component
            z[own] = self.means[component] + temperature * eps[own] @ self.factors[component].T
        return mx.array(z)

    kl = Prior.kl

    def log_density(self, z: mx.array, labels: Any = None) -> mx.array:
        """log p(z) or, with classes, log p(z | label): (N, …, D) and (N,) → (N, …)."""
        across, shift, heights = (mx.array(array.astype(np.float32)) for array in self.whitening)
        whitened = (z @ across - shift).reshape(*z.shape[:-1], len(self.means), self.dims)
        heights = heights[self.rows(len(z), labels)].reshape(len(z), *[1] * (z.ndim - 2), -1)
        return mx.logsumexp(heights - 0.5 * (whitened * whitened).sum(axis=-1), axis=-1)

    def rows(self, count: int, labels: Any) -> mx.array:
        """The row of `weights` for each of `count` latent vectors."""
        if len(self.weights) == 1:
            return mx.zeros(count, dtype=mx.int32)
        if labels is None:
            raise ValueError("the prior is class-conditional: give a label for each latent vector")
        return mx.array(labels).astype(mx.int32)


# Fitting


def fit(means: np.ndarray, log_vars: np.ndarray, groups: list[np.ndarray], seed: int = 0) -> Mixture:
    """Fit a mixture to posteriors, (N, D) each; `groups` holds their numbers by class.

    The number of components grows until held-out latent vectors no longer improve. A class with too few posteriors gets
    the Gaussian of all classes.
    """
    groups = [group if len(group) >= LEAST else np.arange(len(means)) for group in groups]
    best = best_size(means, log_vars, groups, seed)
    mixtures = []
    for i, group in enumerate(groups):
        size = min(best, max(1, len(group) // LEAST))
        mixtures.append(em(means[group], log_vars[group], size, generator(seed, size, i)))
    return join(mixtures)


def estimate_fitting_time(count: int, dims: int) -> float:
    """Estimate the seconds that it takes to fit a mixture to `count` posteriors, by timing one pass over a few."""
    most = min(LARGEST // (1 + dims + dims * (dims + 1) // 2), count // LEAST, SIZES[-2])
    few, random, size = 2000, generator(0), max((size for size in SIZES if size <= most), default=1)
    means = random.normal(size=(few, dims))
    posteriors = means, np.ones((few, dims))
    step = e_step(np.full(size, 1 / size), means[:size], np.stack([np.eye(dims)] * size))

    def seconds():
        start = time.perf_counter()
        sufficient_statistics(posteriors, step)
        return time.perf_counter() - start

    return PASSES * min(seconds() for _ in range(4)) / few * (2 * min(count, TRIED_ON) + count)


def best_size(means, log_vars, groups, seed):
    """Components per class: the smallest of SIZES that the next does not improve on, on held-out latent vectors."""
    dims, best, before = means.shape[1], 1, -math.inf
    classes, most = len(groups), TRIED_ON // len(groups)
    for size in SIZES:
        parameters = size * classes * (classes + dims + dims * (dims + 1) // 2)
        if size * LEAST > min(most, max(map(len, groups))) or (size > 1 and parameters > LARGEST):
            break
        total = 0.0
        for i, group in enumerate(groups):
            random = generator(seed, i)
            held_out, kept = np.split(random.permutation(group)[:most], [max(1, min(most, len(group)) // 10)])
            if len(kept) < LEAST:
                continue
            mixture = em(means[kept], log_vars[kept], min(size, len(kept) // LEAST), random)
            z = means[held_out] + np.exp(0.5 * log_vars[held_out]) * random.normal(size=(len(held_out), dims))
            total += mixture.log_density(mx.array(z.astype(np.float32))).mean().item()
        if total <= before:
            break
        best, before = size, total
    return best


def em(means: np.ndarray, log_vars: np.ndarray, size: int, random: np.random.Generator) -> Mixture:
    """Expectation maximisation: fit `size` Gaussians to the posteriors of one class, from a k-means++ start."""
    middle = means.mean(axis=0)
    spread = np.sqrt(means.var(axis=0) + np.exp(log_vars).mean(axis=0)) + 1e-12
    if size == 1:  # has a closed form
        covariance = np.cov(means.T, bias=True).reshape(len(middle), -1) + np.diag(np.exp(log_vars).mean(axis=0))
        covariance += FLOOR * np.diag(spread**2)
        factor = np.linalg.cholesky(covariance)[np.tril_indices(len(middle))]
        return Mixture(np.ones((1, 1)), middle[None], factor[None])
    posteriors = (means - middle) / spread, np.exp(log_vars) / spread**2  # in units of the overall spread
    seeds = kmeans_plus_plus(posteriors[0], size, random)

    def nearest(features):
        """The first responsibilities: each posterior belongs to the nearest seed."""
        means = features[:, -seeds.shape[1] :]
        return np.eye(size)[((seeds**2).sum(axis=1) - 2 * means @ seeds.T).argmin(axis=1)], 0.0

    statistics, before = sufficient_statistics(posteriors, nearest), -math.inf
    for _ in shown(range(MOST_STEPS), f"Fitting {size} Gaussians"):
        weights, centres, covariances = m_step(*statistics[:2])
        statistics = sufficient_statistics(posteriors, e_step(weights, centres, covariances))
        log_p = statistics[2] / len(means)
        if log_p - before < CONVERGED:
            break
        before = log_p
    rows, columns = np.tril_indices(len(middle))
    scales = (np.linalg.cholesky(covariances) * spread[:, None])[:, rows, columns]
    return Mixture(weights[None], centres * spread + middle, scales)


def sufficient_statistics(posteriors, responsibilities):
    """Sums over all posteriors: responsibilities (K,), features weighted by them (K, F), and log p.

    The features of a posterior are the lower triangle of E[z zᵀ], row by row, and E[z]: log-densities of Gaussians are
    linear in them.
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
    """Weights (K,), centres (K, D) and covariances (K, D, D) of the Gaussians, from `sufficient_statistics`."""
    totals = np.maximum(totals, 1e-9)  # for components without posteriors
    dims = (math.isqrt(9 + 8 * sums.shape[1]) - 3) // 2  # from D(D+1)/2 + D features
    rows, columns = np.tril_indices(dims)
    centres = sums[:, -dims:] / totals[:, None]
    covariances = np.empty((len(totals), dims, dims))
    covariances[:, rows, columns] = covariances[:, columns, rows] = sums[:, :-dims] / totals[:, None]
    covariances += FLOOR * np.eye(dims) - centres[:, :, None] * centres[:, None, :]
    return totals / totals.sum(), centres, covariances


def e_step(weights, centres, covariances):
    """A function from features (N, F) to responsibilities (N, K) and log p (N,), without the constant."""
    rows, columns = np.tril_indices(centres.shape[1])
    precisions = np.linalg.inv(covariances)
    towards = (precisions @ centres[:, :, None])[:, :, 0]
    twice = np.where(rows == columns, 1.0, 2.0)  # the lower triangle stands for the upper one, too
    slopes = np.hstack([-0.5 * twice * precisions[:, rows, columns], towards]).T
    heights = np.log(weights) - 0.5 * np.linalg.slogdet(covariances)[1] - 0.5 * (towards * centres).sum(axis=1)

    def responsibilities(features):
        logs = features @ slopes + heights
        total = np.logaddexp.reduce(logs, axis=1)
        return np.exp(logs - total[:, None]), total

    return responsibilities


def kmeans_plus_plus(points: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Seeds, each drawn with probability proportional to the squared distance from the seeds before it."""
    points = points[random.permutation(len(points))[:10_000]]
    seeds = [points[0]]
    distance = np.full(len(points), math.inf)
    for _ in range(size - 1):
        distance = np.minimum(distance, ((points - seeds[-1]) ** 2).sum(axis=1))
        total = distance.sum()
        seeds.append(points[random.choice(len(points), p=distance / total if total > 0 else None)])
    return np.array(seeds)


def join(mixtures: list[Mixture]) -> Mixture:
    """The mixtures of all classes with one shared list of components."""
    counts = [len(mixture.means) for mixture in mixtures]
    weights = np.zeros((len(mixtures), sum(counts)))
    for i, mixture in enumerate(mixtures):
        weights[i, sum(counts[:i]) : sum(counts[: i + 1])] = mixture.weights[0]
    return Mixture(weights, *(np.concatenate([getattr(m, name) for m in mixtures]) for name in ("means", "scales")))
