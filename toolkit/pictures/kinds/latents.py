"""A map of the latent space: the means of the test images as points, coloured by class."""

import math
from typing import Any, NamedTuple

import numpy as np

from toolkit.errors import UserError
from toolkit.pictures.charts import INK, Axes, Canvas, colour, width_of
from toolkit.pictures.subject import Subject

TITLE = "Latent vectors"
CAPTION = "Means of the test images; the circles are one, two and three standard deviations of the prior."
HALF = 128  # transparent


class Plane(NamedTuple):
    """A plane of the latent space, and the positions of vectors on it."""

    places: np.ndarray  # (N, 2)
    middle: np.ndarray  # (D,) the vector at (0, 0)
    directions: np.ndarray  # (2, D) one step to the right, and one upwards
    names: tuple[str, str]


def plane_of(means: np.ndarray) -> Plane:
    """The plane of vectors (N, D): their own if D = 2, otherwise the first two principal components."""
    dims = means.shape[1]
    if len(means) < 2:
        raise UserError("a map needs at least two images — use more images")
    if dims == 1:
        places = np.hstack([means, np.random.default_rng(0).normal(0, 0.3, means.shape)])
        return Plane(places, np.zeros(1), np.eye(2, 1), ("z0", "random, to separate the points"))
    if dims == 2:
        return Plane(means, np.zeros(2), np.eye(2), ("z0", "z1"))
    middle = means.mean(axis=0)
    _, strengths, directions = np.linalg.svd(means - middle, full_matrices=False)
    shares = strengths**2 / ((strengths**2).sum() or 1)  # all means of a collapsed model are equal
    names = tuple(f"principal component {i + 1}, {shares[i]:.0%} of the variance" for i in range(2))
    return Plane((means - middle) @ directions[:2].T, middle, directions[:2], names)


def draw(subject: Subject, _: Any = None) -> np.ndarray:
    """The means of the test images as points, coloured by class; beyond two dimensions, in the widest plane."""
    labels, plane = subject.test.labels, plane_of(subject.latents[0])
    means, names, origin = plane.places, plane.names, -plane.middle @ plane.directions.T
    reach = max(3.3, float(np.quantile(np.abs(means), 0.999)) * 1.08)
    classes = subject.test.class_names if labels is not None else ("test images",)
    colours, few = [colour(i, len(classes)) for i in range(max(2, len(classes)))], len(classes) <= 30
    canvas = Canvas(700 + (30 + int(max(width_of(c) for c in classes)) if few else 0), 720)
    axes = Axes(canvas, (64, 40, 690, 666), (-reach, reach), (-reach, reach), "", names[0])
    canvas.text(64, 30, names[1], 13, "ld", most=80)
    order = np.random.default_rng(0).permutation(len(means))  # no class covers all others
    radius = min(5, max(1.6, 60 / math.sqrt(len(means))))
    for i in order:
        x, y = axes.place(*means[i])
        if 64 <= x <= 690 and 40 <= y <= 666:
            canvas.dot(x, y, radius, (*colours[1 if labels is None else int(labels[i])], HALF))
    for sigma in (1, 2, 3):
        (x, y), (right, top) = axes.place(*origin), axes.place(*origin + sigma)
        canvas.dot(x, y, right - x, outline=INK, width=1.2)
        canvas.text(x, top - 3, f"{sigma} sd", 11, "md", halo=2)
    for i, name in enumerate(classes if few else ()):
        canvas.dot(712, 54 + 20 * i, 5, colours[i + (labels is None)])
        canvas.text(724, 54 + 20 * i, name or "(no folder)", 13, "lm")
    if few and labels is not None:
        middles = {i: axes.place(*np.median(means[labels == i], axis=0)) for i in np.unique(labels).tolist()}
        for i, (x, y) in apart(middles).items():
            canvas.text(x, y, classes[i] or "(no folder)", 16, "mm", halo=3)
    return canvas.finished()


def apart(places: dict[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    """The same places, from the top downwards, those moved down that would cover one above."""
    done: dict[int, tuple[float, float]] = {}
    for i, (x, y) in sorted(places.items(), key=lambda item: item[1][1]):
        while any(abs(x - other) < 30 and abs(y - above) < 18 for other, above in done.values()):
            y += 2
        done[i] = (x, y)
    return done
