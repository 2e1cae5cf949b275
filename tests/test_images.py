"""Pictures by their content: rounding, sheets of any number, names and formats."""

import numpy as np
import pytest
from PIL import Image

from toolkit.errors import UserError
from toolkit.files.targets import check_ending
from toolkit.pictures import images


def test_bytes_are_rounded_and_clipped():
    pixels = np.array([-1, 0, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1, 2])
    assert images.to_bytes(pixels).tolist() == [0, 0, 0, 1, 255, 255, 255]


@pytest.mark.parametrize(
    "count, columns", [(1, 1), (2, 2), (7, 4), (10, 5), (12, 4), (64, 8), (128, 12), (13, 7), (100, 10), (300, 12)]
)
def test_columns(count, columns):
    assert images.best_columns(count) == columns


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count, columns", [(1, None), (5, 3), (6, 3), (7, 100), (128, None)])
def test_every_image_has_its_place_on_the_sheet(count, columns, channels):
    stack = np.random.default_rng(0).integers(0, 256, (count, 8, 6, channels), dtype=np.uint8)
    sheet = images.sheet(stack, columns, 1)
    columns = min(columns or images.best_columns(count), count)
    rows = -(-count // columns)
    assert sheet.shape == (rows * 8 + (rows - 1) * images.GAP, columns * 6 + (columns - 1) * images.GAP, channels)
    for i, image in enumerate(stack):
        top, left = i // columns * (8 + images.GAP), i % columns * (6 + images.GAP)
        np.testing.assert_array_equal(sheet[top : top + 8, left : left + 6], image)


def test_pairs_stand_side_by_side():
    left, right = np.zeros((3, 8, 8, 1), np.uint8), np.full((3, 8, 8, 1), 9, np.uint8)
    both = images.pairs(left, right)
    assert both.shape == (3, 8, 16, 1)
    assert (both[:, :, :8] == 0).all() and (both[:, :, 8:] == 9).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_png_has_the_same_pixels(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (8, 12, channels), dtype=np.uint8)
    images.save(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.array(picture).reshape(image.shape), image)


def test_broken_pixels_are_no_picture():
    with pytest.raises(UserError, match="NaN pixels"):
        images.to_bytes(np.array([0.5, np.nan]))


def test_sheets_too_large_or_too_long():
    assert images.check_sheet(128, 64) == 12
    for count, size, columns in ((10**6, 64, None), (2000, 64, 1), (2000, 64, 2000)):
        with pytest.raises(UserError):
            images.check_sheet(count, size, columns)


@pytest.mark.parametrize("name", ["a.PNG", "a.jpg", "a.bmp", "a.webp"])
def test_other_formats(tmp_path, name):
    images.save(tmp_path / name, np.zeros((8, 12, 3), np.uint8))
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (12, 8)


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.npz", "png", "a.png.", "a.hdf"])
def test_unknown_formats_are_refused(name):
    with pytest.raises(UserError, match="png"):
        check_ending(name, images.ENDINGS)
        images.save(name, np.zeros((8, 12, 3), np.uint8))


def test_two_channels_make_no_picture(tmp_path):
    with pytest.raises(UserError, match="1 or 3 channels"):
        images.save(tmp_path / "a.png", np.zeros((8, 8, 2), np.uint8))


def test_writer_saves_all_and_reports_the_first_failure(tmp_path):
    image = np.zeros((8, 8, 1), np.uint8)
    with images.Writer() as writer:
        for i in range(images.MOST_WAITING + 50):
            writer.save(tmp_path / f"{i}.png", image)
    assert len(list(tmp_path.iterdir())) == images.MOST_WAITING + 50
    (tmp_path / "file").touch()
    with pytest.raises(UserError), images.Writer() as writer:
        writer.save(tmp_path / "file" / "a.png", image)
