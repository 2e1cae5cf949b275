"""A mixture of Gaussians as a prior, fitted to the latent vectors of a trained model.

Where training has put the images, the standard normal has hills and holes: a vector drawn from it often decodes to
nothing in particular. A mixture fitted afterwards knows where the images are. The weights of the model stay as they
are, and so does the KL that trained them.
"""

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from toolkit.errors import UserError
from toolkit.model import gaussians, inference
from toolkit.model.inputs import Images

SIZES = (1, 2, 5, 10, 20, 50, 100, 200)  # numbers of components that are tried
LARGEST = 200_000  # numbers that a mixture may have, so that it fits into every checkpoint
TRIED_ON = 20_000  # latent vectors that numbers of components are tried on; a tenth of them is held out
MOST_STEPS, CONVERGED = 100, 1e-4  # of EM, and the gain in nats below which it has converged
FLOOR = 1e-4  # added to all variances, as a share of those of all latent vectors
CHUNK, NUMBERS = 5000, 2**22  # posteriors at a time, and numbers


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
        self.inverses = np.linalg.inv(self.factors)
        heights = np.log(np.abs(np.diagonal(self.inverses, axis1=1, axis2=2))).sum(axis=1)
        with np.errstate(divide="ignore"):
            logs = np.log(self.weights)
        self.heights = logs + heights - 0.5 * self.dims * math.log(2 * math.pi)  # (C, M)

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

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], dims: int, classes: int) -> "Mixture":
        """A mixture from what a file has kept, for a model of so many latent dims and classes."""
        weights, means, scales = (np.asarray(arrays[name], np.float64) for name in ("weights", "means", "scales"))
        count = weights.shape[-1]
        shapes = (max(1, classes), count), (count, dims), (count, dims * (dims + 1) // 2)
        if not count or (weights.shape, means.shape, scales.shape) != shapes:
            raise ValueError("its prior has the wrong shapes")
        if not all(np.isfinite(array).all() for array in (weights, means, scales)):
            raise ValueError("its prior contains impossible values")
        diagonal = scales[:, np.cumsum(np.arange(1, dims + 1)) - 1]
        if (weights < 0).any() or not np.allclose(weights.sum(axis=1), 1, atol=1e-3) or (diagonal <= 0).any():
            raise ValueError("its prior is no distribution")
        return cls(weights / weights.sum(axis=1, keepdims=True), means, scales)

    def sample(self, count: int, key: mx.array, temperature: float = 1.0, labels: Any = None) -> mx.array:
        """Latent vectors (count, D), `temperature` times as far from the middle of their component as it has them.

        The same key gives the same noise in every class.
        """
        of_component, of_noise = mx.random.split(key)
        uniform = np.array(mx.random.uniform(shape=(count,), key=of_component))
        eps = np.array(mx.random.normal((count, self.dims), key=of_noise))
        shares = np.cumsum(self.weights, axis=1)
        shares = (shares / shares[:, -1:])[self.rows(count, labels)]
        chosen = (shares <= uniform[:, None]).sum(axis=1)  # the first component whose share ends behind the number
        z = self.means[chosen] + temperature * (self.factors[chosen] @ eps[:, :, None])[:, :, 0]
        return mx.array(z.astype(np.float32))

    def divergence(
        self, mean: gaussians.Array, log_var: gaussians.Array, z: gaussians.Array, labels: Any = None
    ) -> gaussians.Array:
        """KL of each image's Gaussian from the prior, (N,): estimated by `z`, the one vector sampled from it."""
        return gaussians.log_density(z, mean, log_var) - self.log_density(z, labels)

    def log_density(self, z: gaussians.Array, labels: Any = None) -> gaussians.Array:
        """log p(z) or, with classes, log p(z | label): (N, …, D) and (N,) → (N, …)."""
        in_numpy = isinstance(z, np.ndarray)
        array, log_sum = (np.asarray, np_logsumexp) if in_numpy else (as_mx, mx.logsumexp)
        count, dims = self.means.shape
        across = self.inverses.transpose(2, 0, 1).reshape(dims, count * dims)
        shift = (self.inverses @ self.means[:, :, None]).reshape(-1)
        whitened = (z @ array(across) - array(shift)).reshape(*z.shape[:-1], count, dims)
        heights = array(self.heights[self.rows(len(z), labels)])
        heights = heights.reshape(len(z), *[1] * (z.ndim - 2), count)
        return log_sum(heights - 0.5 * (whitened * whitened).sum(axis=-1), axis=-1)

    def rows(self, count: int, labels: Any) -> np.ndarray:
        """The row of weights of each latent vector."""
        if len(self.weights) == 1:
            return np.zeros(count, int)
        if labels is None:
            raise ValueError("the prior is class-conditional: give a label for each latent vector")
        return np.array(labels).astype(int)


def as_mx(array: np.ndarray) -> mx.array:
    return mx.array(array.astype(np.float32))


def np_logsumexp(values: np.ndarray, axis: int) -> np.ndarray:
    highest = values.max(axis=axis, keepdims=True)
    return (highest + np.log(np.exp(values - highest).sum(axis=axis, keepdims=True))).squeeze(axis)


# Fitting


def fit_prior(
    model: Any, split: Images, seed: int = 0, watch: Callable[[str, float, int], None] = lambda *work: None
) -> Mixture:
    """Fit a mixture to the latent vectors of a model's training images; `watch(work, done, total)` sees the progress.

    What is fitted are the posteriors q(z|x) of all images, each with its variance, so that the mixture comes near to
    their sum. The number of components, for each class the same, is the one that is best on posteriors held out.
    """
    classes, count = model.config.classes, len(split.images)
    codes = inference.encode(model, split, watch=lambda done: watch("Encoding", done, count))
    labels = np.asarray(split.labels) if classes else np.zeros(count, int)
    return fit(*codes, [np.flatnonzero(labels == c) for c in range(max(1, classes))], seed, watch)


def fit(
    means: np.ndarray,
    log_vars: np.ndarray,
    groups: list[np.ndarray],
    seed: int = 0,
    watch: Callable[[str, float, int], None] = lambda *work: None,
) -> Mixture:
    """The mixture of posteriors (N, D) each; `groups` are the numbers of those of each class."""
    dims = means.shape[1]
    if not is_possible(dims, len(groups)):
        raise UserError(f"{dims} latent dims are too many for a mixture — sample with --prior normal")
    if not len(means):
        raise UserError("there is no image to fit a prior to — use more images")
    groups = [group if len(group) else np.arange(len(means)) for group in groups]  # a class without images: all
    size = best_size(means, log_vars, groups, seed, watch)
    fitted = []
    for i, group in enumerate(groups):
        fitted.append(em(means[group], log_vars[group], size, np.random.default_rng([seed, size, i])))
        watch("Fitting the prior", 1, len(groups))
    return joined(fitted)


def is_possible(dims: int, classes: int) -> bool:
    """Whether there is a mixture for a model of so many latent dims that files can keep."""
    return numbers_of(1, dims, max(1, classes)) <= LARGEST


def numbers_of(size: int, dims: int, classes: int) -> int:
    """Numbers in a mixture of `size` components for each class."""
    return size * classes * (classes + dims + dims * (dims + 1) // 2)


def best_size(means, log_vars, groups, seed, watch):
    """How many components are best on posteriors held out."""
    dims, best, before = means.shape[1], 1, -math.inf
    for size in SIZES:
        each = [min(len(group), TRIED_ON // len(groups)) for group in groups]
        if numbers_of(size, dims, len(groups)) > LARGEST or size > min(each) / 10:
            break
        total = 0.0
        for i, (group, count) in enumerate(zip(groups, each, strict=True)):
            random = np.random.default_rng([seed, i])
            chosen = random.permutation(group)[:count]
            held_out, kept = chosen[: count // 10], chosen[count // 10 :]
            z = gaussians.reparametrise(means[held_out], log_vars[held_out], random.normal(size=(len(held_out), dims)))
            mixture = em(means[kept], log_vars[kept], size, random)
            total += mixture.log_density(z).mean() / len(groups)
            watch("Choosing the number of components", 1, len(SIZES) * len(groups))
        if total <= before:
            break
        best, before = size, total
    return best


def em(means: np.ndarray, log_vars: np.ndarray, size: int, random: np.random.Generator) -> Mixture:
    """Expectation maximisation: `size` Gaussians for the posteriors of one class, from a k-means++ start."""
    middle = means.mean(axis=0)
    spread = np.sqrt(means.var(axis=0) + np.exp(log_vars).mean(axis=0)) + 1e-12
    posteriors = (means - middle) / spread, np.exp(log_vars) / spread**2  # in units of what all of them spread
    seeds = spread_out(posteriors[0], size, random)

    def nearest(features):
        """The share of a posterior in each component at the start: all of it in the one with the nearest seed."""
        means = features[:, -seeds.shape[1] :]
        return np.eye(size)[((seeds**2).sum(axis=1) - 2 * means @ seeds.T).argmin(axis=1)], 0.0

    sums, before = gathered(posteriors, nearest), -math.inf
    for _ in range(MOST_STEPS):
        weights, centres, covariances = components(*sums[:2])
        sums = gathered(posteriors, shares_in(weights, centres, covariances))
        reached = sums[2] / len(means)
        if reached - before < CONVERGED:
            break
        before = reached
    rows, columns = np.tril_indices(len(middle))
    scales = (np.linalg.cholesky(covariances) * spread[:, None])[:, rows, columns]
    return Mixture(weights[None], centres * spread + middle, scales)


def gathered(posteriors, shares):
    """Sums over all posteriors, by their shares in the components: of these (K,), of the features (K, F), of log p.

    The features of a posterior are what the density of a Gaussian is linear in: the lower triangle of E[z zᵀ], and
    E[z].
    """
    means, variances = posteriors
    rows, columns = np.tril_indices(means.shape[1])
    totals, sums, log_p = 0.0, 0.0, 0.0
    chunk = max(1, min(CHUNK, NUMBERS // len(rows)))
    for start in range(0, len(means), chunk):
        mean = means[start : start + chunk]
        products = mean[:, rows] * mean[:, columns]
        products[:, rows == columns] += variances[start : start + chunk]
        features = np.hstack([products, mean])
        share, logs = shares(features)
        totals, sums, log_p = totals + share.sum(axis=0), sums + share.T @ features, log_p + np.sum(logs)
    return totals, sums, log_p


def components(totals, sums):
    """Weights (K,), centres (K, D) and covariances (K, D, D) of the Gaussians that have these sums."""
    totals = np.maximum(totals, 1e-9)  # of a component that lost all its posteriors
    count, dims = len(totals), dims_of(sums.shape[1])
    rows, columns = np.tril_indices(dims)
    centres = sums[:, -dims:] / totals[:, None]
    covariances = np.empty((count, dims, dims))
    covariances[:, rows, columns] = covariances[:, columns, rows] = sums[:, :-dims] / totals[:, None]
    covariances += FLOOR * np.eye(dims) - centres[:, :, None] * centres[:, None, :]
    return totals / totals.sum(), centres, covariances


def shares_in(weights, centres, covariances):
    """A function from features (N, F) to the shares in these Gaussians (N, K), and log p of each (N,).

    Without the constant of log p, as only its growth matters.
    """
    rows, columns = np.tril_indices(centres.shape[1])
    precisions = np.linalg.inv(covariances)
    towards = (precisions @ centres[:, :, None])[:, :, 0]
    twice = np.where(rows == columns, 1.0, 2.0)  # the lower triangle stands for both
    slopes = np.hstack([-0.5 * twice * precisions[:, rows, columns], towards]).T
    heights = np.log(weights) - 0.5 * np.linalg.slogdet(covariances)[1] - 0.5 * (towards * centres).sum(axis=1)

    def shares(features):
        logs = features @ slopes + heights
        total = np_logsumexp(logs, axis=1)
        return np.exp(logs - total[:, None]), total

    return shares


def dims_of(features: int) -> int:
    """The dimensions of a vector with so many features: D(D+1)/2 products and D means."""
    return (math.isqrt(9 + 8 * features) - 3) // 2


def spread_out(points: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """The seeds of k-means++: each is drawn by its squared distance from those before."""
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
