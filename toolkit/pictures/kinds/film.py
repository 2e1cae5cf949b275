"""An animation of a training run: its sheets of samples, epoch by epoch."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toolkit.errors import UserError
from toolkit.files.reading import opened
from toolkit.formats import checkpoint
from toolkit.pictures import sampling
from toolkit.pictures.images import Animation, picture
from toolkit.pictures.layout import WIDE, slider, stacked

TITLE = "Training"
CAPTION = "After every epoch the same latent vectors, drawn from the prior of the training; after the last, new ones."
MOST = 60  # frames; from longer runs this many epochs are chosen, denser at the beginning
PIXELS = 2**25  # of all frames together
LARGEST = 2**25  # pixels of a sheet: one of 64 images has fewer
STEP, HOLD = 200, 2000  # milliseconds per frame, and for the last


def animate(runs: Sequence[Path | str], _: Any = None) -> Animation:
    """The samples of every epoch of a run, with the epoch's number; the last frame samples the fitted prior."""
    if not runs:
        raise UserError("this model has no run folder next to it — name the folder of a run with --logs")
    if len(runs) != 1:
        raise UserError(f"an animation shows one run, not {len(runs)} — name its folder with --logs")
    run = Path(runs[0])
    paths = [path for path in run.glob("epoch_*_samples.png") if re.fullmatch(r"epoch_\d+_samples\.png", path.name)]
    sheets = {int(path.name.split("_")[1]): path for path in paths}
    if not sheets:
        raise UserError(f"{run} has no sheets of epochs — name the folder of a run with --logs")
    last = max(sheets)
    size = size_of(sheets[last])
    epochs = chosen(sorted(sheets), max(2, min(MOST, PIXELS // (size[0] * size[1]))))
    final, prior = fitted(run, size)

    def draw(i: int) -> np.ndarray:
        if i == len(epochs):
            return stacked(slider(size[0], 1, f"after training: {prior}"), final)
        words = f"epoch {epochs[i]} of {last}"
        return stacked(slider(size[0], epochs[i] / last, words), frame(sheets[epochs[i]], size))

    times = [STEP] * (len(epochs) - 1) + [HOLD] * (1 if final is None else 2)
    return Animation(draw, range(len(times)), times)


def chosen(epochs: list[int], most: int = MOST) -> list[int]:
    """All epochs, or `most` of them, closer together at the beginning, where samples change fast."""
    if len(epochs) <= most:
        return epochs
    shares = np.linspace(0, 1, most) ** 1.5
    return [epochs[i] for i in sorted({round(share * (len(epochs) - 1)) for share in shares})]


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a frame that shows a sheet; about WIDE, in whole multiples of small sheets."""
    width, height = opening(path, lambda sheet: sheet.size)
    scale = -(-WIDE // width) if width < WIDE else WIDE / width
    if height * scale > 2 * WIDE:
        raise UserError(f"{path} is {width}×{height} pixels, too tall for a frame — name the folder of another run")
    return round(width * scale), max(1, round(height * scale))


def frame(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A sheet as a frame of that size, (H, W, 3)."""

    def resized(sheet):
        if abs(sheet.width * size[1] / size[0] - sheet.height) > 1 + sheet.height / 100:
            raise ValueError("its shape differs from the last one's")
        kind, gap = (Image.Resampling.NEAREST, None) if sheet.width <= size[0] else (Image.Resampling.BOX, 2)
        return np.asarray(sheet.resize(size, kind, reducing_gap=gap).convert("RGB"))

    return opening(path, resized)


def opening(path, use):
    """The result of a function of a sheet; raises UserError if it is damaged or too large."""
    try:
        with opened(path) as file, Image.open(file, formats=["PNG"]) as sheet:
            if sheet.width * sheet.height > LARGEST:
                raise ValueError(f"it has {sheet.width}×{sheet.height} pixels")
            if sheet.mode not in ("L", "RGB"):
                raise ValueError(f"its pixels are {sheet.mode}")
            return use(sheet)
    except Exception as error:  # Pillow raises nearly anything on damaged files
        raise UserError(f"{path} is not a sheet, or is damaged ({error}) — delete it") from None


def fitted(run, size):
    """Samples of the run's model from its fitted prior as a frame, and that prior in words; None if it has none."""
    with suppress(UserError):  # moved away, or never finished
        model = checkpoint.load(run.with_suffix(".npz"))
        if model.sampler:
            shown = picture(sampling.samples(model, sampling.Sampler(model.prior), 64).sheet()).convert("RGB")
            return np.asarray(shown.resize(size, Image.Resampling.NEAREST)), model.prior.words
    return None, ""
