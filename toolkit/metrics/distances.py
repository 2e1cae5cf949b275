"""Distances between two sets of pictures, from their features (N, F): is one set as good, and as varied, as the other?

Fréchet distance (Heusel et al. 2017), precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et
al. 2020), as their authors define them. In NumPy, with float64.
"""

import numpy as np

CHUNK = 500  # rows of a matrix of distances at a time
NEIGHBOURS = 5  # as in evaluate.py


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Fréchet distance of the Gaussians with the same means and covariances; needs more rows than features."""
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(axis=0), np.atleast_2d(np.cov(x.T))) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The squared distances between rows, (N, F) and (M, F) → (N, M)."""
    return np.maximum(0, np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T)


def radii(features: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """The squared distance of each row to its k-th nearest neighbour among the others."""
    parts = (squared(features[i : i + CHUNK], features) for i in range(0, len(features), CHUNK))
    return np.concatenate([np.partition(part, k, axis=1)[:, k] for part in parts])  # each is its own nearest


def nearest(features: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest row of `among` to each row, and its distance."""
    numbers, distances, few = [], [], CHUNK // 2
    features, among = features.astype(np.float32), among.astype(np.float32)  # as there may be very many
    for i in range(0, len(features), few):
        part = squared(features[i : i + few], among)
        numbers.append(part.argmin(axis=1))
        distances.append(np.sqrt(part.min(axis=1)))
    return np.concatenate(numbers), np.concatenate(distances)


def manifold(real: np.ndarray, made: np.ndarray, around_real: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage, from features and `radii(real, k)`; needs more than k rows of each."""
    around_made = radii(made, k)
    within = np.zeros(len(made))  # the number of balls around real pictures in which each of the others lies
    recalled, covered = [], []
    for i in range(0, len(real), CHUNK):
        distances = squared(real[i : i + CHUNK], made)
        is_within = distances < around_real[i : i + CHUNK, None]
        within += is_within.sum(axis=0)
        recalled.append((distances < around_made).any(axis=1))
        covered.append(is_within.any(axis=1))
    return {
        "precision": float((within > 0).mean()),
        "recall": float(np.concatenate(recalled).mean()),
        "density": float(within.mean() / k),
        "coverage": float(np.concatenate(covered).mean()),
    }
