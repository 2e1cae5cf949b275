"""From arrays to pictures: bytes, sheets, pairs, and files in any format that Pillow writes.

A picture's record, texts by title, describes how it was made; PNG files store it in text chunks.
"""

import functools
import io
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from toolkit.errors import UserError
from toolkit.files.targets import PICTURE, mark
from toolkit.files.writing import is_stream, write
from toolkit.model.inference import to_bytes

GAP = 2  # pixels between the images of a sheet
PAPER = 255
MOST_COLUMNS = 12  # of a sheet, unless --grid_size asks for more
WIDE, TALL = 500, 4000  # pixels: small images are enlarged until a sheet is about so wide, and no higher than this
LARGEST = 2**26  # pixels of a sheet
LONGEST = 2**15  # pixels along one side of it
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MOST_WAITING = 1000  # pictures to be written
MARK = mark(PICTURE)
Record = dict[str, str]
SOFTWARE = Image.Exif()
SOFTWARE[0x131] = MARK


def pairs(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two stacks of images → one stack of bytes, each image left of its partner."""
    return np.concatenate([to_bytes(left), to_bytes(right)], axis=2)


def best_columns(count: int) -> int:
    """The number of columns, at most 12, for a landscape sheet with the fewest empty places."""
    square = min(math.isqrt(count - 1) + 1, MOST_COLUMNS)
    return min(range(square, min(2 * square, MOST_COLUMNS) + 1), key=lambda columns: -count % columns)


def check_sheet(count: int, size: int, columns: int | None = None) -> int:
    """The columns of a sheet of square images; raises UserError if the sheet is too large."""
    if count * (size + GAP) ** 2 > LARGEST:
        most = LARGEST // (size + GAP) ** 2
        raise UserError(f"a sheet of {count} images of {size}×{size} is too large — choose at most {most}")
    columns = min(columns or best_columns(count), count)
    if max(columns, -(-count // columns)) * (size + GAP) > LONGEST:
        raise UserError(f"a sheet of {count} images in {columns} columns is too long — choose another --grid_size")
    return columns


def sheet(images: np.ndarray, columns: int | None = None, scale: int | None = None) -> np.ndarray:
    """A stack of images (N, H, W, C) → one image (H', W', C); the last row may be short.

    Each pixel becomes `scale` × `scale` pixels; by default as many as make the sheet about 500 pixels wide.
    """
    images = np.asarray(images)
    count, height, width, channels = images.shape
    columns = min(columns or best_columns(count), count)
    rows = -(-count // columns)
    if scale is None:
        scale = max(1, min(-(-WIDE // (columns * (width + GAP))), TALL // (rows * (height + GAP))))
    elif rows * (height * scale + GAP) * columns * (width * scale + GAP) > LARGEST:
        raise UserError(f"a sheet of {count} images at --scale {scale} is too large — choose a smaller --scale")
    images = enlarged(images, scale)
    height, width = images.shape[1:3]
    page = np.full((rows * columns, height + GAP, width + GAP, channels), PAPER, np.uint8)
    page[:count, :height, :width] = images
    page = page.reshape(rows, columns, height + GAP, width + GAP, channels).swapaxes(1, 2)
    page = page.reshape(rows * (height + GAP), columns * (width + GAP), channels)
    return page[:-GAP, :-GAP]


def enlarged(images: np.ndarray, scale: int) -> np.ndarray:
    """Images (…, H, W, C) in which every pixel has become `scale` × `scale` pixels."""
    return images.repeat(scale, axis=-3).repeat(scale, axis=-2)


def ending_of(path: Path | str) -> str:
    """The extension that sets the format; standard output, pipes and devices get PNG."""
    ending = Path(path).suffix.lower()
    return ".png" if not ending and is_stream(path) else ending


def picture(image: np.ndarray) -> Image.Image:
    """An image (H, W, C) with 1 or 3 channels as a Pillow image."""
    if image.shape[2] not in (1, 3):
        raise UserError(f"a picture needs 1 or 3 channels, these images have {image.shape[2]} — see vae.py for arrays")
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def encoded(image: Image.Image, format: str, record: Record | None = None, **more: Any) -> bytes:
    """A picture as the bytes of a file that this toolkit recognises; a PNG file keeps its record, too."""
    buffer, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    for title, words in ({"Software": MARK} | (record or {})).items():
        texts.add_text(title, words.encode("utf-8", "replace").decode())
    marks = {"pnginfo": texts} if format == "PNG" else {"exif": SOFTWARE, "comment": MARK}
    image.save(buffer, format, **marks, **more)
    return buffer.getvalue() + (MARK.encode() if format == "BMP" else b"")  # the only place for it


def png(image: np.ndarray, record: Record | None = None) -> bytes:
    """An image (H, W, C) as the bytes of a PNG file."""
    return encoded(picture(image), "PNG", record)


class Animation(NamedTuple):
    """Frames (H, W, 3) of one size, drawn when needed: their order, and how long each is shown."""

    draw: Callable[[int], np.ndarray]
    order: Sequence[int]
    milliseconds: Sequence[int]


def save(path: Path | str, image: np.ndarray | Animation, record: Record | None = None) -> None:
    """Write one image (H, W, C) of 1 or 3 channels to a file; an animation as GIF."""
    if isinstance(image, Animation):
        return write(path, gif(image))
    made, ending = picture(image), ending_of(path)
    try:
        data = encoded(made, "PNG" if ending == ".png" else Image.registered_extensions()[ending], record)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot write {path} as {ending}: {error} — use .png") from None
    write(path, data)


def gif(animation: Animation) -> bytes:
    """An animation as a looping GIF with one palette, so that colours do not flicker."""
    draw, order, milliseconds = animation
    some = sorted({order[round(share * (len(order) - 1))] for share in (0, 0.25, 0.5, 1)})
    palette = Image.fromarray(np.concatenate([draw(i)[::2, ::2] for i in some])).quantize(256)

    @functools.cache  # a byte for each pixel
    def frame(i: int) -> Image.Image:
        return Image.fromarray(draw(i)).quantize(palette=palette, dither=Image.Dither.NONE)

    rest = (frame(i) for i in order[1:])
    return encoded(frame(order[0]), "GIF", save_all=True, append_images=rest, duration=list(milliseconds), loop=0)


class Writer:
    """Save pictures in a pool of threads; the end of the block waits for all of them."""

    def __init__(self, record: Record | None = None):
        self.record = record

    def __enter__(self):
        self.pool, self.waiting = ThreadPoolExecutor(), deque()
        return self

    def save(self, path: Path, image: np.ndarray) -> None:
        if len(self.waiting) == MOST_WAITING:
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(save, path, image, self.record))

    def __exit__(self, error, *_):
        self.pool.shutdown(cancel_futures=error is not None)
        if error is None:
            for waiting in self.waiting:
                waiting.result()
