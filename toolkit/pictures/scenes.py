"""What a model has learned, in pictures: each scene shows one thing, as bytes (H, W, C), or as frames of an animation.

What they need is a Subject: the model, and the test split with its latent vectors, computed when first asked for.
SCENES is the table of them: what `visualize.py KIND` can be, and which options each kind has.
"""

import math
from collections.abc import Callable
from functools import cached_property
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from toolkit.errors import UserError
from toolkit.formats.checkpoint import Checkpoint
from toolkit.metrics.latents import kl_by_dimension
from toolkit.model import inference
from toolkit.model.inputs import batch
from toolkit.pictures import images, sampling
from toolkit.pictures.charts import INK, Axes, Canvas, colour, width_of

REACH = 3  # standard deviations that a traversal goes to both sides
TILE = 64  # pixels that an image has at least on a page with labels
FRAME = 2**20  # pixels of a frame
STEP, HOLD = 80, 600  # milliseconds that a frame is shown, and one at an end


class Shown(NamedTuple):
    """An image that a picture starts from."""

    pixels: np.ndarray  # (H, W, C) of bytes
    mean: np.ndarray  # (D,)
    label: int | None
    words: str  # what it is
    kl: np.ndarray | None = None  # (D,) its own, of a picture file


class Subject:
    """A model with the test split that `load` brings, and what is computed of them.

    `open_files` brings the pictures of some files.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        load: Callable[[str], Any],
        label: str | None = None,
        sampler: sampling.Sampler | None = None,
        open_files: Callable[[list[str]], Any] | None = None,
    ):
        self.checkpoint, self.model = checkpoint, checkpoint.model
        self.load, self.label = load, label
        self.open_files = open_files
        self.found: dict[int | str, Shown] = {}  # images that were asked for
        self.sampler = sampler or sampling.Sampler(self.model.prior)  # how samples are drawn
        if label != sampling.ALL or not self.model.config.decoder_classes:
            sampling.class_number(checkpoint, label)  # stops where there is no such class

    @cached_property
    def test(self) -> Any:
        return self.load("test")

    @cached_property
    def latents(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and log-variances of all test images."""
        return inference.encode(self.model, self.test)

    @cached_property
    def kl(self) -> np.ndarray:
        """Mean KL of every dimension."""
        return kl_by_dimension(*self.latents)

    @cached_property
    def order(self) -> np.ndarray:
        """The dimensions, most used first."""
        return by_use(self.kl)

    def image(self, which: int | str) -> Shown:
        """A test image by its number, or a picture by its file."""
        if which not in self.found:
            self.found[which] = self.picture(which) if isinstance(which, str) else self.test_image(which)
        return self.found[which]

    def test_image(self, number: int) -> Shown:
        if not 0 <= number < len(self.test.images):
            raise UserError(f"there is no test image {number} — take 0 to {len(self.test.images) - 1}")
        x, _, labels = batch(self.test, np.array([number]), self.model.config)
        label = None if labels is None else int(labels[0].item())
        return Shown(images.to_bytes(x)[0], self.latents[0][number], label, f"test image {number}")

    def picture(self, file: str) -> Shown:
        found = self.open_files([file])
        if len(found.images) > 1:
            raise UserError(f"{file} holds {len(found.images)} pictures — name one of them")
        x, _ = next(inference.reconstruct(self.model, found))
        mean, log_var = inference.encode(self.model, found)
        label = None if found.labels is None else int(found.labels[0])
        return Shown(images.to_bytes(x)[0], mean[0], label, found.names[0], kl_by_dimension(mean, log_var))

    def decode(self, z: np.ndarray, label: int | None = None) -> np.ndarray:
        """Latent vectors (N, D) → bytes; in a class-conditional model of --label, or else of class `label`."""
        labels = None
        if self.label is not None and self.label != sampling.ALL:
            label = sampling.class_number(self.checkpoint, self.label)
        if self.model.config.decoder_classes:
            labels = np.full(len(z), label or 0)
        return images.to_bytes(inference.decode(self.model, np.asarray(z, np.float32), labels))

    def each_class(self) -> list["Subject"]:
        """This subject; with `--label all` one for each class."""
        if self.label != sampling.ALL:
            return [self]
        return [Subject(self.checkpoint, self.load, name, self.sampler) for name in self.checkpoint.class_names]


def by_use(kl: np.ndarray) -> np.ndarray:
    """The dimensions, those of most KL first."""
    return np.argsort(-kl, kind="stable")


