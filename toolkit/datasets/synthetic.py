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

# Each digit has forms; a form is a list of strokes; a stroke a list of points (x, y) in a unit square, y downwards.
# A point given twice is a sharp corner.
FORMS = {
    0: [
        [[(0.55, 0.0), (0.22, 0.18), (0.12, 0.55), (0.3, 0.95), (0.62, 0.95), (0.85, 0.6), (0.8, 0.2), (0.5, 0.0)]],
        [[(0.6, 0.04), (0.3, 0.08), (0.1, 0.5), (0.25, 0.92), (0.6, 0.98), (0.9, 0.6), (0.85, 0.15), (0.5, 0.02)]],
    ],
    1: [
        [[(0.5, 0.0), (0.5, 0.35), (0.5, 0.7), (0.5, 1.0)]],
        [[(0.3, 0.2), (0.42, 0.12), (0.54, 0.0), (0.54, 0.0), (0.53, 0.5), (0.52, 1.0)]],
        [
            [(0.3, 0.2), (0.52, 0.0), (0.52, 0.0), (0.52, 0.5), (0.52, 1.0)],
            [(0.28, 1.0), (0.5, 1.0), (0.76, 1.0)],
        ],
    ],
    2: [
        [
            [
                (0.15, 0.25), (0.3, 0.05), (0.62, 0.02), (0.8, 0.25), (0.62, 0.55), (0.12, 0.98), (0.12, 0.98),
                (0.5, 0.95), (0.9, 0.98),
            ]
        ],
        [
            [
                (0.15, 0.2), (0.4, 0.0), (0.75, 0.12), (0.72, 0.42), (0.42, 0.78), (0.16, 0.95), (0.14, 0.8),
                (0.36, 0.78), (0.62, 0.95), (0.92, 0.9),
            ]
        ],
    ],
    3: [
        [
            [
                (0.15, 0.12), (0.45, 0.0), (0.75, 0.15), (0.68, 0.38), (0.4, 0.48), (0.4, 0.48), (0.75, 0.58),
                (0.8, 0.85), (0.45, 1.0), (0.12, 0.88),
            ]
        ],
        [
            [
                (0.15, 0.05), (0.5, 0.03), (0.8, 0.05), (0.8, 0.05), (0.6, 0.25), (0.42, 0.42), (0.42, 0.42),
                (0.78, 0.55), (0.8, 0.85), (0.45, 1.0), (0.12, 0.9),
            ]
        ],
    ],
    4: [
        [
            [(0.25, 0.05), (0.2, 0.3), (0.15, 0.55), (0.15, 0.55), (0.5, 0.56), (0.88, 0.52)],
            [(0.72, 0.05), (0.7, 0.5), (0.66, 1.0)],
        ],
        [
            [
                (0.66, 1.0), (0.68, 0.5), (0.7, 0.0), (0.7, 0.0), (0.4, 0.35), (0.1, 0.65), (0.1, 0.65),
                (0.5, 0.66), (0.92, 0.64),
            ]
        ],
    ],
    5: [
        [
            [
                (0.8, 0.02), (0.5, 0.03), (0.25, 0.04), (0.25, 0.04), (0.22, 0.25), (0.2, 0.44), (0.2, 0.44),
                (0.5, 0.38), (0.8, 0.55), (0.8, 0.82), (0.5, 1.0), (0.12, 0.9),
            ]
        ],
        [
            [
                (0.26, 0.05), (0.22, 0.25), (0.2, 0.46), (0.2, 0.46), (0.52, 0.4), (0.78, 0.58), (0.76, 0.85),
                (0.48, 1.0), (0.14, 0.92),
            ],
            [(0.26, 0.05), (0.55, 0.05), (0.85, 0.02)],
        ],
    ],
    6: [
        [
            [
                (0.7, 0.0), (0.42, 0.2), (0.2, 0.55), (0.25, 0.88), (0.52, 1.0), (0.78, 0.85), (0.74, 0.62),
                (0.5, 0.52), (0.22, 0.7),
            ]
        ],
        [
            [
                (0.62, 0.0), (0.3, 0.25), (0.15, 0.62), (0.3, 0.95), (0.62, 0.98), (0.84, 0.76), (0.66, 0.54),
                (0.36, 0.62), (0.24, 0.82),
            ]
        ],
    ],
    7: [
        [
            [
                (0.12, 0.06), (0.5, 0.05), (0.85, 0.03), (0.85, 0.03), (0.65, 0.4), (0.48, 0.7), (0.4, 1.0),
            ]
        ],
        [
            [
                (0.12, 0.14), (0.16, 0.05), (0.5, 0.06), (0.86, 0.02), (0.86, 0.02), (0.62, 0.4), (0.5, 0.7),
                (0.42, 1.0),
            ],
            [(0.34, 0.52), (0.55, 0.5), (0.78, 0.48)],
        ],
    ],
    8: [
        [
            [
                (0.75, 0.15), (0.5, 0.0), (0.24, 0.14), (0.34, 0.38), (0.66, 0.58), (0.8, 0.82), (0.5, 1.0),
                (0.2, 0.84), (0.34, 0.58), (0.66, 0.38), (0.75, 0.15),
            ]
        ],
        [
            [(0.5, 0.46), (0.24, 0.28), (0.34, 0.04), (0.66, 0.03), (0.76, 0.26), (0.5, 0.46)],
            [(0.5, 0.46), (0.18, 0.68), (0.28, 0.97), (0.7, 0.98), (0.82, 0.7), (0.5, 0.46)],
        ],
    ],
    9: [
        [
            [
                (0.76, 0.2), (0.52, 0.02), (0.22, 0.18), (0.26, 0.44), (0.55, 0.48), (0.76, 0.2), (0.76, 0.2),
                (0.74, 0.6), (0.66, 1.0),
            ]
        ],
        [
            [
                (0.78, 0.12), (0.46, 0.0), (0.18, 0.24), (0.36, 0.5), (0.68, 0.36), (0.78, 0.12), (0.78, 0.12),
                (0.8, 0.55), (0.66, 0.9), (0.3, 1.0),
            ]
        ],
    ],
}  # fmt: skip


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
    """Give every image its own slant, rotation, size, position and warp; returns dots in pixels."""

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
    fine = [spline_matrix(np.array(stroke)) for stroke in strokes]
    total = sum(len(stroke) for stroke in strokes)
    blocks, lengths, first = [], [], 0
    for stroke, matrix in zip(strokes, fine, strict=True):
        block = np.zeros((len(matrix), total))
        block[:, first : first + len(stroke)] = matrix
        steps = np.hypot(*np.diff(matrix @ np.array(stroke), axis=0).T)
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


# Digit → its forms: the points and the matrix that turns them into dots.
CURVES = {
    digit: [(np.concatenate([np.array(stroke) for stroke in form]), curve_matrix(form)) for form in forms]
    for digit, forms in FORMS.items()
}
