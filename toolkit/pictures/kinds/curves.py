"""Curves of training: loss, reconstruction, KL and throughput of one or more runs over their epochs."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.pictures.charts import COLOURS, Axes, Canvas, spread
from toolkit.training import log

PANELS = (  # title, unit, key, whether it is measured on the test split too
    ("Loss", "nats per image", "loss", True),
    ("Reconstruction", "per image", "reconstruction", True),
    ("KL", "nats per image", "kl", True),
    ("Throughput", "images per second", "images_per_second", False),
)
WIDTH = 1.6  # pixels


def draw(paths: Sequence[Path | str], _: Any = None) -> np.ndarray:
    """A chart with four panels; `paths` are runs' folders or logs."""
    if not paths:
        raise UserError("no run lies beside this model — name the folder or log of one with --logs")
    runs = [(run_name(path), log.read(path)) for path in paths]
    legend = 26 + 20 * len(runs)
    canvas = Canvas(1000, 700 + legend)
    last = max(run[-1]["epoch"] for _, run in runs)
    for i, (title, unit, key, tested) in enumerate(PANELS):
        left, top = 74 + 490 * (i % 2), 50 + 330 * (i // 2)
        values = [entry[key] for _, run in runs for entry in run]
        values += [entry["test"][key] for _, run in runs for entry in run if tested]
        low, high = spread(values)
        low = max(0, low) if min(values) >= 0 else low
        box = (left, top, left + 400, top + 240)
        axes = Axes(canvas, box, (0, max(2, last)), (low, high), title, "epoch", unit, whole=True)
        for r, (_, run) in enumerate(runs):
            plot(canvas, axes, [(e["epoch"], e[key]) for e in run], colour_of_run(r))
            if tested:
                plot(canvas, axes, [(e["epoch"], e["test"][key]) for e in run], colour_of_run(r), dashed=True)
    for r, (name, _) in enumerate(runs):
        y = 690 + 20 * r
        canvas.line([(74, y), (104, y)], colour_of_run(r), 2)
        canvas.text(112, y, name[-90:], 13, "lm")
    canvas.text(950, 690, "solid: training, dashed: test", 13, "rm")
    return canvas.finished(sharp=True)


def colour_of_run(i: int) -> tuple[int, int, int]:
    return COLOURS[(1, 0, 3, 8, 6, 5, 9, 7, 4, 2)[i % 10]]


def run_name(path: Path | str) -> str:
    """What a run is called: the name of its folder, with that of the folder it is in."""
    folder = Path(path).absolute()
    folder = folder.parent if folder.name == "log.jsonl" else folder
    return f"{folder.parent.name}/{folder.name}"


def plot(canvas, axes, points, fill, dashed=False):
    places = [axes.place(*point) for point in points]
    if len(places) == 1:
        canvas.dot(*places[0], 3, fill)
    elif not dashed:
        canvas.line(places, fill, WIDTH)
    else:
        for a, b in zip(places, places[1:], strict=False):
            length = math.hypot(b[0] - a[0], b[1] - a[1])
            pieces = max(1, round(length / 6))
            for k in range(0, pieces, 2):
                ends = [(a[0] + (b[0] - a[0]) * t / pieces, a[1] + (b[1] - a[1]) * t / pieces) for t in (k, k + 1)]
                canvas.line(ends, fill, WIDTH)
