"""Synthetic digits that look handwritten: any number of them from a random seed, without files or a network.

A digit is one to three pen strokes, given by a few points that a smooth curve runs through. For each image the points
are jittered, then the curve is slanted, rotated, scaled, shifted and warped. The ink is a row of soft round dots along
it: because a Gaussian dot is a product of a row and a column profile, the dots of an image add up in one small matrix
product, so thousands of images are drawn in a second.
"""

import numpy as np

SIZE = 28  # pixels, as in MNIST
DOTS = 72  # of ink in an image
CHUNK = 1000  # images drawn at once; each chunk has its own seed, so a longer set begins like a shorter one
CLASSES = tuple("0123456789")
COUNTS = {"train": 60_000, "test": 10_000}
SEEDS = {"train": 0, "test": 1}

# Each digit has forms; strokes are separated by bars, their points (x y, in hundredths of a square, y downwards) by
# commas. A point given twice is a sharp corner.
FORMS = [
    (0, "55 0, 22 18, 12 55, 30 95, 62 95, 85 60, 80 20, 50 0"),
    (0, "60 4, 30 8, 10 50, 25 92, 60 98, 90 60, 85 15, 50 2"),
    (1, "50 0, 50 35, 50 70, 50 100"),
    (1, "30 20, 42 12, 54 0, 54 0, 53 50, 52 100"),
    (1, "30 20, 52 0, 52 0, 52 50, 52 100 | 28 100, 50 100, 76 100"),
    (2, "15 25, 30 5, 62 2, 80 25, 62 55, 12 98, 12 98, 50 95, 90 98"),
    (2, "15 20, 40 0, 75 12, 72 42, 42 78, 16 95, 14 80, 36 78, 62 95, 92 90"),
    (3, "15 12, 45 0, 75 15, 68 38, 40 48, 40 48, 75 58, 80 85, 45 100, 12 88"),
    (3, "15 5, 50 3, 80 5, 80 5, 60 25, 42 42, 42 42, 78 55, 80 85, 45 100, 12 90"),
    (4, "25 5, 20 30, 15 55, 15 55, 50 56, 88 52 | 72 5, 70 50, 66 100"),
    (4, "66 100, 68 50, 70 0, 70 0, 40 35, 10 65, 10 65, 50 66, 92 64"),
    (5, "80 2, 50 3, 25 4, 25 4, 22 25, 20 44, 20 44, 50 38, 80 55, 80 82, 50 100, 12 90"),
    (5, "26 5, 22 25, 20 46, 20 46, 52 40, 78 58, 76 85, 48 100, 14 92 | 26 5, 55 5, 85 2"),
    (6, "70 0, 42 20, 20 55, 25 88, 52 100, 78 85, 74 62, 50 52, 22 70"),
    (6, "62 0, 30 25, 15 62, 30 95, 62 98, 84 76, 66 54, 36 62, 24 82"),
    (7, "12 6, 50 5, 85 3, 85 3, 65 40, 48 70, 40 100"),
    (7, "12 14, 16 5, 50 6, 86 2, 86 2, 62 40, 50 70, 42 100 | 34 52, 55 50, 78 48"),
    (8, "75 15, 50 0, 24 14, 34 38, 66 58, 80 82, 50 100, 20 84, 34 58, 66 38, 75 15"),
    (8, "50 46, 24 28, 34 4, 66 3, 76 26, 50 46 | 50 46, 18 68, 28 97, 70 98, 82 70, 50 46"),
    (9, "76 20, 52 2, 22 18, 26 44, 55 48, 76 20, 76 20, 74 60, 66 100"),
    (9, "78 12, 46 0, 18 24, 36 50, 68 36, 78 12, 78 12, 80 55, 66 90, 30 100"),
]


