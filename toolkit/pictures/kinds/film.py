"""A film of one training: the sheets of samples that a run leaves behind, epoch by epoch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toolkit.errors import UserError
from toolkit.files.reading import opened
from toolkit.pictures.charts import Canvas
from toolkit.pictures.images import LARGEST, Animation

MOST = 60  # frames; of longer runs as many epochs are chosen, closer together at the beginning
STEP, HOLD = 200, 2000  # milliseconds that a frame is shown, and the last one
CAPTION = 24  # pixels below a sheet


def animate(runs: Sequence[Path | str], _: Any = None) -> Animation:
    """The samples of every epoch of a run, with the epoch's number below."""
    if len(runs) != 1:
        raise UserError(f"a film shows one run, not {len(runs)} — name its folder with --logs")
    (run,) = runs
    sheets = {}
    for path in Path(run).glob("epoch_*_samples.png"):
        if found := re.fullmatch(r"epoch_(\d+)_samples\.png", path.name):
            sheets[int(found[1])] = path
    if not sheets:
        raise UserError(f"{run} has no sheets of epochs — name the folder of a run with --logs")
    frames = [frame(sheets[epoch], f"epoch {epoch} of {max(sheets)}") for epoch in chosen(sorted(sheets))]
    if len({each.shape for each in frames}) > 1:
        raise UserError(f"the sheets in {run} have different sizes — name the folder of one run with --logs")
    return Animation(frames, [STEP] * (len(frames) - 1) + [HOLD])


def chosen(epochs: list[int]) -> list[int]:
    """All epochs, or MOST of them: most is seen at the beginning of a training."""
    if len(epochs) <= MOST:
        return epochs
    shares = np.linspace(0, 1, MOST) ** 1.5
    return [epochs[i] for i in sorted({round(share * (len(epochs) - 1)) for share in shares})]


def frame(path: Path, words: str) -> np.ndarray:
    """One sheet with words below it."""
    try:
        with opened(path) as file, Image.open(file, formats=["PNG"]) as sheet:
            if sheet.width * sheet.height > LARGEST:
                raise ValueError(f"it has {sheet.width}×{sheet.height} pixels")
            picture = np.asarray(sheet.convert("RGB"))
    except Exception as error:  # Pillow raises nearly anything on damaged files
        raise UserError(f"{path} is not a sheet, or is damaged ({error}) — delete it") from None
    height, width = picture.shape[:2]
    canvas = Canvas(width, height + CAPTION)
    canvas.paste(picture, 0, 0)
    canvas.text(width / 2, height + CAPTION / 2, words, 13, "mm")
    return canvas.finished()
