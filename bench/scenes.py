"""python bench/scenes.py pictures --count 60

Draw scenes in place of somebody's photos: houses, trees and suns on hills, in changing light and with noise, as JPEG
files of 640×480 pixels or upright. The figures in docs/data.md are of such pictures, which anybody can draw again.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = ("house", "trees", "sun")


def colour(random, *ranges):
    """A colour with each channel drawn from a range."""
    return tuple(int(random.integers(*one)) for one in ranges)


def scene(number):
    """The picture of a number."""
    random = np.random.default_rng(number)
    kind = KINDS[number % 3]
    width, height = (640, 480) if random.random() < 0.6 else (480, 640)
    above, below = (
        np.array(colour(random, *ranges))
        for ranges in (((80, 200), (140, 220), (200, 255)), ((200, 255), (180, 240), (150, 255)))
    )
    share = np.linspace(0, 1, height)[:, None, None]
    sky = np.broadcast_to(above * (1 - share) + below * share, (height, width, 3))
    picture = Image.fromarray(sky.astype(np.uint8))
    draw, ground = ImageDraw.Draw(picture), int(height * random.uniform(0.6, 0.75))
    meadow = colour(random, (40, 110), (110, 170), (30, 80))
    if kind != "trees" or random.random() < 0.3:
        x, y, size = (
            random.integers(width // 6, 5 * width // 6),
            random.integers(height // 8, height // 3),
            random.integers(30, 70),
        )
        draw.ellipse([x - size, y - size, x + size, y + size], fill=colour(random, (250, 256), (200, 245), (40, 140)))
    for _ in range(random.integers(1, 4)):
        x, size = random.integers(0, width), random.integers(80, 240)
        hill = tuple(int(0.85 * value) for value in meadow)
        draw.ellipse([x - 2 * size, ground - size // 2, x + 2 * size, ground + size], fill=hill)
    draw.rectangle([0, ground, width, height], fill=meadow)
    if kind == "house":
        house(draw, random, random.integers(width // 4, width // 2), ground, random.integers(110, 200))
    for _ in range(random.integers(2, 5) if kind == "trees" else random.integers(0, 2)):
        tree(draw, random, random.integers(30, width - 30), ground, random.integers(60, 140))
    light = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5))) * random.uniform(0.8, 1.1)
    return Image.fromarray((light + random.normal(0, 7, (height, width, 1))).clip(0, 255).astype(np.uint8))


def house(draw, random, x, ground, size):
    """A house with a roof, a door and two windows."""

    def box(left, top, right, bottom, fill):
        draw.rectangle([x + left * size, ground - top * size, x + right * size, ground - bottom * size], fill=fill)

    box(0, 1, 1.3, -0.1, colour(random, (90, 230), (90, 230), (90, 230)))
    roof = [(x - 20, ground - size), (x + 0.65 * size, ground - 1.7 * size), (x + 1.3 * size + 20, ground - size)]
    draw.polygon(roof, fill=colour(random, (120, 200), (30, 90), (20, 70)))
    box(0.5, 0.45, 0.8, -0.1, (80, 50, 30))
    for left in (0.1, 0.9):
        box(left, 0.8, left + 0.3, 0.5, (170, 210, 235))


def tree(draw, random, x, ground, size):
    """A tree: a trunk and eight round patches of leaves."""
    draw.rectangle([x - 8, ground - size, x + 8, ground + 30], fill=(90, 60, 35))
    for _ in range(8):
        right, up, radius = (
            random.integers(-size // 2, size // 2),
            random.integers(-size // 3, size // 2),
            random.integers(size // 4, size // 2),
        )
        middle = x + right, ground - size - up
        leaf = [middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius]
        draw.ellipse(leaf, fill=colour(random, (20, 70), (90, 150), (20, 60)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=60)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for number in range(args.count):
        scene(number).save(args.folder / f"IMG_{number:04d}.jpg", quality=88)


if __name__ == "__main__":
    main()
