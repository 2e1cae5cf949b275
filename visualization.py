"""What a model has learned, in pictures: each function makes one, as bytes (H, W, C), or several that make a film.

What they need is a Subject: the model, and the test split with its codes, which are computed when first asked for.
"""

import json
import math
from functools import cached_property
from pathlib import Path
from statistics import NormalDist

import mlx.core as mx
import numpy as np

import evaluation
import images
import inference
import vae
from errors import UserError
from files import reason
from plots import COLOURS, INK, Axes, Canvas, colour, spread, width_of

REACH = 3  # standard deviations that a traversal goes to both sides
TILE = 64  # pixels that an image has at least on a page with labels
FILM = 2**20  # pixels of a frame


class Subject:
    """A model with the test split that `load` brings, and what is computed of them."""

    def __init__(self, model, facts, load, seed=0, label=None):
        self.model, self.facts, self.load, self.seed, self.label = model, facts, load, seed, label

    @cached_property
    def test(self):
        return self.load("test")

    @cached_property
    def codes(self):
        """Means and log-variances of all test images."""
        return evaluation.codes(self.model, self.test, 250)

    @cached_property
    def kl(self):
        """Mean KL of every dimension."""
        return evaluation.kl_by_dimension(*self.codes).mean(axis=0)

    @cached_property
    def order(self):
        """The dimensions, most used first."""
        return np.argsort(-self.kl, kind="stable")

    def image(self, number):
        """A test image by its number: bytes (H, W, C), mean code, label."""
        if not 0 <= number < len(self.test.images):
            raise UserError(f"there is no test image {number} — take 0 to {len(self.test.images) - 1}")
        batch = inference.inputs(self.test, np.array([number]))
        x = vae.to_floats(batch[0], self.model.config, vae.image_keys(batch[1]))
        label = None if batch[2] is None else int(batch[2][0].item())
        return images.to_bytes(x)[0], self.codes[0][number], label

    def decode(self, codes, label=None):
        """Codes (N, D) → bytes; of the class asked for, or else of class `label`, in a class-conditional model."""
        labels = None
        if self.label is not None:
            labels = inference.labels(self.model, self.facts, self.label, len(codes))
        elif self.model.config.classes:
            labels = np.full(len(codes), label or 0)
        return images.to_bytes(inference.decode(self.model, mx.array(np.asarray(codes, np.float32)), labels))


# Pages of images with words beside them


def page(rows, left=(), top=()):
    """Rows of images, (R, C, H, W, C) of bytes, with words to the left of rows and above columns."""
    rows = np.asarray(rows)
    height, width = rows.shape[2:4]
    scale = max(1, math.ceil(TILE / height))
    step_x, step_y = width * scale + images.GAP, height * scale + images.GAP
    margin = 14 + max((width_of(word) for word in left), default=0)
    head = 14 + (20 if top else 0)
    size = (math.ceil(margin + rows.shape[1] * step_x + 12), math.ceil(head + len(rows) * step_y + 12))
    if size[0] * size[1] > images.LARGEST // 4:
        raise UserError(f"a picture of {len(rows)}×{rows.shape[1]} images is too large — ask for fewer with --rows")
    canvas = Canvas(*size)
    for i, word in enumerate(top):
        canvas.text(margin + i * step_x + width * scale / 2, head - 6, word, 12, "md")
    for r, row in enumerate(rows):
        y = head + r * step_y
        if r < len(left):
            canvas.text(margin - 8, y + height * scale / 2, left[r], 13, "rm")
        for c, image in enumerate(row):
            canvas.paste(image, margin + c * step_x, y, scale)
    return canvas.finished()


def there_and_back(frames):
    """A film that runs to its end and back to its beginning."""
    return [*frames, *frames[-2:0:-1]]


