"""One picture file, of whatever format, size and colours → a square of bytes. Broken and hostile files raise."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST = 10**8  # pixels
LARGEST_FILE = 2**28  # bytes
Image.init()
# What Pillow reads, but for formats that start other programs or only stand for a file that is elsewhere.
FORMATS = sorted(Image.OPEN.keys() - {"EPS", "WMF", "FPX", "MIC", "BUFR", "GRIB", "HDF5", "MPEG"})
ENDINGS = {ending for ending, name in Image.registered_extensions().items() if name in FORMATS}
Image.MAX_IMAGE_PIXELS = None  # the limit is ours: Pillow's own prints a warning and goes on
MODES = {1: "L", 3: "RGB"}


def decode(data, size, channels, crop=None):
    """The bytes of a file → (size, size, channels): the square in its middle, of side `crop` or as large as fits."""
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError("it is no picture, or damaged in its first bytes") from None
    with opened as picture:
        width, height = picture.size
        if width * height > LARGEST:
            raise ValueError(f"{width}×{height} pixels are over the limit of {LARGEST // 10**6} million")
        side = crop or min(width, height)
        if side > min(width, height):
            raise ValueError(f"{width}×{height} pixels are too few for a square of {crop}")
        if not crop:
            picture.draft(None, (2 * size, 2 * size))  # a JPEG need not be decoded at full size
            ImageOps.exif_transpose(picture, in_place=True)
            width, height = picture.size
            side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = opaque(picture.crop((left, top, left + side, top + side))).convert(MODES[channels])
        square = square.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(square).reshape(size, size, channels)


def opaque(picture):
    """The same with 8 bits a channel, on white where it is transparent."""
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
