"""One image file of any format, size and colours → a square of bytes. Broken and hostile files raise an exception.

What happens to such a file, and where the pixels go, is left to `cache.py`.
"""

import io
import threading
import warnings
from contextlib import nullcontext

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST = 10**8  # pixels
LARGEST_FILE = 2**27  # bytes; a photo of that many pixels has 100 MB as PNG
LARGE = 2**24  # pixels from which one picture at a time is decoded: it takes up to 10 bytes for each
Image.init()
# All that Pillow reads, except formats that start other programs or only refer to a file elsewhere, and icons, which
# hold pictures larger than they say.
FORMATS = sorted(Image.OPEN.keys() - {"EPS", "WMF", "FPX", "MIC", "BUFR", "GRIB", "HDF5", "MPEG", "ICO", "ICNS"})
ENDINGS = {ending for ending, name in Image.registered_extensions().items() if name in FORMATS}
# Pillow looks at pictures inside pictures too. It warns above this, and fails above twice as much.
Image.MAX_IMAGE_PIXELS = LARGEST // 2
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
MODES = {1: "L", 3: "RGB"}
REDUCED = ("L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # modes that Pillow averages
one_at_a_time = threading.Lock()


def decode(data: bytes, size: int, channels: int, crop: float = 1.0) -> np.ndarray:
    """The bytes of a file → (size, size, channels): its central square; `crop` is its share of the shorter side."""
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError("it is not an image, or its first bytes are damaged") from None
    except Image.DecompressionBombError:
        raise ValueError(f"its pixels exceed the limit of {LARGEST // 10**6} million") from None
    with opened as picture:
        if crop == 1:
            picture.draft(None, (2 * size, 2 * size))  # a JPEG need not be decoded at full size
        with one_at_a_time if picture.width * picture.height > LARGE else nullcontext():
            return square(picture, size, channels, crop)


def square(picture, size, channels, crop):
    """The central square of a picture, as it is meant to be seen."""
    ImageOps.exif_transpose(picture, in_place=True)
    width, height = picture.size
    side = max(1, round(crop * min(width, height)))
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    if side**2 > LARGE and side >= 8 * size and picture.mode in REDUCED:  # so that no other copy is that large
        made = picture.reduce(side // (4 * size), box)
    else:
        made = picture.crop(box)
    made = opaque(made).convert(MODES[channels])
    return np.asarray(made.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, channels)


def opaque(picture):
    """The same picture with 8 bits per channel, transparent parts on white."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        deep = np.asarray(picture)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("its pixels have more than 16 bits")
        made = np.empty(deep.shape, np.uint8)
        for row, numbers in zip(made, deep, strict=True):  # row by row, so that no copy of four bytes a pixel is made
            row[:] = (numbers.astype(np.uint32) + 128) // 257
        return Image.fromarray(made)
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture
