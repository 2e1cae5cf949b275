"""One image file of every kind, and files that are not images."""

import io
import logging
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps
from sample_files import BLUE, GREEN, RED, draw_tricolour, encode_image

from toolkit.datasets import decoding


def decode(data, *wanted, **more):
    with decoding.strict_pillow():
        return decoding.decode(io.BytesIO(data), decoding.Format(*wanted, **more)).pixels


def near(pixels, colour, tolerance=3):
    return np.abs(pixels.astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "GIF", "WEBP", "JPEG"])
def test_takes_the_square_in_the_middle(kind):
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    assert near(decode(encode_image(draw_tricolour(), kind, **options), 8, 3), GREEN)


def test_grey_is_what_pillow_makes_of_colours():
    grey = 0.299 * GREEN[0] + 0.587 * GREEN[1] + 0.114 * GREEN[2]
    pixels = decode(encode_image(draw_tricolour()), 8, 1)
    assert pixels.shape == (8, 8, 1) and near(pixels, grey, 1)


def test_crop_leaves_out_the_border_and_shrinking_averages():
    pixels = np.zeros((30, 20, 3), np.uint8)
    pixels[7:23:2, 2:18] = 255  # stripes in the middle 16×16, nothing around
    made = decode(encode_image(Image.fromarray(pixels)), 4, 3, crop=0.8)
    expected = Image.fromarray(pixels[7:23, 2:18]).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(made, np.array(expected))
    assert near(made[1:3], 127, 20)


def test_pad_keeps_all_of_a_picture_on_a_white_square(monkeypatch):
    upright = encode_image(Image.new("RGB", (20, 40), RED), "PNG", exif=orientation(6))  # held upright
    for large in (decoding.LARGE, 100):
        monkeypatch.setattr(decoding, "LARGE", large)
        made = decode(encode_image(Image.new("RGB", (40, 20), RED)), 16, 3, fit="pad")
        assert near(made[5:11], RED) and near(made[:3], 255) and near(made[13:], 255)
        np.testing.assert_array_equal(decode(upright, 16, 3, fit="pad"), made)
        square = encode_image(Image.effect_noise((32, 32), 90))
        np.testing.assert_array_equal(decode(square, 16, 1, fit="pad"), decode(square, 16, 1))


def orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif.tobytes()


@pytest.mark.parametrize("size, channels", [((100_000, 1000), 1), ((1, 5000), 3)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_very_long_pictures(size, channels, fit):
    made = decode(encode_image(Image.new("L", size, 7)), 16, channels, fit=fit)
    assert made.shape == (16, 16, channels) and (fit == "pad" or near(made, 7))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_cut_off(kind):
    deep = np.repeat(np.linspace(0, 65535, 16).astype(np.uint16)[:, None], 16, axis=1)
    pixels = decode(encode_image(Image.fromarray(deep), kind), 16, 1)
    assert near(pixels[:, :, 0], np.rint(deep / 257), 1)


def test_colours_in_other_modes():
    assert near(decode(encode_image(draw_tricolour().convert("CMYK"), "TIFF"), 8, 3), GREEN)
    assert near(decode(encode_image(draw_tricolour().convert("CMYK"), "JPEG", quality=100), 8, 3), GREEN, 5)
    assert near(decode(encode_image(draw_tricolour().convert("P", palette=Image.Palette.ADAPTIVE)), 8, 3), GREEN)
    assert near(decode(encode_image(draw_tricolour().convert("L")), 8, 3), 113, 1)
    black_and_white = np.zeros((8, 8), bool)
    black_and_white[:4] = True
    assert decode(encode_image(Image.fromarray(black_and_white)), 8, 1)[:, 0, 0].tolist() == [255] * 4 + [0] * 4


def test_transparent_parts_are_white():
    picture = draw_tricolour().convert("RGBA")
    picture.putalpha(0)
    assert near(decode(encode_image(picture), 8, 3), 255)
    picture.putalpha(128)
    assert near(decode(encode_image(picture), 8, 3), (np.array(GREEN) + 255) / 2)
    palette = draw_tricolour().convert("P", palette=Image.Palette.ADAPTIVE)
    data = encode_image(palette, transparency=palette.getpixel((12, 4)))
    assert near(decode(data, 8, 3), 255)
    assert near(decode(encode_image(Image.new("LA", (8, 8), (0, 0))), 8, 1), 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_used(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert near(decode(encode_image(frames[0], kind, save_all=True, append_images=frames[1:], **options), 8, 3), RED)


def test_photos_are_turned_as_the_camera_was_held():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    picture = Image.fromarray(np.concatenate([np.full((8, 16), 250), np.full((8, 16), 5)]).astype(np.uint8))
    pixels = decode(encode_image(picture, "PNG", exif=exif.tobytes()), 16, 1)
    assert near(pixels[:, 0], 5) and near(pixels[:, -1], 250)


def test_large_photos_need_not_be_decoded_whole():
    gradient = np.tile(np.linspace(0, 255, 2000), (1500, 1)).astype(np.uint8)
    pixels = decode(encode_image(Image.fromarray(gradient), "JPEG"), 16, 1)
    assert near(pixels[:, :, 0], 255 * (250 + 1500 * (np.arange(16) + 0.5) / 16) / 2000, 2)


def png(width, height, data=b"", kind=0):
    """A PNG file that claims a size, whatever it holds."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_large_pictures_are_made_smaller_in_strips(monkeypatch):
    gradient = np.tile(np.linspace(0, 255, 300), (281, 1)).astype(np.uint8)
    pictures = [Image.fromarray(gradient).convert(mode) for mode in ("L", "RGB", "RGBA", "CMYK", "P", "LA")]
    pictures.append(Image.fromarray(gradient.astype(np.uint16) * 257))
    for picture in pictures:
        monkeypatch.setattr(decoding, "LARGE", 10**9)
        whole = decode(encode_image(picture, "PNG" if picture.mode == "P" else "TIFF"), 16, 1)
        monkeypatch.setattr(decoding, "LARGE", 10_000)
        monkeypatch.setattr(decoding, "STRIP", 5000)
        strips = decode(encode_image(picture, "PNG" if picture.mode == "P" else "TIFF"), 16, 1)
        assert near(strips, whole, 3), picture.mode


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_way_to_hold_a_camera(orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode_image(Image.fromarray(pixels), exif=exif.tobytes())
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(data, 8, 1)[..., 0], np.array(expected))


def test_odd_exif_does_not_keep_a_photo_from_being_turned():
    tags = ((0x0112, 3, 1, 3 << 16), (0x011A, 3, 1, 0xFFFF0000), (0x8825, 4, 1, 2**31), (0x9286, 2, 9, 2**31))
    odd = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    data = encode_image(Image.fromarray(pixels), exif=b"Exif\0\0" + odd + bytes(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(decode(data, 8, 1)[..., 0], pixels[::-1, ::-1])


def test_pictures_that_need_too_much_memory_are_refused_before_they_take_it(small_memory, monkeypatch):
    with small_memory(2**22), pytest.raises(ValueError, match="takes 3.. MiB, more than 256"):
        decode(png(9000, 9000, kind=2), 16, 3)
    monkeypatch.setattr(decoding, "MOST", 2**24)
    grey = Image.new("L", (3200, 3200))
    assert decode(encode_image(grey, "JPEG"), 16, 1).shape == (16, 16, 1)
    with pytest.raises(ValueError, match="takes"):
        decode(encode_image(grey, "JPEG", progressive=True), 16, 1)
    monkeypatch.setattr(decoding, "SCANS", 2)
    with pytest.raises(ValueError, match="more than 2 scans"):
        decode(encode_image(draw_tricolour(), "JPEG", progressive=True), 16, 1)


def test_what_pillow_decodes_in_python_is_small(monkeypatch):
    data = b"P2 1200 1200 255\n" + b"7 " * 1200**2
    with pytest.raises(ValueError, match="may have at most 1 million pixels"):
        decode(data, 8, 1)
    assert decode(b"P2 20 20 255\n" + b"7 " * 400, 8, 1).tolist() == [[[7]] * 8] * 8


def test_most_pictures_are_opened_once(monkeypatch):
    opened = decoding.opened
    count = []
    monkeypatch.setattr(decoding, "opened", lambda file: count.append(file) or opened(file))
    decode(encode_image(Image.new("RGB", (500, 500))), 8, 3)
    assert len(count) == 1
    decode(encode_image(Image.new("RGB", (900, 900))), 8, 3)
    assert len(count) == 3  # once more, with the memory that it needs


def segments(data, count):
    """A JPEG file with so many equal pieces before its pixels."""
    jpeg = encode_image(draw_tricolour(), "JPEG")
    return jpeg[:2] + (b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data) * count + jpeg[2:]


def tiff_of_strips(count):
    """A TIFF file that says of each of its strips where it is; there are more than rows."""
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1)]
    entries = [struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags]
    entries[5:5] = [struct.pack("<HHII", 273, 4, count, 200)]
    entries += [struct.pack("<HHII", 279, 4, count, 200 + 4 * count)]
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return head.ljust(200, b"\0") + bytes(8 * count)


def png_of_chunks(count):
    """A PNG file of very many pieces without a byte of pixels."""
    whole = png(8, 8, bytes(72))
    at = whole.index(b"IDAT") - 4
    return whole[:at] + (struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))) * count + whole[at:]


@pytest.mark.parametrize(
    "data",
    [
        *(segments(b"Exif\0\0" + bytes(60_000), 150), segments(b"", 70_000)),
        *(tiff_of_strips(1_100_000), tiff_of_strips(200_000), png_of_chunks(200_000)),
    ],
    ids=["EXIF, added up", "segments", "a long list of strips", "strips", "chunks"],
)
def test_files_with_very_many_pieces_are_refused(data):
    with pytest.raises(ValueError, match="its header is too large, or it has too many pieces"):
        decode(data, 8, 3)


def test_what_pillow_logs_is_not_seen(capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    data = encode_image(draw_tricolour(), "TIFF")
    at = data.index(struct.pack("<HHI", 277, 3, 1)) + 8  # samples per pixel
    with pytest.raises(ValueError):
        decode(data[:at] + struct.pack("<H", 30_000) + data[at + 2 :], 8, 3)
    assert capfd.readouterr().err == ""


def test_pictures_share_the_memory_that_there_is():
    memory, most = decoding.Memory(10), 0

    def use(size):
        nonlocal most
        with memory.taken(size):
            most = max(most, 10 - memory.left)
            time.sleep(0.001)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, [4, 10, 3, 7, 2, 6, 5] * 3))
    assert 5 < most <= 10 == memory.left


def test_a_picture_inside_an_icon_is_not_decoded():
    """It may be far larger than the icon says."""
    inner = encode_image(Image.new("RGB", (500, 500)))
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
        (encode_image(draw_tricolour())[:60], "."),
        (encode_image(draw_tricolour(), "JPEG")[:-200], "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),  # would start a program
        (encode_image(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"), "floating-point"),
        (encode_image(Image.fromarray(np.full((8, 8), 2**20, np.int32)), "TIFF"), "16 bits"),
    ],
    ids=["empty", "text", "bomb", "huge bomb", "lying", "cut", "cut JPEG", "EPS", "float", "32 bits"],
)
def test_files_that_are_not_images(data, why):
    with pytest.raises(Exception, match=why):
        decode(data, 8, 3)
