"""Curves of training: loss, reconstruction and KL of one or more runs over their epochs."""

import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.formats import checkpoint
from toolkit.formats.description import in_words, told_apart
from toolkit.pictures.charts import COLOURS, Axes, Canvas
from toolkit.training import log
from toolkit.wording import public_name

TITLE = "Training"
CAPTION = "Solid: training; dashed: test. The y-axes omit outliers, such as the first epochs."
PANELS = (  # title, unit, key, and the box of the axes
    ("Loss", "nats per image", "loss", (74, 40, 964, 330)),
    ("Reconstruction", "nats per image", "reconstruction", (74, 420, 474, 660)),
    ("KL", "nats per image", "kl", (564, 420, 964, 660)),
)
WIDTH, DASH = 1.6, 6  # units
FENCE = 5  # interquartile ranges beyond the quartiles, where an axis ends: the first epochs do not flatten the rest


def draw(paths: Sequence[Path | str], _: Any = None) -> np.ndarray:
    """A chart with three panels; `paths` are runs' folders or logs."""
    if not paths:
        raise UserError("this model has no run folder next to it — give a run's folder or log with --logs")
    runs = [log.read(path) for path in paths]
    canvas = Canvas(1000, 716 + 20 * len(runs))
    last = max(run[-1]["epoch"] for run in runs)
    for title, unit, key, box in PANELS:
        low, high = robust([each[key] for run in runs for entry in run for each in (entry, entry["test"])])
        axes = Axes(canvas, box, (1, max(2, last)), (low, high), title, "epoch", unit, whole=True)
        for r, run in enumerate(runs):
            plot(canvas, axes, [(entry["epoch"], entry[key]) for entry in run], colour_of_run(r))
            plot(canvas, axes, [(entry["epoch"], entry["test"][key]) for entry in run], colour_of_run(r), DASH)
            best = min(run, key=lambda entry: entry["test"]["loss"])
            if key == "loss" and low <= best["test"][key] <= high:
                x, y = axes.place(best["epoch"], best["test"][key])
                canvas.dot(x, y, 4, colour_of_run(r))
                words, side = (
                    f"lowest test loss {best['test'][key]:.2f}, epoch {best['epoch']}",
                    "rd" if x > 500 else "ld",
                )
                canvas.text(x, y - 8 - 18 * r, words, 12, side, colour_of_run(r), halo=2)
    legend(canvas, names(paths), 716)
    return canvas.finished()


def legend(canvas: Canvas, words: Sequence[str], top: float) -> None:
    """The name of each run beside its colour, below each other."""
    for r, name in enumerate(words):
        y = top + 20 * r
        canvas.line([(74, y), (104, y)], colour_of_run(r), 2)
        canvas.text(112, y, name, 13, "lm", most=90)


def robust(values: list[float]) -> tuple[float, float]:
    """The range of an axis, with a margin: that of the values but for those far from most of them."""
    first, third = np.quantile(values, [0.25, 0.75])
    far = FENCE * (third - first)
    near = [value for value in values if first - far <= value <= third + far]
    low, high = min(near), max(near)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return (max(0, low - margin) if min(values) >= 0 else low - margin), high + margin


def colour_of_run(i: int) -> tuple[int, int, int]:
    return COLOURS[(1, 0, 3, 8, 6, 5, 9, 7, 4, 2)[i % 10]]


def names(paths: Sequence[Path | str]) -> list[str]:
    """Names of runs: one in words, several by the options that differ or, without them, by their folders."""
    folders = [Path(path).absolute() for path in paths]
    folders = [folder.parent if folder.name == "log.jsonl" else folder for folder in folders]
    options: list[dict[str, Any]] = []
    with suppress(UserError):  # of a run whose state is gone
        options = [checkpoint.read(folder / "state.npz").facts.get("options", {}) for folder in folders]
        options = [each | {"dataset": public_name(each.get("dataset", ""))} for each in options]
    if len(options) == 1:
        (own,) = options
        return [in_words(own.get("dataset", ""), own.get("latent_dims", 0), own.get("conditional", False), own)]
    alike = len({folder.name for folder in folders}) < len(folders)
    own = [f"{folder.parent.name}/{folder.name}" if alike else folder.name for folder in folders]
    return told_apart(options, own)


def plot(canvas, axes, points, fill, dash=math.inf):
    """A line through points, clipped to the axes; dashes continue across segments."""
    _, top, _, bottom = axes.box
    places, length = [axes.place(*point) for point in points], 0.0
    if len(places) == 1:
        canvas.dot(*places[0], 3, fill)
    for (x, y), (to_x, to_y) in pairwise(places):
        inside = (0, 1) if top <= y <= bottom else (0, 0)  # of a level line
        start, end = sorted(np.clip((edge - y) / (to_y - y), 0, 1) for edge in (top, bottom)) if to_y != y else inside
        if start == end:
            continue
        whole = math.dist((x, y), (to_x, to_y)) * (end - start)
        first = math.floor(length / dash)
        changes = [n * dash - length for n in range(first + 1, math.ceil((length + whole) / dash))]
        for n, ends in enumerate(pairwise([0.0, *changes, whole]), first):
            if n % 2 == 0:  # ink
                shares = [start + (end - start) * along / whole for along in ends]
                canvas.line([(x + (to_x - x) * share, y + (to_y - y) * share) for share in shares], fill, WIDTH)
        length += whole
