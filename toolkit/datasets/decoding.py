"""Decode one image file of any size and colours → a square of bytes. Broken and hostile files raise an exception.

All decoding threads share MOST bytes of memory. The size of an image is read before its pixels, and an image that needs
more than MOST is rejected. `cache.py` handles such files and stores the pixels.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MOST = 2**28  # bytes
USUAL = 2**22  # bytes that small or partly decoded pictures need at most
LARGEST_FILE = 2**27  # bytes
LARGEST_HEADER = 2**23  # bytes before the pixels: profiles, remarks, lists of strips
PIECE = 2**10  # minimum bytes that each read counts as, because many small reads are slow
LARGEST = 250 * 10**6  # pixels; phones make JPEG files of 200 million, which are decoded at an eighth of the size
LARGEST_SLOW = 2**20  # pixels of formats that Pillow decodes in Python
LARGE = 2**22  # pixels from which a picture is made smaller strip by strip, so that no copy of it is as large
STRIP = 2**20  # pixels
SCANS = 30  # of a JPEG file, each over the whole picture; cameras and programs write about 10
MODES = {1: "L", 3: "RGB"}
# Pillow reads more, but not all within bounds: some start other programs or refer to other files, some hold pictures
# larger than they say.
Image.init()
with suppress(ImportError):  # an extra: without it, photos of iPhones are left out
    import pillow_heif

    pillow_heif.register_heif_opener()
KNOWN = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
FORMATS = [name for name in KNOWN if name in Image.OPEN]  # Pillow can be built without some
ENDINGS = {ending for ending, name in Image.registered_extensions().items() if name in FORMATS}
STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # bytes a pixel, by mode; 4 in the others
# Those that decoders take besides. That of JPEG2000 takes 16, but it is so slow that 7 million pixels are enough.
WORKING = {"AVIF": 12, "GIF": 1, "HEIF": 12, "JPEG2000": 32, "TIFF": 4, "WEBP": 12}
REMEDIES = {} if "HEIF" in FORMATS else dict.fromkeys(("HEIC", "HEIF"), "pip install pillow-heif")  # by kind of file
ORIENTATION = 0x0112  # tag of EXIF


class Format(NamedTuple):
    """What pictures become."""

    size: int
    channels: int
    fit: str = "crop"  # to their central square; or pad: all of it, on a white square
    crop: float = 1.0  # the central square's side, as a share of the shorter side


class Picture(NamedTuple):
    pixels: np.ndarray  # (size, size, channels)
    was_square: bool


class Limited:
    """A file with a limit on the bytes and the number of reads."""

    def __init__(self, file: BinaryIO):
        self.file, self.left = file, LARGEST_HEADER

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.left -= max(PIECE, len(data) if size >= 0 else 0)  # or else the whole file
        if self.left < 0:
            raise ValueError("its header is too large, or it has too many pieces")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Memory:
    """A memory budget shared by threads."""

    def __init__(self, size: int):
        self.left, self.changed = size, threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until this much memory is free, and reserve it during the block."""
        with self.changed:
            self.changed.wait_for(lambda: self.left >= size)
            self.left -= size
        try:
            yield
        finally:
            with self.changed:
                self.left += size
                self.changed.notify_all()


memory = Memory(MOST)


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Pillow with our limit, for pictures inside pictures too (it fails above twice the number), and without a log."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, LARGEST // 2
    logger, quiet = logging.getLogger("PIL"), logging.NullHandler()  # or what it logs of odd files goes to stderr
    logger.addHandler(quiet)
    try:
        yield
    finally:
        logger.removeHandler(quiet)
        Image.MAX_IMAGE_PIXELS = before


