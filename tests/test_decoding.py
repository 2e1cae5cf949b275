"""One image file of every kind, and files that are not images."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from toolkit.datasets import decoding
from toolkit.datasets.decoding import decode

RED, GREEN, BLUE = (200, 30, 20), (10, 180, 40), (30, 20, 220)


def flag():
    """24×8: red, green and blue squares."""
    picture = np.zeros((8, 24, 3), np.uint8)
    picture[:, :8], picture[:, 8:16], picture[:, 16:] = RED, GREEN, BLUE
    return Image.fromarray(picture)


def stored(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def near(pixels, colour, tolerance=3):
    return np.abs(pixels.astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "GIF", "WEBP", "JPEG"])
def test_takes_the_square_in_the_middle(kind):
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    assert near(decode(stored(flag(), kind, **options), 8, 3), GREEN)


def test_grey_is_what_pillow_makes_of_colours():
    grey = 0.299 * GREEN[0] + 0.587 * GREEN[1] + 0.114 * GREEN[2]
    pixels = decode(stored(flag()), 8, 1)
    assert pixels.shape == (8, 8, 1) and near(pixels, grey, 1)


def test_crop_leaves_out_the_border_and_shrinking_averages():
    pixels = np.zeros((30, 20, 3), np.uint8)
    pixels[7:23:2, 2:18] = 255  # stripes in the middle 16×16, nothing around
    made = decode(stored(Image.fromarray(pixels)), 4, 3, crop=0.8)
    expected = Image.fromarray(pixels[7:23, 2:18]).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(made, np.array(expected))
    assert near(made[1:3], 127, 20)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_cut_off(kind):
    deep = np.repeat(np.linspace(0, 65535, 16).astype(np.uint16)[:, None], 16, axis=1)
    pixels = decode(stored(Image.fromarray(deep), kind), 16, 1)
    assert near(pixels[:, :, 0], np.rint(deep / 257), 1)


def test_colours_in_other_modes():
    assert near(decode(stored(flag().convert("CMYK"), "TIFF"), 8, 3), GREEN)
    assert near(decode(stored(flag().convert("CMYK"), "JPEG", quality=100), 8, 3), GREEN, 5)
    assert near(decode(stored(flag().convert("P", palette=Image.Palette.ADAPTIVE)), 8, 3), GREEN)
    assert near(decode(stored(flag().convert("L")), 8, 3), 113, 1)
    black_and_white = np.zeros((8, 8), bool)
    black_and_white[:4] = True
    assert decode(stored(Image.fromarray(black_and_white)), 8, 1)[:, 0, 0].tolist() == [255] * 4 + [0] * 4


def test_transparent_parts_are_white():
    picture = flag().convert("RGBA")
    picture.putalpha(0)
    assert near(decode(stored(picture), 8, 3), 255)
    picture.putalpha(128)
    assert near(decode(stored(picture), 8, 3), (np.array(GREEN) + 255) / 2)
    palette = flag().convert("P", palette=Image.Palette.ADAPTIVE)
    data = stored(palette, transparency=palette.getpixel((12, 4)))
    assert near(decode(data, 8, 3), 255)
    assert near(decode(stored(Image.new("LA", (8, 8), (0, 0))), 8, 1), 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_used(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert near(decode(stored(frames[0], kind, save_all=True, append_images=frames[1:], **options), 8, 3), RED)


def test_photos_are_turned_as_the_camera_was_held():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    picture = Image.fromarray(np.concatenate([np.full((8, 16), 250), np.full((8, 16), 5)]).astype(np.uint8))
    pixels = decode(stored(picture, "PNG", exif=exif.tobytes()), 16, 1)
    assert near(pixels[:, 0], 5) and near(pixels[:, -1], 250)


def test_large_photos_need_not_be_decoded_whole():
    gradient = np.tile(np.linspace(0, 255, 2000), (1500, 1)).astype(np.uint8)
    pixels = decode(stored(Image.fromarray(gradient), "JPEG"), 16, 1)
    assert near(pixels[:, :, 0], 255 * (250 + 1500 * (np.arange(16) + 0.5) / 16) / 2000, 2)


def png(width, height, data=b""):
    """A PNG file that claims a size, whatever it holds."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_large_pictures_are_decoded_one_at_a_time_and_copied_small(monkeypatch):
    monkeypatch.setattr(decoding, "LARGE", 10_000)
    gradient = np.tile(np.linspace(0, 255, 300), (280, 1)).astype(np.uint8)
    at_once = []
    reduce = Image.Image.reduce

    def watched(picture, factor, box):
        at_once.append(decoding.one_at_a_time.locked())
        made = reduce(picture, factor, box)
        assert max(made.size) < 100
        return made

    monkeypatch.setattr(Image.Image, "reduce", watched)
    for mode in ("L", "RGB", "RGBA", "CMYK"):
        pixels = decode(stored(Image.fromarray(gradient).convert(mode), "TIFF"), 16, 1)
        assert near(pixels[:, :, 0], 255 * (10 + 280 * (np.arange(16) + 0.5) / 16) / 300, 3)
    assert set(at_once) == {True}


def test_a_picture_inside_an_icon_is_not_decoded():
    """It may be far larger than the icon says."""
    inner = stored(Image.new("RGB", (500, 500)))
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(ValueError, match="is not an image"):
        decode(icon, 8, 3)
    assert not {".ico", ".icns"} & decoding.ENDINGS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "is not an image"),
        (b"plain text", "is not an image"),
        (png(20_000, 20_000), "exceed the limit"),
        (png(2**31 - 1, 2**31 - 1), "."),
        (png(64, 64, bytes(100)), "."),  # it lies about its size
        (stored(flag())[:60], "."),
        (stored(flag(), "JPEG")[:-200], "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),  # would start a program
        (stored(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"), "floating-point"),
        (stored(Image.fromarray(np.full((8, 8), 2**20, np.int32)), "TIFF"), "16 bits"),
    ],
    ids=["empty", "text", "bomb", "huge bomb", "lying", "cut", "cut JPEG", "EPS", "float", "32 bits"],
)
def test_files_that_are_not_images(data, why):
    with pytest.raises(Exception, match=why):
        decode(data, 8, 3)