def load(split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One split, as large as MNIST's or `limit`: images (N, 28, 28, 1) as bytes, and labels (N,)."""
    return digits(min(limit or COUNTS[split], COUNTS[split]), SEEDS[split])


def digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` digits: images (count, 28, 28, 1) as bytes, and labels (count,)."""
    images = np.empty((count, SIZE, SIZE, 1), np.uint8)
    labels = np.empty(count, np.uint8)
    for start in range(0, count, CHUNK):
        drawn, classes = draw_chunk(seed, start // CHUNK)
        images[start : start + CHUNK, :, :, 0] = drawn[: count - start]
        labels[start : start + CHUNK] = classes[: count - start]
    return images, labels


def draw_chunk(seed, number):
    """CHUNK images with their labels."""
    random = np.random.default_rng([seed, number])
    labels = random.integers(0, 10, CHUNK)
    choice = random.random(CHUNK)
    dots = np.empty((CHUNK, DOTS, 2), np.float32)
    spacing = np.empty(CHUNK, np.float32)
    for digit, forms in CURVES.items():
        for i, (points, curve) in enumerate(forms):
            chosen = np.flatnonzero((labels == digit) & (choice * len(forms) // 1 == i))
            moved = points + random.normal(0, 0.025, (len(chosen), *points.shape))
            dots[chosen] = curve @ moved
            spacing[chosen] = np.hypot(*np.diff(curve @ points, axis=0).T).sum() / DOTS
    return ink(warp(dots, random), spacing, random), labels


def warp(dots, random):
    """Slant, rotate, scale, shift and warp each image at random; returns dots in pixels."""

    def normal(spread):
        return random.normal(0, spread, (len(dots), 1)).astype(np.float32)

    x, y = dots[..., 0] - 0.5, dots[..., 1] - 0.5
    for _ in range(2):  # two long waves across the image, of random direction and phase
        direction, phase = normal(3.0), normal(3.0)
        wave = np.sin(5 * (x * np.cos(direction) + y * np.sin(direction)) + phase)
        x, y = x + normal(0.025) * wave, y + normal(0.025) * wave
    x = x * np.exp(normal(0.12)) - y * (0.12 + normal(0.18))  # width, slant
    y = y * np.exp(normal(0.06))
    turn = normal(0.09)
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    scale = 19 * np.exp(normal(0.06))
    centre = (SIZE - 1) / 2
    return np.stack([x * scale * 0.88 + centre + normal(0.7), y * scale + centre + normal(0.7)], axis=-1)


def ink(dots, spacing, random):
    """Dots (N, D, 2) in pixels → bytes (N, 28, 28)."""
    width = random.uniform(0.72, 1.3, (len(dots), 1, 1)).astype(np.float32)
    pixels = np.arange(SIZE, dtype=np.float32)[:, None]
    columns = np.exp(-0.5 * ((pixels - dots[:, None, :, 0]) / width) ** 2)  # (N, 28, D)
    rows = np.exp(-0.5 * ((pixels - dots[:, None, :, 1]) / width) ** 2)
    sums = rows @ columns.swapaxes(1, 2)  # (N, 28, 28)
    # Along a straight line the dots add up to the profile of the line: 1 in its middle after this scale.
    level = sums * (spacing[:, None, None] * 19 / (np.sqrt(2 * np.pi) * width))
    return (255 * np.clip(1.9 * level - 0.35, 0, 1)).round().astype(np.uint8)


def curve_matrix(strokes):
    """The matrix that turns the points of all strokes into DOTS dots, evenly spaced along smooth curves."""
    fine = [spline_matrix(stroke) for stroke in strokes]
    total = sum(len(stroke) for stroke in strokes)
    blocks, lengths, first = [], [], 0
    for stroke, matrix in zip(strokes, fine, strict=True):
        block = np.zeros((len(matrix), total))
        block[:, first : first + len(stroke)] = matrix
        steps = np.hypot(*np.diff(matrix @ stroke, axis=0).T)
        blocks.append(block)
        lengths.append(np.concatenate([[0], np.cumsum(steps)]))
        first += len(stroke)
    shares = np.array([length[-1] for length in lengths])
    ends = np.round(np.cumsum(shares) / shares.sum() * DOTS).astype(int)
    picked = []
    for block, length, dots in zip(blocks, lengths, np.diff(ends, prepend=0), strict=True):
        at = np.linspace(0, length[-1], dots)
        picked.append(block[np.searchsorted(length, at).clip(0, len(block) - 1)])
    return np.concatenate(picked)


def spline_matrix(points, steps=40):
    """Catmull-Rom: the matrix from points to `steps` places on each piece of the smooth curve through them."""
    n = len(points)
    eye = np.eye(n)
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    rows = []
    for i in range(n - 1):
        if (points[i] == points[i + 1]).all():
            continue  # a corner
        # At a corner or an end the point is its own outer neighbour, so the curve starts out straight.
        before, after = eye[max(i - 1, 0)], eye[min(i + 2, n - 1)]
        a, b = eye[i], eye[i + 1]
        rows.append(
            a
            + t * (b - before) / 2
            + t**2 * (before - 2.5 * a + 2 * b - after / 2)
            + t**3 * (1.5 * (a - b) + (after - before) / 2)
        )
    return np.concatenate([*rows, eye[-1:]])


def read_strokes(form):
    """The strokes in the text of a form, each an array of points (x, y) in a unit square."""
    points = [[point.split() for point in stroke.split(",")] for stroke in form.split("|")]
    return [np.array(stroke, float) / 100 for stroke in points]


# Digit → its forms: the points and the matrix that turns them into dots.
CURVES = {digit: [] for digit in range(10)}
for digit, form in FORMS:
    strokes = read_strokes(form)
    CURVES[digit].append((np.concatenate(strokes), curve_matrix(strokes)))
