"""Several models beside each other: the same test images, samples, latent dimensions, curves and metrics."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from toolkit.errors import UserError
from toolkit.formats.description import told_apart
from toolkit.metrics.measure import measure
from toolkit.metrics.words import rows as metric_rows
from toolkit.model import inference
from toolkit.model.inputs import batch
from toolkit.options import option, path
from toolkit.pictures import images, sampling
from toolkit.pictures.charts import UNIT, Axes, Canvas, width_of
from toolkit.pictures.kinds import curves, report, traversal
from toolkit.pictures.layout import PAPER, page, written
from toolkit.pictures.subject import Subject, first_of
from toolkit.training.plan import remembered
from toolkit.wording import counted

TITLE = "Comparison"
CAPTION = ""
MOST = 6  # models in pictures; more are only points and rows of a table
COLUMNS, DIMENSIONS = 10, 3  # images in a row, and latent dimensions of each model
MEASURED = 1000  # test images
SHOWN = ("Loss", "Reconstruction", "KL", "PSNR", "SSIM", "Active units", "Bits per dimension")  # metrics


@dataclass(frozen=True)
class Options:
    models: tuple[str, ...] = option(
        (), "two or more models", "pictures", kind=path, unit="MODEL", several=True, positional=True
    )


class Section(NamedTuple):
    title: str
    caption: str
    picture: np.ndarray | None = None  # None if these models cannot be compared in this way
    table: list[list[str]] | None = None


def draw(subjects: Sequence[Subject], _: Options) -> np.ndarray:
    """All sections below each other."""
    parts = []
    for section in sections(subjects):
        shown = table_of(section.table) if section.table else section.picture
        wide = max(images.WIDE * UNIT, 0 if shown is None else shown.shape[1])
        parts += [written(section.title, wide, 15)]
        parts += [] if shown is None else [coloured(shown)]
        parts += [written(section.caption, wide, 11, (110, 110, 110))]
    wide = max(part.shape[1] for part in parts)
    sides = [((0, 0), (0, wide - part.shape[1]), (0, 0)) for part in parts]
    return np.concatenate([np.pad(part, side, constant_values=PAPER) for part, side in zip(parts, sides, strict=True)])


def write_page(subjects: Sequence[Subject], _: Options) -> str:
    """The same as a page."""
    made = []
    for title, caption, picture, table in sections(subjects):
        shown = "" if picture is None else report.image(picture, title)
        shown = report.rows_of(table) if table else shown
        made.append((title, report.figure(shown, caption)))
    return report.page_of(f"{TITLE}: {title_of(subjects)}", about(subjects), made)


def names(subjects: Sequence[Subject]) -> list[str]:
    """What tells the models apart."""
    known = []
    for subject in subjects:
        options = subject.checkpoint.options
        with suppress(ValueError, UserError):  # of an older version: with the defaults of today
            options = remembered(options).options()
        known.append(options | {"dataset": subject.dataset})
    return told_apart(known, [subject.name for subject in subjects])


def title_of(subjects: Sequence[Subject]) -> str:
    return " and ".join(names(subjects))


def about(subjects: Sequence[Subject]) -> str:
    return "; ".join(f"{name}: {subject.title}" for name, subject in zip(names(subjects), subjects, strict=True))


def sections(subjects: Sequence[Subject]) -> Iterator[Section]:
    """Everything that can be compared; of the rest, why not."""
    for subject in subjects:
        subject.test = first_of(subject.test, MEASURED)
    apart, tested = names(subjects), counted(len(subjects[0].test.images), "test image")
    same = len({subject.dataset for subject in subjects}) == 1
    why = "" if same else "The models were trained on different data."
    if len(subjects) <= MOST:
        yield reconstructions(subjects, apart) if same else Section("Reconstructions", why)
        yield samples(subjects, apart)
        yield traversals(subjects, apart)
        yield usage(subjects, apart, tested)
        runs = [subject.runs[0] for subject in subjects if subject.runs]
        if len(runs) == len(subjects):
            yield Section("Training", curves.CAPTION, curves.draw(runs))
    metrics = [measure(one.model, one.test, None, 0, one.sampler.seed, inference.CHUNK) for one in subjects]
    why = " ".join(filter(None, (why, incomparable(subjects))))
    yield Section("Rate and distortion", why) if why else tradeoff(metrics, apart)
    about = f"On {tested}; ± is the standard error over images."
    yield Section("Metrics", f"{about} {why}".strip(), table=list(table(metrics, apart)))


def reconstructions(subjects: Sequence[Subject], apart: list[str]) -> Section:
    shown, first = [], subjects[0]
    for subject in subjects:
        test = first_of(subject.test, COLUMNS)
        if subject is first:
            shown.append(images.to_bytes(batch(test, np.arange(len(test.images)), subject.model.config).x))
        shown.append(images.to_bytes(np.concatenate([y for _, y in inference.reconstruct(subject.model, test)])))
    caption = "The first test images, and their reconstructions from the mean."
    return Section("Reconstructions", caption, page(alike(shown), ["test image", *apart]))


def samples(subjects: Sequence[Subject], apart: list[str]) -> Section:
    made = [sampling.samples(one.checkpoint, one.sampler, COLUMNS, one.label).pictures for one in subjects]
    words = {name: one.sampler.words for name, one in zip(apart, subjects, strict=True)}
    same = len(set(words.values())) == 1
    dims = len({one.model.config.latent_dims for one in subjects}) == 1
    noise = "The same noise in each column. " if dims and same else ""
    told = words[apart[0]] if same else "; ".join(f"{name}: {of}" for name, of in words.items())
    return Section("Samples", f"{noise}{told[0].upper()}{told[1:]}.", page(alike(made), apart))


def traversals(subjects: Sequence[Subject], apart: list[str]) -> Section:
    rows, left = [], []
    for name, subject in zip(apart, subjects, strict=True):
        shown, words, values = traversal.traverse(subject, rows=DIMENSIONS)
        rows += list(shown)
        left += [f"{name if i == 0 else ''}  {of.split()[0]}" for i, of in enumerate(words)]
    caption = "The dimensions with the largest KL, from −3 to 3; the others are 0."
    dims = [min(DIMENSIONS, subject.model.config.latent_dims) for subject in subjects]
    block = dims[0] if len(set(dims)) == 1 else None
    return Section("Latent traversal", caption, page(alike(rows), left, values, corner="value of z", block=block))


def usage(subjects: Sequence[Subject], apart: list[str], tested: str) -> Section:
    """KL by dimension, largest first, as lines."""
    kl = [np.sort(subject.kl)[::-1] for subject in subjects]
    canvas = Canvas(1000, 330 + 20 * len(kl))
    most = max(map(len, kl))
    axes = Axes(
        canvas, (74, 30, 964, 270), (1, max(2, most)), (0, max(1, *map(np.max, kl))), "", "dimension", "nats", True
    )
    for i, values in enumerate(kl):
        fill = curves.colour_of_run(i)
        places = [axes.place(d + 1, value) for d, value in enumerate(values)]
        if len(places) > 1:
            canvas.line(places, fill, 2)
        for x, y in places:
            canvas.dot(x, y, 3, fill)
    curves.legend(canvas, apart, 330)
    caption = f"Mean KL of each dimension from the standard normal, on {tested}, largest first."
    return Section("KL by dimension", caption, canvas.finished())


def tradeoff(metrics: list[dict], apart: list[str]) -> Section:
    """Rate and distortion of each model as a point."""
    rate, distortion = ([one[name]["mean"] for one in metrics] for name in ("kl", "reconstruction"))
    canvas = Canvas(1000, 400)
    axes = Axes(
        canvas,
        (90, 30, 964, 340),
        around(rate),
        around(distortion),
        "",
        "KL, nats per image",
        "reconstruction, nats per image",
    )
    for i, name in enumerate(apart):
        x, y = axes.place(rate[i], distortion[i])
        canvas.dot(x, y, 5, curves.colour_of_run(i))
        canvas.text(x + (-10 if x > 600 else 10), y, name, 13, "rm" if x > 600 else "lm", halo=2)
    caption = "Rate and distortion: what an image costs in the latent vector, and what is lost."
    return Section("Rate and distortion", caption, canvas.finished())


def around(values: list[float]) -> tuple[float, float]:
    margin = 0.15 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 1.0
    return min(values) - margin, max(values) + margin


def incomparable(subjects: Sequence[Subject]) -> str:
    """Why the losses cannot be compared; empty if they can."""
    for name, words in (("likelihood", "likelihoods"), ("image_size", "image sizes")):
        if len({getattr(subject.model.config, name) for subject in subjects}) > 1:
            return f"Losses at different {words} are not comparable."
    return ""


def table(metrics: list[dict], apart: list[str]) -> Iterator[list[str]]:
    """A row for each metric that all models have, a column for each model."""
    yield ["", *apart]
    values = [{name: value for name, value, _ in metric_rows(one)} for one in metrics]
    for name in SHOWN:
        if all(name in one for one in values):
            yield [name, *(one[name] for one in values)]


def table_of(rows: list[list[str]]) -> np.ndarray:
    """A table as a picture."""
    widths = [max(width_of(row[i]) for row in rows) + 28 for i in range(len(rows[0]))]
    canvas = Canvas(sum(widths), 26 * len(rows), words=True)
    for r, row in enumerate(rows):
        right = 0.0
        for i, (words, width) in enumerate(zip(row, widths, strict=True)):
            right += width
            x = right - 14 if i else 0
            canvas.text(x, 26 * r + 13, words, 13, "rm" if i else "lm")
        canvas.line([(0, 26 * (r + 1) - 1), (right, 26 * (r + 1) - 1)], (225, 225, 225))
    return canvas.finished()


def alike(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of pictures, (N, H, W, C) each, with the size and colours of the largest."""
    count, size = min(map(len, rows)), max(row.shape[1] for row in rows)
    resize: Callable = lambda one: np.asarray(Image.fromarray(one).resize((size, size)))  # noqa: E731
    shown = [coloured(row[:count]) for row in rows]
    return np.stack([row if row.shape[1] == size else np.stack([resize(one) for one in row]) for row in shown])


def coloured(pictures: np.ndarray) -> np.ndarray:
    return np.broadcast_to(pictures, (*pictures.shape[:-1], 3))
