"""Drawing on a page with Pillow: text, lines, points and images, and axes with ticks.

Everything is drawn SHARP times too large and then reduced, so that lines and points have smooth edges.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from toolkit.pictures.fonts import lettering

SHARP = 4
INK, PALE, PAPER = (40, 40, 40), (225, 225, 225), (255, 255, 255)
# Ten colours that the colour-blind tell apart too: Paul Tol's "muted" scheme, and black.
COLOURS = [
    *((204, 102, 119), (51, 34, 136), (221, 204, 119), (17, 119, 51), (136, 204, 238)),
    *((136, 34, 85), (68, 170, 153), (153, 153, 51), (170, 68, 153), (0, 0, 0)),
]


def colour(i: int, count: int = 10) -> tuple[int, int, int]:
    """The colour of class i; beyond ten classes, shades around the wheel of hues."""
    if count <= len(COLOURS):
        return COLOURS[i]
    hue = Image.new("HSV", (1, 1), (int(255 * i / count), 190, (230, 150)[i % 2]))
    return hue.convert("RGB").getpixel((0, 0))


def ticks(low, high, most=6):
    """Round numbers between two others, not more than so many."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value):
    """A tick's number, without noise behind it. (Pillow's own font has no minus sign but the hyphen.)"""
    return f"{value:,.10g}" if abs(value) >= 1e-9 else "0"


class Canvas:
    """A page to draw on in pixels of the finished picture."""

    def __init__(self, width: int, height: int):
        self.size = (width, height)
        self.page = Image.new("RGB", (width * SHARP, height * SHARP), PAPER)
        self.draw = ImageDraw.Draw(self.page)

    def scaled(self, points):
        return [(x * SHARP, y * SHARP) for x, y in points]

    def line(self, points, fill=INK, width=1.0):
        self.draw.line(self.scaled(points), fill, round(width * SHARP), joint="curve")

    def dot(self, x, y, radius, fill):
        x, y, radius = x * SHARP, y * SHARP, radius * SHARP
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)

    def ring(self, x, y, radius_x, radius_y, fill, width=1.0):
        box = (x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        self.draw.ellipse([side * SHARP for side in box], outline=fill, width=round(width * SHARP))

    def text(self, x, y, words, size=13, anchor="la", fill=INK, halo=0):
        """Words at a place; `halo` pixels of paper around them keep them readable on points and lines."""
        halo = {"stroke_width": round(halo * SHARP), "stroke_fill": PAPER} if halo else {}
        face, words = lettering(words, size * SHARP)
        self.draw.text((x * SHARP, y * SHARP), words, fill, face, anchor=anchor, **halo)

    def paste(self, image: np.ndarray, x: float, y: float, scale: float = 1) -> None:
        """Put an image (H, W, C) of bytes on the page, every pixel as `scale` pixels."""
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB")
        height, width = image.shape[:2]
        size = (round(width * scale * SHARP), round(height * scale * SHARP))
        kind = Image.Resampling.BICUBIC if scale != 1 else Image.Resampling.NEAREST
        self.page.paste(picture.resize(size, kind), (round(x * SHARP), round(y * SHARP)))

    def finished(self, sharp: bool = False) -> np.ndarray:
        """The page as bytes (H, W, 3), reduced to its size, or with `sharp` to twice that."""
        factor = 2 if sharp else 1
        size = (self.size[0] * factor, self.size[1] * factor)
        return np.asarray(self.page.resize(size, Image.Resampling.LANCZOS))


def width_of(words: str, size: int = 13) -> float:
    """How many pixels words take."""
    face, words = lettering(words, size * SHARP)
    return face.getlength(words) / SHARP


class Axes:
    """A frame on a canvas with a scale on both sides, `whole` numbers only below; `place` takes data to pixels."""

    def __init__(self, canvas, box, x_range, y_range, title="", x_label="", y_label="", whole=False):
        self.canvas, self.box = canvas, box
        self.x_range, self.y_range = x_range, y_range
        left, top, right, bottom = box
        for value in ticks(*x_range, most=max(2, int((right - left) / 70))):
            if whole and value % 1:
                continue
            x, _ = self.place(value, y_range[0])
            canvas.line([(x, top), (x, bottom)], PALE)
            canvas.text(x, bottom + 6, number(value), 12, "ma")
        for value in ticks(*y_range, most=max(2, int((bottom - top) / 45))):
            _, y = self.place(x_range[0], value)
            canvas.line([(left, y), (right, y)], PALE)
            canvas.text(left - 6, y, number(value), 12, "rm")
        canvas.line([(left, top), (left, bottom), (right, bottom)])
        canvas.text(left, top - 10, title, 15, "ld")
        canvas.text((left + right) / 2, bottom + 24, x_label, 13, "ma")
        if y_label:
            canvas.text(right, top - 10, y_label, 12, "rd", (110, 110, 110))

    def place(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return left + (x - x0) / (x1 - x0) * (right - left), bottom - (y - y0) / (y1 - y0) * (bottom - top)


def spread(values: list[float], share: float = 0.05) -> tuple[float, float]:
    """The range of values with some margin; never empty."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = share * (high - low) or abs(high) * share or 1.0
    return low - margin, high + margin
