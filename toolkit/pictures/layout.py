"""Images laid out with words, the margin, title and caption of every picture, and animations."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from toolkit.errors import UserError
from toolkit.pictures import images
from toolkit.pictures.charts import INK, PALE, UNIT, Canvas, width_of

TILE = 128  # least size of an image on a page with labels, in pixels
LARGEST = 2**25  # pixels of a page
FRAME = 2**21  # pixels of a frame of an animation
WIDE = 1000  # pixels that a frame has at least
GREY = (110, 110, 110)
MOST_LETTERS = 300  # of a line
PAPER = images.PAPER
PAIRS = "Each pair: the original, and to its right the reconstruction"
STEP, HOLD = 80, 600  # milliseconds per frame, and for the first and last


class Layout(NamedTuple):
    """A page with words and without its images."""

    paper: np.ndarray  # (H, W, 3)
    places: list[tuple[int, int]]  # left and top of each image, in pixels
    scale: int  # pixels along a side of each pixel

    def filled(self, pictures: np.ndarray) -> np.ndarray:
        """The page with images (N, H, W, C) of bytes in their places."""
        page = self.paper.copy()
        for (x, y), picture in zip(self.places, images.enlarged(pictures, self.scale), strict=True):
            page[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        return page


def layout(shape, left=(), top=(), above=(), block=None, corner="", scale=None, tile=TILE, wide=0) -> Layout:
    """Rows of images, (R, C, H, W), with words left of rows, on top of columns, above each image, and in the corner.

    With `block`, every `block` rows form a group. Without a `scale`, images are at least `tile` pixels high, and the
    page at least `wide`.
    """
    rows, columns, height, width = shape
    margin = math.ceil(max(map(width_of, left or [""]))) + (8 if left else 0)
    apart, head = 10 if above else images.GAP / UNIT, 20 if top else 0
    if scale is None:
        scale = max(1, math.ceil(tile / height), math.ceil((wide / columns - apart * UNIT) / width))
    step_x, step_y = width * scale / UNIT + apart, height * scale / UNIT + (20 if above else apart)
    gaps = [12 * (row // block) if block else 0 for row in range(rows)]
    size = (margin + columns * step_x - apart, head + rows * step_y + gaps[-1] - (0 if above else apart))
    if size[0] * size[1] * UNIT**2 > (FRAME if wide else LARGEST):
        raise UserError(f"a picture of {rows}×{columns} images is too large — use a smaller --rows")
    canvas, places = Canvas(*map(math.ceil, size), words=True), []
    canvas.text(margin - 8, head - 6, corner, 12, "rd", GREY)
    every = max(1, math.ceil((max(map(width_of, top or [""])) + 4) / step_x))  # column whose words have room
    for i, word in enumerate(top):
        if i % every == 0:
            canvas.text(margin + i * step_x + width * scale / 2 / UNIT, head - 6, word, 12, "md")
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        x, y = margin + column * step_x, head + row * step_y + gaps[row] + (20 if above else 0)
        if column == 0 and row < len(left):
            canvas.text(margin - 8, y + height * scale / 2 / UNIT, left[row], 13, "rm")
        if i < len(above):
            canvas.text(x + width * scale / 2 / UNIT, y - 4, above[i], 12, "md")
        places.append((round(x * UNIT), round(y * UNIT)))
    return Layout(canvas.finished(), places, scale)


def page(rows, left=(), top=(), **more) -> np.ndarray:
    """Rows of images, (R, C, H, W, C) of bytes, laid out with words."""
    rows = np.asarray(rows)
    return layout(rows.shape[:4], left, top, **more).filled(rows.reshape(-1, *rows.shape[2:]))


def stacked(*parts: np.ndarray) -> np.ndarray:
    """Pictures below each other, each in the middle of the widest; grey if one of them is."""
    wide, channels = max(part.shape[1] for part in parts), min(part.shape[2] for part in parts)
    sides = [((wide - part.shape[1]) // 2, (wide - part.shape[1] + 1) // 2) for part in parts]
    pairs = zip([part[:, :, :channels] for part in parts], sides, strict=True)
    return np.concatenate([np.pad(part, ((0, 0), side, (0, 0)), constant_values=PAPER) for part, side in pairs])


def framed(image: np.ndarray, title: str = "", caption: str = "") -> np.ndarray:
    """An image (H, W, C) in a margin, with its title above it and its caption below."""
    wide = max(image.shape[1], images.WIDE)
    size = min(1, max(0.6, wide / WIDE))  # of letters
    above, below = written(title, wide, 17 * size, INK), written(caption, wide, 12.5 * size, GREY)
    margin = round(36 * size)
    body = stacked(*([above] if title else []), image, *([below] if caption else []))
    return np.pad(body, ((margin, margin), (margin, margin), (0, 0)), constant_values=PAPER)


def written(words: str, wide: int, size: float, fill: tuple[int, int, int] = INK) -> np.ndarray:
    """Words in lines, at most `wide` pixels wide."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        fits = width_of(longer, size, MOST_LETTERS) * UNIT <= wide
        lines = [*lines[:-1], longer] if fits else [*lines, word]
    canvas = Canvas(wide / UNIT, (len(lines) * 1.4 + 1) * size, words=True)
    for i, line in enumerate(lines):
        canvas.text(0, (0.5 + 1.4 * i) * size, line, size, "la", fill, most=MOST_LETTERS)
    return canvas.finished()


def slider(wide: int, share: float, words: str) -> np.ndarray:
    """The position in an animation: a dot on a line, and words below it."""
    canvas = Canvas(wide / UNIT, 48)
    left, right = 12, wide / UNIT - 12
    canvas.line([(left, 12), (right, 12)], PALE, 3)
    canvas.dot(left + share * (right - left), 12, 7, INK)
    canvas.text(wide / UNIT / 2, 26, words, 16, "ma")
    return canvas.finished()


def there_and_back(draw: Callable[[int], np.ndarray], count: int) -> images.Animation:
    """An animation that runs forward, pauses, and runs back."""
    order = [*range(count), *range(count - 2, 0, -1)]
    return images.Animation(draw, order, [HOLD if i in (0, count - 1) else STEP for i in order])
