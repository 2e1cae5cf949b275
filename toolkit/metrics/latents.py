"""What latent vectors encode: information about images and their classes. In NumPy, with float64 where it matters."""

import math
from typing import Any

import mlx.core as mx
import numpy as np

from toolkit.files.progress import shown
from toolkit.random import generator

NEIGHBOURS = 5
STEPS = 300  # of training the linear probe


def information(
    means: np.ndarray, log_vars: np.ndarray, prior: Any, seed: int, labels: np.ndarray | None = None
) -> tuple[float, float]:
    """The two parts of the mean KL: mutual information I(x; z), and KL of the aggregate posterior from the prior.

    The density of the aggregate posterior is estimated as the mean of the N posteriors' densities, so the estimate of
    I(x; z) cannot exceed log N.
    """
    count, dims = means.shape
    z = means + np.exp(0.5 * log_vars) * generator(seed, 1).normal(size=means.shape)
    precision = np.exp(-log_vars)
    constant = -0.5 * ((means**2 * precision + log_vars).sum(axis=1) + dims * math.log(2 * math.pi))
    aggregate, of_prior = np.empty(count), np.empty(count)
    for start in shown(range(0, count, 500), "Comparing latent vectors"):
        part = z[start : start + 500]
        known = None if labels is None else mx.array(labels[start : start + 500])
        of_prior[start : start + 500] = np.array(prior.log_density(mx.array(part.astype(np.float32)), known))
        densities = constant + part @ (means * precision).T - 0.5 * part**2 @ precision.T  # (n, N) log q(z_i | x_j)
        highest = densities.max(axis=1)
        aggregate[start : start + 500] = highest + np.log(np.exp(densities - highest[:, None]).mean(axis=1))
    own = -0.5 * (math.log(2 * math.pi) + log_vars + (z - means) ** 2 * precision).sum(axis=1)
    return float((own - aggregate).mean()), float((aggregate - of_prior).mean())


def kl_by_dimension(means: np.ndarray, log_vars: np.ndarray) -> np.ndarray:
    """The mean KL of each dimension from the standard normal, whatever the prior; dimensions are ordered by it."""
    return (0.5 * (means**2 + np.exp(log_vars) - 1 - log_vars)).mean(axis=0)


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, classes: int
) -> float:
    """Test accuracy of a linear softmax classifier of posterior means, trained on the training split."""
    shift, scale = train.mean(axis=0), train.std(axis=0) + 1e-8
    train, test = ((np.hstack([(a - shift) / scale, np.ones((len(a), 1))])).astype(np.float32) for a in (train, test))
    weights = np.zeros((train.shape[1], classes), np.float32)
    before, momentum = weights, weights
    # Nesterov's method; the step is safe because the curvature is at most half the largest eigenvalue.
    rate = 2 / np.linalg.eigvalsh(train.T.astype(np.float64) @ train / len(train)).max()
    rows = np.arange(len(train))
    for i in shown(range(STEPS), "Training the linear probe"):
        scores = train @ momentum
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        scores[rows, train_labels] -= 1
        before, weights = weights, momentum - rate * (train.T @ scores) / len(train)
        momentum = weights + i / (i + 3) * (weights - before)
    return float(((test @ weights).argmax(axis=1) == test_labels).mean())


def nearest_neighbours(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, classes: int
) -> float:
    """Test accuracy of the majority class among the nearest training means; the nearest one breaks ties."""
    train = train.astype(np.float32)
    lengths = (train**2).sum(axis=1)
    correct, count = 0, min(NEIGHBOURS, len(train))
    for start in shown(range(0, len(test), 200), "Finding nearest neighbours"):
        part = test[start : start + 200].astype(np.float32)
        distances = lengths - 2 * part @ train.T
        nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(distances, nearest, axis=1).argsort(axis=1)
        labels = train_labels[np.take_along_axis(nearest, order, axis=1)]  # (n, count), the nearest first
        votes = (labels[:, :, None] == np.arange(classes)).sum(axis=1) + 0.0
        votes[np.arange(len(part)), labels[:, 0]] += 0.5
        correct += (votes.argmax(axis=1) == test_labels[start : start + 200]).sum()
    return float(correct / len(test))