def traversal(subject, number=None, rows=None, columns=11):
    """Rows: dimensions, most used first; columns: an image's code, or the prior's middle, with that one changed."""
    dims = subject.order[: rows or 16]
    base, label = np.zeros(subject.model.config.latent_dims), None
    if number is not None:
        _, base, label = subject.image(number)
    steps = np.linspace(-REACH, REACH, columns)
    codes = np.repeat(base[None], len(dims) * columns, axis=0).reshape(len(dims), columns, -1)
    for row, dim in enumerate(dims):
        codes[row, :, dim] = steps
    decoded = subject.decode(codes.reshape(-1, codes.shape[2]), label)
    decoded = decoded.reshape(len(dims), columns, *decoded.shape[1:])
    left = [f"z{dim}  {subject.kl[dim]:.2f} nats" for dim in dims]
    return decoded, left, [f"{step:+.1f}" if step else "0" for step in steps]


def traversal_page(subject, number=None, rows=None):
    return page(*traversal(subject, number, rows))


def traversal_film(subject, number=None, rows=None):
    decoded, left, _ = traversal(subject, number, rows, columns=25)
    across = images.best_columns(len(decoded))
    return there_and_back([tiles(decoded[:, i], [word.split()[0] for word in left], across) for i in range(25)])


def tiles(pictures, words, across):
    """Images in rows of `across`, a word above each."""
    height, width = pictures.shape[1:3]
    scale = max(1, math.ceil(TILE / height))
    step_x, step_y = width * scale + 8, height * scale + 22
    down = -(-len(pictures) // across)
    if across * step_x * down * step_y > FILM:
        raise UserError(f"a film of {len(pictures)} images is too large — ask for fewer with --rows")
    canvas = Canvas(across * step_x + 8, down * step_y + 8)
    for i, (picture, word) in enumerate(zip(pictures, words, strict=True)):
        x, y = 8 + i % across * step_x, 22 + i // across * step_y
        canvas.text(x + width * scale / 2, y - 4, word, 12, "md")
        canvas.paste(picture, x, y, scale)
    return canvas.finished()


def between(a, b, share, spherical):
    """A code on the way from a to b: on the straight line, or on the arc around the origin."""
    angle = np.arccos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12), -1, 1))
    if not spherical or np.sin(angle) < 1e-6:
        return (1 - share) * a + share * b
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def pairs_of(subject, count):
    """Numbers of test images to go between: of different classes, or of one where the decoder is told the class."""
    labels, total = subject.test.labels, len(subject.test.images)
    conditional = subject.model.config.classes > 0
    pairs, free = [], list(range(min(total, 1000)))
    while len(free) > 1 and len(pairs) < count:
        a = free.pop(0)
        b = next((i for i in free if labels is None or (labels[i] == labels[a]) == conditional), None)
        if b is not None:
            free.remove(b)
            pairs.append((a, b))
    if not pairs:
        raise UserError("the test split has no two images to go between — use more images")
    return pairs


def interpolations(subject, rows, columns):
    """For every pair the images of the straight way and of the arc, between the two originals."""
    shown, left = [], []
    for a, b in pairs_of(subject, rows or 4):
        (image_a, code_a, label), (image_b, code_b, _) = subject.image(a), subject.image(b)
        for spherical, word in ((False, "linear"), (True, "spherical")):
            codes = [between(code_a, code_b, share, spherical) for share in np.linspace(0, 1, columns)]
            shown.append(np.concatenate([image_a[None], subject.decode(codes, label), image_b[None]]))
            left.append(f"{a} to {b}  {word}")
    return np.stack(shown), left


def interpolate_page(subject, rows=None):
    shown, left = interpolations(subject, rows, 9)
    return page(shown, left, ["test image", *[""] * 9, "test image"])


def interpolate_film(subject, rows=None):
    """Above the straight ways, below the arcs."""
    shown, _ = interpolations(subject, rows, 25)
    shown = np.concatenate([shown[::2], shown[1::2]])
    pairs = len(shown) // 2
    words = ["linear"] * pairs + ["spherical"] * pairs
    return there_and_back([tiles(shown[:, i], words, pairs) for i in range(1, 26)])


