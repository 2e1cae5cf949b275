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
LARGEST = 2**28  # pixels of a sheet
MOST_WAITING = 1000  # pictures to be written


def to_bytes(pixels):
    """Floats in [0, 1] → bytes, rounded."""
    return np.rint(np.clip(np.array(pixels), 0, 1) * 255).astype(np.uint8)


def pairs(left, right):
    """Two stacks of images → one stack, each image beside its partner."""
    return np.concatenate([left, right], axis=2)


def best_columns(count):
    """How many columns give a landscape sheet with the fewest empty places."""
    square = math.isqrt(count - 1) + 1
    return min(range(square, 2 * square + 1), key=lambda columns: -count % columns)


def check_sheet(count, size):
    """Stop before the work where a sheet of square images would be too large to look at."""
    if (pixels := count * (size + GAP) ** 2) > LARGEST:
        raise UserError(f"a sheet of {count} images would have {pixels // 10**6} million pixels — ask for fewer")


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
    """Stop where Pillow has no writer for the ending of a file name."""
    ending = Path(path).suffix.lower()
    if ending != ".png" and Image.registered_extensions().get(ending) not in Image.SAVE:
        ending = f"'{ending}'" if ending else "no ending"
        raise UserError(f"{path} has {ending}, which is no picture format known here — use .png")


def save(path, image):
    """Write one image (H, W, C) of 1 or 3 channels to a file."""
    if image.shape[2] not in (1, 3):
        raise UserError(f"a picture needs 1 or 3 channels, these images have {image.shape[2]}")
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    ending = Path(path).suffix.lower()
    buffer = io.BytesIO()
    try:
        picture.save(buffer, Image.registered_extensions()[ending] if ending != ".png" else "PNG")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot write {path} as {ending}: {error} — use .png") from None
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
