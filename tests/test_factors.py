"""A table of the factors that made the pictures of a folder."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from toolkit import datasets
from toolkit.datasets import factors


@pytest.fixture
def shapes(tmp_path):
    """A folder of 40 pictures, one of them damaged, with a table in another order; a picture's grey is in it."""
    folder = tmp_path / "shapes"
    (folder / "round").mkdir(parents=True)
    names = [f"{'round/' * (i % 2)}ä{i}.png" for i in range(40)]
    for i, name in enumerate(names):
        Image.new("L", (8, 8), 5 * i).save(folder / name)
    (folder / names[7]).write_bytes(b"no picture")
    rows = [f'{name},"{5 * i}, grey",{"" if i % 4 else "hat"}' for i, name in enumerate(names)]
    (folder / "factors.csv").write_text("\n".join(["file,shade,hat", *rows[::-1]]) + "\n", encoding="utf-8-sig")
    return folder


def load(folder, split, tmp_path, **options):
    return datasets.load(f"folder:{folder}", split, tmp_path / "data", image_size=8, **options)


def test_factors_are_kept_with_the_split(shapes, tmp_path):
    total = 0
    for split in (load(shapes, name, tmp_path) for name in ("train", "test")):
        known = split.factors
        assert known.names == ("shade", "hat") and known.values[1] == ("hat", "none") and len(known.values[0]) == 40
        assert known.files == tuple(split.names) and len(known.numbers) == len(split.images)
        total += len(known.numbers)
        shades = [int(known.values[0][number].split(",")[0]) for number in known.column("shade")]
        np.testing.assert_allclose(split.images[:].mean(axis=(1, 2, 3)), shades, atol=1)
        assert split.left_out == {}
    assert total == 39
    assert known.words == "shade (40 values), hat (2)"
    assert load(shapes, "train", tmp_path, limit=5).factors.numbers.shape == (5, 2)


def test_factors_in_a_zip_file_and_on_the_screen(run, shapes, tmp_path):
    with zipfile.ZipFile(tmp_path / "shapes.zip", "w") as archive:
        for path in shapes.rglob("*.*"):
            archive.write(path, f"shapes/{path.relative_to(shapes)}")
    flags = ["--image_size", 8, "--max_filters", 8, "--epochs", 0.2, "--data_dir", tmp_path / "data", "--outdir"]
    for place in (shapes, tmp_path / "shapes.zip"):
        status, out, _ = run("train", place, *flags, tmp_path / f"to {place.name}")
        assert status == 0 and "  Factors: shade (40 values), hat (2)\n" in out and "1 damaged" in out


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda text: "", "does not begin with a line like file,hat,glasses"),
        (lambda text: text.replace("file,", "name,"), "does not begin with"),
        (lambda text: text.replace("shade,hat", "hat,hat"), "does not begin with"),
        (lambda text: text.replace("ä39.png", "ä40.png"), "line 2: there is no picture 'round/ä40.png'"),
        (lambda text: text.replace("ä38.png", "ä36.png"), "'ä36.png' has a row already"),
        (lambda text: "\n".join(text.splitlines()[:-2]), "has no row for 2 pictures, such as 'round/ä1.png'"),
        (lambda text: text.replace('"195, grey",', '"195, grey"'), "line 2, has 2 fields instead of 3"),
        (lambda text: text.replace('"195, grey"', '"195, grey'), "cannot be read"),
    ],
)
def test_a_wrong_table_is_one_line(fails, shapes, tmp_path, change, said):
    text = (shapes / factors.FILE).read_text(encoding="utf-8-sig")
    (shapes / factors.FILE).write_text(change(text))
    line = fails("train", shapes, "--data_dir", tmp_path / "data", "--outdir", tmp_path / "out")
    assert said in line and "factors.csv" in line, line


def test_a_table_that_is_not_text(fails, shapes, tmp_path):
    (shapes / factors.FILE).write_bytes(b"file,hat\n\xff\xfe,1\n")
    assert "save it as UTF-8" in fails("train", shapes, "--data_dir", tmp_path, "--outdir", tmp_path / "out")
