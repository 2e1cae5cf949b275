"""python bench/film.py assets/explorer.html assets/explorer.gif

Record an animation of the explorer in use: a digit is drawn, a slider moves, the pointer crosses the map, and one test
image turns into another. Needs Chromium (bench/browser.py).
"""

import argparse
import base64
import io
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from bench.browser import Browser, missing
from toolkit.pictures.images import Animation, save

WIDTH, HEIGHT, SHOWN = 1360, 1120, 820  # in pixels: the window, and the width of the animation
THREE = [(0.3, 0.3), (0.4, 0.2), (0.56, 0.17), (0.68, 0.26), (0.66, 0.4), (0.54, 0.49), (0.42, 0.51)]
THREE += [(0.56, 0.52), (0.69, 0.6), (0.71, 0.74), (0.6, 0.85), (0.44, 0.87), (0.3, 0.78)]
TOOLS = """
window.at = (canvas, name, x, y) => {
  const box = canvas.getBoundingClientRect(), clientX = box.left + x * box.width, clientY = box.top + y * box.height;
  canvas.dispatchEvent(new PointerEvent(name, { pointerId: 1, clientX, clientY }));
};
$("drawing").setPointerCapture = () => {};
while (!settled || !$("images").children.length) await new Promise((done) => setTimeout(done, 10));
"""


def stroke():
    """The points of a drawn 3, with one between each two corners."""
    for (x0, y0), (x1, y1) in zip(THREE, THREE[1:], strict=False):
        for share in (0, 0.5):
            yield x0 + share * (x1 - x0), y0 + share * (y1 - y0)


def actions():
    """The action before each frame, and the frame's duration in milliseconds."""
    for i, (x, y) in enumerate(stroke()):
        yield f"at($('drawing'), '{'pointermove' if i else 'pointerdown'}', {x}, {y})", 70
    yield "at($('drawing'), 'pointerup', 0.3, 0.78)", 900
    for i in range(16):
        value = 2.2 * math.sin(2 * math.pi * i / 16)
        yield f"{{ const z = settled.slice(); z[facts.order[0]] = {value}; show(z); }}", 80
    for i in range(28):
        angle = 2 * math.pi * i / 28
        x, y = 0.5 + 0.27 * math.cos(angle), 0.5 + 0.3 * math.sin(angle)
        yield f"at($('map'), 'pointermove', {x}, {y})", 90
    yield "at($('map'), 'pointerleave', 0, 0); choose(0)", 700
    yield "choose(18)", 700
    for i in range(15):
        event = "$('share').dispatchEvent(new Event('input'))"
        yield f"$('share').value = {0.5 + 0.5 * math.cos(math.pi * i / 7)}; {event}", 90
    yield "", 900


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("film")
    args = parser.parse_args()
    if lacks := missing():
        sys.exit(f"error: {lacks} is missing — install it")
    frames, milliseconds = [], []
    with Browser(WIDTH, HEIGHT) as browser:
        browser.open(args.page)
        browser.run(TOOLS)
        for action, time in actions():
            browser.run(f"{action}; for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);")
            shot = Image.open(io.BytesIO(base64.b64decode(browser.ask("/screenshot", method="GET")))).convert("RGB")
            size = (SHOWN, round(SHOWN * shot.height / shot.width))
            frames.append(np.asarray(shot.resize(size, Image.Resampling.LANCZOS)))
            milliseconds.append(time)
    save(args.film, Animation(frames.__getitem__, range(len(frames)), milliseconds))


if __name__ == "__main__":
    main()