def manifold(subject, side=None):
    """The plane of the two most used dimensions, where equal steps hold equal shares of the prior; upwards is more."""
    side = side or 20
    images.check_sheet(side * side, subject.model.config.image_size, side)
    steps = np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])
    dims = [0, 1] if subject.model.config.latent_dims == 2 else sorted(subject.order[:2].tolist())
    if subject.model.config.latent_dims == 1:
        raise UserError("the manifold needs two latent dims, this model has one — see traversal")
    codes = np.zeros((side, side, subject.model.config.latent_dims))
    codes[:, :, dims[0]] = steps[None]
    codes[:, :, dims[1]] = steps[::-1, None]
    return images.sheet(subject.decode(codes.reshape(side * side, -1)), side)


def latents(subject):
    """The mean codes of the test images as points, coloured by class; of more than two dimensions the widest plane."""
    means, labels = subject.codes[0], subject.test.labels
    dims, origin = means.shape[1], np.zeros(2)
    if len(means) < 2:
        raise UserError("one image makes no map of codes — use more images")
    if dims == 1:
        means = np.hstack([means, np.random.default_rng(0).normal(0, 0.3, means.shape)])
        names = ("z0", "chance, to see points apart")
    elif dims == 2:
        names = ("z0", "z1")
    else:
        centred = means - means.mean(axis=0)
        _, strengths, directions = np.linalg.svd(centred, full_matrices=False)
        shares = strengths**2 / (strengths**2).sum()
        origin = -means.mean(axis=0) @ directions[:2].T  # where the middle of the prior is, on this map
        means = centred @ directions[:2].T
        names = tuple(f"principal component {i + 1}, {shares[i]:.0%} of the variance" for i in range(2))
    reach = max(3.3, float(np.quantile(np.abs(means), 0.999)) * 1.08)
    classes = subject.test.classes if labels is not None else ("test images",)
    few = len(classes) <= 30
    canvas = Canvas(720 + (20 + int(max(width_of(c) for c in classes)) if few else 0), 720)
    axes = Axes(canvas, (64, 40, 690, 666), (-reach, reach), (-reach, reach), "", names[0])
    canvas.text(64, 30, names[1], 13, "ld")
    order = np.random.default_rng(0).permutation(len(means))  # no class lies on top of all others
    radius = min(5, max(1.6, 60 / math.sqrt(len(means))))
    for i in order:
        x, y = axes.place(*means[i])
        if 64 <= x <= 690 and 40 <= y <= 666:
            canvas.dot(x, y, radius, colour(int(labels[i]) if labels is not None else 1, len(classes)))
    for sigma in (1, 2, 3):
        x0, y0 = axes.place(*origin)
        x1, y1 = axes.place(*origin + sigma)
        canvas.ring(x0, y0, x1 - x0, y0 - y1, INK, 1.2)
        canvas.text(x0, y1 - 3, f"{sigma} sd of the prior", 11, "md", halo=2)
    for i, name in enumerate(classes if few else ()):
        canvas.dot(712, 54 + 20 * i, 5, colour(i if labels is not None else 1, len(classes)))
        canvas.text(724, 54 + 20 * i, name or "(no folder)", 13, "lm")
    return canvas.finished(sharp=True)


