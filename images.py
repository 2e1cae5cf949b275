"""From arrays to pictures: bytes, sheets, pairs, and files in any format that Pillow writes."""

import io
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from errors import UserError
from files import write

GAP = 2  # pixels between the images of a sheet
GAP_GREY = 64
LARGEST = 2**26  # pixels of a sheet
LONGEST = 2**15  # pixels along one side of it
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MOST_WAITING = 1000  # pictures to be written


def to_bytes(pixels):
    """Floats in [0, 1] → bytes, rounded."""
    pixels = np.array(pixels)
    if not np.isfinite(pixels).all():
        raise UserError("the model makes pixels that are no numbers: its weights are broken — train or copy it again")
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def pairs(left, right):
    """Two stacks of images → one stack, each image beside its partner."""
    return np.concatenate([left, right], axis=2)


def best_columns(count):
    """How many columns give a landscape sheet with the fewest empty places."""
    square = math.isqrt(count - 1) + 1
    return min(range(square, 2 * square + 1), key=lambda columns: -count % columns)


def check_sheet(count, size, columns=None):
    """The columns of a sheet of square images; stops where it would be too large to look at."""
    if count * (size + GAP) ** 2 > LARGEST:
        most = LARGEST // (size + GAP) ** 2
        raise UserError(f"a sheet of {count} images of {size}×{size} is too large — ask for at most {most}")
    columns = min(columns or best_columns(count), count)
    if max(columns, -(-count // columns)) * (size + GAP) > LONGEST:
        raise UserError(f"a sheet with {columns} of {count} images in a row is too long — choose another --grid_size")
    return columns


def sheet(images, columns=None):
    """A stack of images (N, H, W, C) → one image (H', W', C); the last row may be short."""
    images = np.asarray(images)
    count, height, width, channels = images.shape
    columns = min(columns or best_columns(count), count)
    rows = -(-count // columns)
    page = np.zeros((rows * columns, height + GAP, width + GAP, channels), np.uint8)
    page[:count] = GAP_GREY
    page[:count, :height, :width] = images
    page = page.reshape(rows, columns, height + GAP, width + GAP, channels).swapaxes(1, 2)
    page = page.reshape(rows * (height + GAP), columns * (width + GAP), channels)
    return page[:-GAP, :-GAP]


def check_name(path):
    """Stop where the ending of a file name is no picture format."""
    if (ending := Path(path).suffix.lower()) not in ENDINGS:
        raise UserError(f"{path} ends in {ending or 'nothing'}, not in a picture format — use {', '.join(ENDINGS)}")


def save(path, image):
    """Write one image (H, W, C) of 1 or 3 channels to a file."""
    if image.shape[2] not in (1, 3):
        raise UserError(f"a picture needs 1 or 3 channels, these images have {image.shape[2]} — see vae.py for arrays")
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    ending = Path(path).suffix.lower()
    buffer = io.BytesIO()
    try:
        picture.save(buffer, "PNG" if ending == ".png" else Image.registered_extensions()[ending])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot write {path} as {ending}: {error} — use .png") from None
    write(path, buffer.getvalue())


def save_film(path, frames, milliseconds=80):
    """Write images (H, W, 3) as an endless GIF of one palette, so that colours do not flicker."""
    palette = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 4)])).quantize(256)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    write(path, buffer.getvalue())


class Writer:
    """Saves pictures in a pool of threads; leaving the block waits for the last of them."""

    def __enter__(self):
        self.pool, self.waiting = ThreadPoolExecutor(), deque()
        return self

    def save(self, path, image):
        if len(self.waiting) == MOST_WAITING:
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(save, path, image))

    def __exit__(self, error, *_):
        self.pool.shutdown(cancel_futures=error is not None)
        if error is None:
            for picture in self.waiting:
                picture.result()