# Pages of images with words beside them


def page(rows, left=(), top=(), tile=TILE, block=None, sharp=True, corner=""):
    """Rows of images, (R, C, H, W, C) of bytes, with words to the left of rows, above columns, and in the corner.

    Images are at least `tile` pixels high; with `block`, so many rows stand together.
    """
    rows = np.asarray(rows)
    height, width = rows.shape[2:4]
    scale = max(1, math.ceil(tile / height))
    step_x, step_y = width * scale + images.GAP, height * scale + images.GAP
    corner = shortened(corner)
    margin = 14 + max(map(width_of, [*left, corner]))
    head = 14 + (20 if top else 0)
    apart = 12 * ((len(rows) - 1) // block) if block else 0
    size = (math.ceil(margin + rows.shape[1] * step_x + 12), math.ceil(head + len(rows) * step_y + apart + 12))
    if size[0] * size[1] > (images.LARGEST // 4 if sharp else FRAME):
        raise UserError(f"a picture of {len(rows)}×{rows.shape[1]} images is too large — ask for fewer with --rows")
    canvas = Canvas(*size)
    if corner:
        canvas.text(margin - 8, head - 6, corner, 12, "rd")
    for i, word in enumerate(top):
        canvas.text(margin + i * step_x + width * scale / 2, head - 6, word, 12, "md")
    for r, row in enumerate(rows):
        y = head + r * step_y + (12 * (r // block) if block else 0)
        if r < len(left):
            canvas.text(margin - 8, y + height * scale / 2, left[r], 13, "rm")
        for c, image in enumerate(row):
            canvas.paste(image, margin + c * step_x, y, scale)
    return canvas.finished(sharp)


def shortened(words, most=24):
    """Words of which the middle is left out if they are long, as a file name may be."""
    return words if len(words) <= most else f"{words[: most // 2 - 1]}…{words[-most // 2 :]}"


def there_and_back(frames):
    """An animation that runs to its end, rests there, and runs back to its beginning."""
    frames = [*frames, *frames[-2:0:-1]]
    turning = (0, len(frames) // 2)
    return images.Animation(frames, [HOLD if i in turning else STEP for i in range(len(frames))])


def traversal(subject, which=None, rows=None, columns=11):
    """Rows: dimensions, most used first; columns: an image's mean, or the prior's centre, with that one changed.

    Around a picture file, the KL of the dimensions is its own, so that no data set is needed.
    """
    base, label, kl = np.zeros(subject.model.config.latent_dims), None, None
    if which is not None:
        _, base, label, _, kl = subject.image(which)
    kl = subject.kl if kl is None else kl
    dims = by_use(kl)[: rows or 16]
    steps = np.linspace(-REACH, REACH, columns)
    z = np.repeat(base[None], len(dims) * columns, axis=0).reshape(len(dims), columns, -1)
    for row, dim in enumerate(dims):
        z[row, :, dim] = steps
    shown, left = [], []
    for one in subject.each_class():
        decoded = one.decode(z.reshape(-1, z.shape[2]), label)
        shown.append(decoded.reshape(len(dims), columns, *decoded.shape[1:]))
        of = f"{one.label}: " if one is not subject else ""
        left += [f"{of}z{dim}  {kl[dim]:.2f} nats" for dim in dims]
    return np.concatenate(shown), left, [f"{step:+.1f}" if step else "0" for step in steps]


def traversal_page(subject, which=None, rows=None):
    return page(*traversal(subject, which, rows), corner="" if which is None else subject.image(which).words)


def traversal_frames(subject, which=None, rows=None):
    decoded, left, _ = traversal(subject, which, rows, columns=25)
    across = images.best_columns(len(decoded))
    return there_and_back([tiles(decoded[:, i], [word.split("  ")[0] for word in left], across) for i in range(25)])


def tiles(pictures, words, across):
    """Images in rows of `across`, a word above each."""
    height, width = pictures.shape[1:3]
    scale = max(1, math.ceil(TILE / height))
    step_x, step_y = width * scale + 8, height * scale + 22
    down = -(-len(pictures) // across)
    if across * step_x * down * step_y > FRAME:
        raise UserError(f"an animation of {len(pictures)} images is too large — ask for fewer with --rows")
    canvas = Canvas(across * step_x + 8, down * step_y + 8)
    for i, (picture, word) in enumerate(zip(pictures, words, strict=True)):
        x, y = 8 + i % across * step_x, 22 + i // across * step_y
        canvas.text(x + width * scale / 2, y - 4, word, 12, "md")
        canvas.paste(picture, x, y, scale)
    return canvas.finished()


def between(a, b, share, spherical):
    """A latent vector on the way from a to b: on the straight line, or on the arc around the origin."""
    angle = np.arccos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12), -1, 1))
    if not spherical or np.sin(angle) < 1e-6:
        return (1 - share) * a + share * b
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def pairs_of(subject, count):
    """Numbers of test images to go between: of different classes, or of one class in a class-conditional model."""
    labels, total = subject.test.labels, len(subject.test.images)
    conditional = subject.model.config.decoder_classes > 0
    pairs, free = [], list(range(min(total, 1000)))
    while len(free) > 1 and len(pairs) < count:
        a = free.pop(0)
        b = next((i for i in free if labels is None or (labels[i] == labels[a]) == conditional), None)
        if b is not None:
            free.remove(b)
            pairs.append((a, b))
    if not pairs:
        raise UserError("the test split has no two images to interpolate between — use more images")
    return pairs


def interpolations(subject, rows, columns, chosen=()):
    """For every pair the images on the straight line and on the arc, between the two originals.

    Of images that were chosen, by number or file, each is followed by the next.
    """
    if len(chosen) == 1:
        raise UserError("--images names one image — name two or more to go between")
    pairs = list(zip(chosen, chosen[1:], strict=False)) or pairs_of(subject, rows or 4)
    shown, left = [], []
    for a, b in pairs:
        start, end = subject.image(a), subject.image(b)
        for spherical, word in ((False, "linear"), (True, "spherical")):
            steps = np.linspace(0, 1, columns)
            z = [between(start.mean, end.mean, share, spherical) for share in steps]
            shown.append(np.stack([start.pixels, *subject.decode(z, start.label), end.pixels]))
            names = [f"#{i}" if isinstance(i, int) else shortened(one.words) for i, one in ((a, start), (b, end))]
            left.append(f"{' to '.join(names)}  {word}")
    return np.stack(shown), left


def interpolate_page(subject, rows=None, chosen=()):
    shown, left = interpolations(subject, rows, 9, chosen)
    word = "picture" if any(isinstance(which, str) for which in chosen) else "test image"
    return page(shown, left, [word, *[""] * 9, word])


def interpolate_frames(subject, rows=None, chosen=()):
    """Above the straight lines, below the arcs; a column for each pair."""
    shown, _ = interpolations(subject, rows, 25, chosen)
    lines, arcs = shown[::2, 1:-1], shown[1::2, 1:-1]  # (pairs, 25, H, W, C)
    words = ["linear", "spherical"]
    frames = [page([lines[:, i], arcs[:, i]], words, tile=2 * TILE, sharp=False) for i in range(25)]
    return there_and_back(frames)


def manifold(subject: Subject, side: int | None = None) -> np.ndarray:
    """The plane of the two most used dimensions, in steps that hold equal shares of the prior; upwards is more."""
    side, config = side or 20, subject.model.config
    if config.latent_dims == 1:
        raise UserError("the manifold needs two latent dims, this model has one — see traversal")
    subjects = subject.each_class()
    images.check_sheet(side * side * len(subjects), config.image_size, side)
    steps = [NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)]
    dims = [0, 1] if config.latent_dims == 2 else sorted(subject.order[:2].tolist())
    z = np.zeros((side, side, config.latent_dims))
    z[:, :, dims[0]] = np.array(steps)[None, :]
    z[:, :, dims[1]] = np.array(steps)[::-1, None]
    return images.sheet(np.concatenate([one.decode(z.reshape(side * side, -1)) for one in subjects]), side)


class Plane(NamedTuple):
    """A plane of the latent space, and where vectors lie on it."""

    places: np.ndarray  # (N, 2)
    middle: np.ndarray  # (D,) the vector at (0, 0)
    directions: np.ndarray  # (2, D) one step to the right, and one upwards
    names: tuple[str, str]

    def place(self, z: np.ndarray) -> np.ndarray:
        return (z - self.middle) @ self.directions.T


def plane_of(means: np.ndarray) -> Plane:
    """The plane of vectors (N, D): their own of two dimensions, or else that in which they are spread most."""
    dims = means.shape[1]
    if len(means) < 2:
        raise UserError("a map needs two images at least — use more images")
    if dims == 1:
        places = np.hstack([means, np.random.default_rng(0).normal(0, 0.3, means.shape)])
        return Plane(places, np.zeros(1), np.eye(2, 1), ("z0", "random, to see points apart"))
    if dims == 2:
        return Plane(means, np.zeros(2), np.eye(2), ("z0", "z1"))
    middle = means.mean(axis=0)
    _, strengths, directions = np.linalg.svd(means - middle, full_matrices=False)
    shares = strengths**2 / ((strengths**2).sum() or 1)  # all means of a collapsed model are one
    names = tuple(f"principal component {i + 1}, {shares[i]:.0%} of the variance" for i in range(2))
    return Plane((means - middle) @ directions[:2].T, middle, directions[:2], names)


def latents(subject):
    """The means of the test images as points, coloured by class; of more than two dimensions the widest plane."""
    labels, plane = subject.test.labels, plane_of(subject.latents[0])
    means, names, origin = plane.places, plane.names, plane.place(np.zeros(plane.directions.shape[1]))
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


def samples(subject: Subject, count: int | None = None) -> np.ndarray:
    """A sheet of samples; of a class-conditional model a row of each class, with its name."""
    label = subject.label or (sampling.ALL if subject.model.config.decoder_classes else None)
    made = sampling.samples(subject.checkpoint, subject.sampler, count, label)
    if label != sampling.ALL:
        return made.sheet()
    rows = made.pictures.reshape(-1, made.columns, *made.pictures.shape[1:])
    return page(rows, subject.checkpoint.class_names)


def reconstructions(subject: Subject, count: int | None = None, columns: int = 12) -> np.ndarray:
    """Rows of test images, below them their reconstructions, and the absolute error (black is 0)."""
    count = min(count or 24, len(subject.test.images))
    images.check_sheet(count * 3, subject.model.config.image_size)
    first = subject.test._replace(
        images=subject.test.images[:count], labels=None if subject.test.labels is None else subject.test.labels[:count]
    )
    x, y = (np.concatenate(parts) for parts in zip(*inference.reconstruct(subject.model, first), strict=True))
    error = np.broadcast_to(np.abs(x - y).mean(axis=3, keepdims=True), x.shape)
    columns = min(columns, count)
    blank = -count % columns  # places that the last row leaves empty
    rows, left = [], []
    for start in range(0, count, columns):
        for word, pictures in (("original", x), ("reconstruction", y), ("error", error)):
            row = images.to_bytes(pictures[start : start + columns])
            empty = np.full((blank if len(row) < columns else 0, *row.shape[1:]), 255, np.uint8)
            rows.append(np.concatenate([row, empty]))
            left.append(word)
    return page(rows, left, block=3)


# The table


class Scene(NamedTuple):
    """A kind of picture."""

    about: str  # in one line
    make: Callable[[Subject, Any], np.ndarray]  # from a Subject and the options of visualize.py
    options: tuple[str, ...] = ()  # those that have an effect on it
    frames: Callable[[Subject, Any], images.Animation] | None = None  # the same as an animation, where it can be one
    needs_data: bool = True


SCENES = {
    "traversal": Scene(
        "a latent dimension a row, from -3 to 3; .gif animates it",
        lambda subject, args: traversal_page(subject, args.image, args.rows),
        ("image", "rows", "label"),
        lambda subject, args: traversal_frames(subject, args.image, args.rows),
    ),
    "interpolate": Scene(
        "from one image to another; .gif animates it",
        lambda subject, args: interpolate_page(subject, args.rows, args.images),
        ("images", "rows", "label"),
        lambda subject, args: interpolate_frames(subject, args.rows, args.images),
    ),
    "manifold": Scene(
        "the plane of the two most used latent dimensions",
        lambda subject, args: manifold(subject, args.rows),
        ("rows", "label"),
    ),
    "latents": Scene(
        "the means of the test images, coloured by class",
        lambda subject, args: latents(subject),
    ),
    "samples": Scene(
        "a sheet of samples, with classes a row of each",
        lambda subject, args: samples(subject, args.nsamples),
        ("nsamples", "prior", "temperature", "pixels", "label", "seed"),
        needs_data=False,
    ),
    "reconstructions": Scene(
        "test images, their reconstructions, and the error",
        lambda subject, args: reconstructions(subject, args.nsamples),
        ("nsamples",),
    ),
}