def samples(subject, count=None, temperature=1.0):
    """A sheet of samples, or a row of each class; codes are drawn `temperature` times as wide as the prior."""
    classes, size = subject.model.config.classes, subject.model.config.image_size
    if classes and subject.label in (None, "all"):
        columns = max(1, (count or 128) // classes)
        images.check_sheet(columns * classes, size, columns)
        codes, labels = inference.one_row_a_class(subject.model, columns, subject.seed)
    else:
        columns = images.check_sheet(count or 128, size)
        codes = inference.prior_codes(subject.model, count or 128, subject.seed)
        labels = inference.labels(subject.model, subject.facts, subject.label, len(codes))
    decoded = inference.decode(subject.model, temperature * codes, labels)
    return images.sheet(images.to_bytes(decoded), columns)


def reconstructions(subject, count=None):
    """Test images: the original, its reconstruction, and what differs (white is no difference)."""
    count = min(count or 24, len(subject.test.images))
    first = subject.test._replace(
        images=subject.test.images[:count], labels=None if subject.test.labels is None else subject.test.labels[:count]
    )
    x, y = (np.concatenate(parts) for parts in zip(*inference.reconstructions(subject.model, first), strict=True))
    triples = np.concatenate([images.to_bytes(a) for a in (x, y, 1 - np.abs(x - y))], axis=2)
    images.check_sheet(count * 3, subject.model.config.image_size)
    return images.sheet(triples, columns=min(4, count))


# Curves of training


def read_log(path):
    """The epochs of a run's log."""
    path = Path(path)
    path = path / "log.jsonl" if path.is_dir() else path
    try:
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        entries = [entry for entry in entries if entry["epoch"] > 0]
        for entry in entries:
            figures = [part[key] for part in (entry, entry["test"]) for key in ("loss", "reconstruction", "kl")]
            if not all(math.isfinite(figure) for figure in (*figures, entry["images_per_second"])):
                raise ValueError
    except OSError as error:
        raise UserError(
            f"cannot read the log {path}: {reason(error)} — name a run's folder or log with --logs"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no log of a run, or damaged — name a run's folder or log with --logs") from None
    if not entries:
        raise UserError(f"{path} has no epoch yet — train at least one")
    return entries


def curves(paths):
    """Loss, reconstruction, KL and throughput of several runs over their epochs."""
    runs = [(run_name(path), read_log(path)) for path in paths]
    legend = 26 + 20 * len(runs)
    canvas = Canvas(1000, 700 + legend)
    last = max(run[-1]["epoch"] for _, run in runs)
    panels = (
        ("Loss (negative ELBO)", "nats per image", "loss", True),
        ("Reconstruction", "per image", "reconstruction", True),
        ("KL", "nats per image", "kl", True),
        ("Throughput", "images per second", "images_per_second", False),
    )
    for i, (title, unit, key, tested) in enumerate(panels):
        left, top = 74 + 490 * (i % 2), 50 + 330 * (i // 2)
        values = [entry[key] for _, run in runs for entry in run]
        values += [entry["test"][key] for _, run in runs for entry in run if tested]
        low, high = spread(values)
        low = max(0, low) if min(values) >= 0 else low
        box = (left, top, left + 400, top + 240)
        axes = Axes(canvas, box, (0, max(2, last)), (low, high), title, "epoch", unit, whole=True)
        for r, (_, run) in enumerate(runs):
            draw_curve(canvas, axes, [(e["epoch"], e[key]) for e in run], colour_of_run(r), 1.6)
            if tested:
                points = [(e["epoch"], e["test"][key]) for e in run]
                draw_curve(canvas, axes, points, colour_of_run(r), 1.6, dashed=True)
    for r, (name, _) in enumerate(runs):
        y = 690 + 20 * r
        canvas.line([(74, y), (104, y)], colour_of_run(r), 2)
        canvas.text(112, y, name[-90:], 13, "lm")
    canvas.text(950, 690, "solid: training, dashed: test", 13, "rm")
    return canvas.finished(sharp=True)


def colour_of_run(i):
    return COLOURS[(1, 0, 3, 8, 6, 5, 9, 7, 4, 2)[i % 10]]


def run_name(path):
    """What a run is called: the name of its folder, with that of the run above it, if there is one."""
    folder = Path(path).absolute()
    folder = folder.parent if folder.name == "log.jsonl" else folder
    return f"{folder.parent.name}/{folder.name}"


def draw_curve(canvas, axes, points, fill, width, dashed=False):
    places = [axes.place(*point) for point in points]
    if len(places) == 1:
        canvas.dot(*places[0], 3, fill)
    elif not dashed:
        canvas.line(places, fill, width)
    else:
        for a, b in zip(places, places[1:], strict=False):
            length = math.hypot(b[0] - a[0], b[1] - a[1])
            pieces = max(1, round(length / 6))
            for k in range(0, pieces, 2):
                ends = [(a[0] + (b[0] - a[0]) * t / pieces, a[1] + (b[1] - a[1]) * t / pieces) for t in (k, k + 1)]
                canvas.line(ends, fill, width)
