"""One image file of any format, size and colours → a square of bytes. Broken and hostile files raise an exception.

What happens to such a file, and where the pixels go, is left to `cache.py`.
"""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST = 10**8  # pixels
LARGEST_FILE = 2**28  # bytes
Image.init()
# All that Pillow reads, except formats that start other programs or only refer to a file elsewhere.
FORMATS = sorted(Image.OPEN.keys() - {"EPS", "WMF", "FPX", "MIC", "BUFR", "GRIB", "HDF5", "MPEG"})
ENDINGS = {ending for ending, name in Image.registered_extensions().items() if name in FORMATS}
Image.MAX_IMAGE_PIXELS = None  # LARGEST replaces it: Pillow's only prints a warning
MODES = {1: "L", 3: "RGB"}


def decode(data: bytes, size: int, channels: int, crop: float = 1.0) -> np.ndarray:
    """The bytes of a file → (size, size, channels): its central square; `crop` is its share of the shorter side."""
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError("it is not an image, or its first bytes are damaged") from None
    with opened as picture:
        width, height = picture.size
        if width * height > LARGEST:
            raise ValueError(f"{width}×{height} pixels exceed the limit of {LARGEST // 10**6} million")
        if crop == 1:
            picture.draft(None, (2 * size, 2 * size))  # a JPEG need not be decoded at full size
        ImageOps.exif_transpose(picture, in_place=True)
        width, height = picture.size
        side = max(1, round(crop * min(width, height)))
        left, top = (width - side) // 2, (height - side) // 2
        square = opaque(picture.crop((left, top, left + side, top + side))).convert(MODES[channels])
        square = square.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(square).reshape(size, size, channels)


def opaque(picture):
    """The same picture with 8 bits per channel, transparent parts on white."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        deep = np.asarray(picture)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("its pixels have more than 16 bits")
        return Image.fromarray(((deep.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture
