"""Drawing on a page with Pillow: text, lines and points, and axes with ticks.

A unit is two pixels of the finished picture. Lines and points are drawn larger and then reduced, for smooth edges.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from toolkit.pictures.fonts import font, lettering, shortened

UNIT = 2  # pixels
SHARP = 2  # pages are drawn this much larger, then reduced
INK, PALE, PAPER = (40, 40, 40), (225, 225, 225), (255, 255, 255)
# Ten colour-blind-safe colours: Paul Tol's "muted" scheme, and black.
COLOURS = [
    *((204, 102, 119), (51, 34, 136), (221, 204, 119), (17, 119, 51), (136, 204, 238)),
    *((136, 34, 85), (68, 170, 153), (153, 153, 51), (170, 68, 153), (0, 0, 0)),
]


def colour(i: int, count: int = 10) -> tuple[int, int, int]:
    """The colour of class i; beyond ten classes, hues around the colour wheel."""
    if count <= len(COLOURS):
        return COLOURS[i]
    hue = Image.new("HSV", (1, 1), (int(255 * i / count), 190, (230, 150)[i % 2]))
    return hue.convert("RGB").getpixel((0, 0))


def ticks(low, high, most=6):
    """Round numbers between two others, at most `most`."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value):
    """A tick's number, without rounding noise, and with a true minus sign."""
    return f"{value:,.10g}".replace("-", "−") if abs(value) >= 1e-9 else "0"


class Canvas:
    """A page to draw on, in units; a page of `words` alone takes less memory."""

    def __init__(self, width: float, height: float, words: bool = False):
        self.times = UNIT * (1 if words else SHARP)
        self.size = (round(width * UNIT), round(height * UNIT))
        self.page = Image.new("RGB", tuple(side * self.times // UNIT for side in self.size), PAPER)
        self.draw = ImageDraw.Draw(self.page, "RGBA")  # allows transparent colours

    def scaled(self, points):
        return [(x * self.times, y * self.times) for x, y in points]

    def line(self, points, fill=INK, width=1.0):
        self.draw.line(self.scaled(points), fill, round(width * self.times), joint="curve")

    def dot(self, x, y, radius, fill=None, outline=None, width=1.0):
        box = self.scaled([(x - radius, y - radius), (x + radius, y + radius)])
        self.draw.ellipse(box, fill, outline, round(width * self.times))

    def text(self, x, y, words, size=13, anchor="la", fill=INK, halo=0, most=40):
        """Draw words at a place, at most `most` letters; a `halo` of paper keeps them readable on points and lines."""
        above, below = font(None, round(size * self.times)).getmetrics()
        x = x * self.times - width_of(words, size, most) * self.times * {"l": 0, "m": 0.5, "r": 1}[anchor[0]]
        y = y * self.times + {"a": above, "m": (above - below) / 2, "d": -below}[anchor[1]]
        for face, piece in lettering(shortened(words, most), round(size * self.times)):
            self.draw.text((x, y), piece, fill, face, "ls", stroke_width=round(halo * self.times), stroke_fill=PAPER)
            x += face.getlength(piece)

    def finished(self) -> np.ndarray:
        """The page as bytes (H, W, 3)."""
        reduced = self.page.size != self.size
        return np.asarray(self.page.resize(self.size, Image.Resampling.LANCZOS) if reduced else self.page)


def width_of(words: str, size: float = 13, most: int = 40) -> float:
    """The width of words, in units."""
    pieces = lettering(shortened(words, most), round(size * UNIT * SHARP))
    return sum(face.getlength(piece) for face, piece in pieces) / (UNIT * SHARP)


class Axes:
    """A frame on a canvas with two scales, the lower one in `whole` numbers if set; `place` maps data to units."""

    def __init__(self, canvas, box, x_range, y_range, title="", x_label="", y_label="", whole=False):
        self.canvas, self.box = canvas, box
        self.x_range, self.y_range = x_range, y_range
        left, top, right, bottom = box
        below = ticks(*x_range, most=max(2, int((right - left) / 70)))
        if whole:
            below = [x_range[0], *(n for n in below if not n % 1 and n - x_range[0] > (below[-1] - below[0]) / 20)]
        for value in below:
            x, _ = self.place(value, y_range[0])
            canvas.line([(x, top), (x, bottom)], PALE)
            canvas.text(x, bottom + 6, number(value), 12, "ma")
        for value in ticks(*y_range, most=max(2, int((bottom - top) / 45))):
            _, y = self.place(x_range[0], value)
            canvas.line([(left, y), (right, y)], PALE)
            canvas.text(left - 6, y, number(value), 12, "rm")
        canvas.line([(left, top), (left, bottom), (right, bottom)])
        canvas.text(left, top - 10, title, 15, "ld")
        canvas.text((left + right) / 2, bottom + 24, x_label, 13, "ma", most=80)
        if y_label:
            canvas.text(right, top - 10, y_label, 12, "rd", (110, 110, 110))

    def place(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return left + (x - x0) / (x1 - x0) * (right - left), bottom - (y - y0) / (y1 - y0) * (bottom - top)