def decode(file: BinaryIO, wanted: Format) -> Picture:
    """A file → a picture in the wanted format."""
    needed = min(MOST, USUAL + 2 * file.seek(0, os.SEEK_END))  # the data before the pixels may be as long as the file
    while True:
        with memory.taken(needed), opened(file) as picture:
            whole = picture.size
            if wanted.crop == 1 or whole[0] * whole[1] > LARGE:
                picture.draft(None, (2 * wanted.size, 2 * wanted.size))  # a JPEG can be decoded at a reduced size
            real = memory_for(picture, whole, wanted)
            if real > MOST:
                raise ValueError(f"decoding it takes {real / 2**20:.0f} MiB, more than {MOST / 2**20:.0f}")
            if real <= needed:
                check_time(picture, file)
                return Picture(square(picture, wanted), whole[0] == whole[1])
        needed = real  # reserve all at the start, to avoid deadlock


def opened(file):
    """Open a picture and read only its header."""
    file.seek(0)
    limited = Limited(file)
    try:
        picture = Image.open(limited, formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError("it is not an image in a supported format, or its header is damaged") from None
    except Image.DecompressionBombError:
        raise ValueError(f"its pixels exceed the limit of {LARGEST // 10**6} million") from None
    limited.left = LARGEST_FILE * 3 // 2
    return picture


def memory_for(picture, whole, wanted):
    """An upper bound on the bytes that decoding takes."""
    pixels, side = picture.width * picture.height, max(picture.size)
    copies = 16 * STRIP + 8 * (side // reduction(side, wanted)) ** 2 if pixels > LARGE else 12 * pixels
    needed = pixels * (STORED.get(picture.mode, 4) + WORKING.get(picture.format, 0)) + copies
    if "progressive" in picture.info:  # all coefficients are stored, two bytes each
        needed += 2 * picture.layers * whole[0] * whole[1]
    return needed


def check_time(picture, file):
    """Reject pictures that are slow to decode although they are small."""
    if picture.width * picture.height > LARGEST_SLOW and any(tile[0] in Image.DECODERS for tile in picture.tile):
        raise ValueError(f"a picture in this format may have at most {LARGEST_SLOW / 1e6:.0f} million pixels")
    if "progressive" in picture.info:
        place = file.tell()
        file.seek(0)
        if file.read().count(b"\xff\xda") > SCANS:
            raise ValueError(f"it has more than {SCANS} scans")
        file.seek(place)


def square(picture, wanted):
    """The central square of a picture, or all of it on a white square, in its intended orientation."""
    width, height = picture.size
    if wanted.fit == "crop":
        width = height = max(1, round(wanted.crop * min(width, height)))
    left, top, mode = (picture.width - width) // 2, (picture.height - height) // 2, MODES[wanted.channels]
    box = left, top, left + width, top + height
    if picture.width * picture.height > LARGE:
        made = in_strips(picture, box, reduction(max(width, height), wanted), mode)
    else:
        made = opaque(picture.crop(box)).convert(mode)
    made.info.clear()  # otherwise Pillow rewrites unusual EXIF data when it rotates the picture
    made.getexif()[ORIENTATION] = picture.getexif().get(ORIENTATION)
    made = ImageOps.exif_transpose(made)
    shape = wanted.size, wanted.size
    made = ImageOps.pad(made, shape, Image.Resampling.BILINEAR, color="white")  # a square has nothing to be padded
    return np.asarray(made).reshape(*shape, wanted.channels)


def reduction(side, wanted):
    """By which factor a large picture is made smaller before it is resized."""
    return max(1, side // (4 * wanted.size))


def in_strips(picture, box, by, mode):
    """A part of a picture, reduced by an integer factor."""
    left, top, right, bottom = box
    made = Image.new(mode, (-(-(right - left) // by), -(-(bottom - top) // by)))
    rows = max(1, STRIP // ((right - left) * by))  # of what is made, in a strip
    for row in range(0, made.height, rows):
        start, end = top + row * by, min(bottom, top + (row + rows) * by)
        strip = opaque(picture.crop((left, start, right, end))).convert(mode)
        made.paste(strip.reduce(by), (0, row))
    return made


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
