"""Latent vectors in files: which image each belongs to, the way of a picture to the model, and the way back."""

import csv
import io
import os

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from sample_files import make_lying_zip
from sample_models import make_model, save

from toolkit import datasets, wording
from toolkit.errors import UserError
from toolkit.formats import codes
from toolkit.model import inference
from toolkit.model.inputs import to_floats
from toolkit.pictures import images
from toolkit.wording import distinct, file_names


def picture(seed, size=(40, 24)):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path):
    """A folder with two classes, and a picture beside it."""
    for seed, name in enumerate(("pets/cat/a.png", "pets/dog/a.png", "pets/dog/b x.png", "one.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(path)
    (tmp_path / "photos" / "pets" / "cat" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def encode_pictures(model, paths, **options):
    split = datasets.load_files([str(path) for path in paths], 16, model.config.channels, **options)
    return inference.encode(model, split)


def test_files_and_folders(run, model, model_file, photos, tmp_path):
    out = tmp_path / "codes.npz"
    status, text, err = run("encode", photos / "one.png", photos / "pets", "--model", model_file, "--outfile", out)
    assert (status, err, text) == (0, "", f"Left out: 1 TXT\n4 latent vectors of 3 dims: {out}\n")
    with np.load(out) as found:
        assert found["name"].tolist() == ["one.png", "cat/a.png", "dog/a.png", "dog/b x.png"]
        assert found["class"].tolist() == ["", "cat", "dog", "dog"]
        mean, log_var = encode_pictures(model, [photos / "one.png", photos / "pets"])
        np.testing.assert_allclose(found["mean"], mean, atol=1e-6)
        np.testing.assert_allclose(found["log_var"], log_var, atol=1e-6)
        assert found["mean"].dtype == np.float32 and str(tmp_path) not in str(dict(found))


def test_csv_holds_the_same_numbers_and_is_what_goes_to_a_pipe(run, model_file, photos, tmp_path):
    for ending in ("npz", "csv"):
        run("encode", photos / "pets", "--model", model_file, "--outfile", tmp_path / f"codes.{ending}")
    one, other = (codes.load(tmp_path / f"codes.{ending}", 3) for ending in ("npz", "csv"))
    assert one.names == other.names and one.classes == other.classes
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.log_var, other.log_var)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "codes.csv").read_text())))
    columns = ["name", "class", *(f"{part}_{i}" for part in ("mean", "log_var") for i in range(3))]
    assert list(rows[0]) == columns and float(rows[1]["mean_2"]) == pytest.approx(one.mean[1, 2])
    assert codes.table(one) == (tmp_path / "codes.csv").read_text()


def test_a_split_of_a_data_set(run, model, model_file, tmp_path):
    flags = ["--model", model_file, "--limit", 30, "--outfile", tmp_path / "codes.npz", "--overwrite"]
    for more, split in (([], "test"), (["--split", "train"], "train")):
        assert run("encode", *flags, *more)[0] == 0
        found, data = codes.load(tmp_path / "codes.npz", 3), datasets.load("synthetic", split, None, 30)
        assert found.names == [str(i) for i in range(30)]
        assert found.classes == [str(label) for label in data.labels]
        np.testing.assert_allclose(found.mean, inference.encode(model, data)[0], atol=1e-6)


def test_pictures_are_turned_and_cut_as_those_of_training(model, tmp_path):
    picture(0).save(tmp_path / "upright.png")
    turned = picture(0).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 270° to see it
    turned.save(tmp_path / "turned.png", exif=exif)
    upright, other = (encode_pictures(model, [tmp_path / name])[0] for name in ("upright.png", "turned.png"))
    np.testing.assert_allclose(upright, other, atol=1e-6)
    picture(1, (178, 218)).save(tmp_path / "face.png")
    picture(1, (178, 218)).crop((15, 35, 163, 183)).save(tmp_path / "middle.png")
    face = encode_pictures(model, [tmp_path / "face.png"], like="celeb-a")[0]
    np.testing.assert_allclose(face, encode_pictures(model, [tmp_path / "middle.png"])[0], atol=1e-6)
    assert np.abs(face - encode_pictures(model, [tmp_path / "face.png"])[0]).max() > 1e-3


def test_a_file_named_and_found_in_a_data_set_has_the_same_code(run, model_file, photos, tmp_path):
    flags = ["--model", model_file, "--outfile", tmp_path / "codes.npz", "--overwrite"]
    run("encode", photos / "pets", *flags)
    named = codes.load(tmp_path / "codes.npz", 3)
    for split, count in (("train", 2), ("test", 1)):
        data = ["--dataset", f"folder:{photos / 'pets'}", "--data_dir", tmp_path, "--split", split]
        assert run("encode", *data, *flags)[0] == 0
        found = codes.load(tmp_path / "codes.npz", 3)
        assert len(found.names) == count and set(found.names) < set(named.names)
        np.testing.assert_allclose(found.mean, named.chosen(found.names).mean, atol=1e-6)
        assert found.classes == named.chosen(found.names).classes


@pytest.fixture
def conditional(tmp_path):
    model = make_model(num_classes=2, channels=3)
    save(tmp_path / "c.npz", model, dataset="folder:pets", class_names=["cat", "dog"])
    return model, tmp_path / "c.npz"


def test_a_conditional_model_takes_sub_folders_or_a_label(run, fails, conditional, photos, tmp_path):
    model, path = conditional
    flags = ["--model", path, "--outfile", tmp_path / "codes.npz", "--overwrite"]
    assert run("encode", photos / "pets", *flags)[0] == 0
    found = codes.load(tmp_path / "codes.npz", 3)
    split = datasets.load_files([str(photos / "pets")], 16, 3)
    mean, _ = model.encode(to_floats(mx.array(split.images), model.config), mx.array([0, 1, 1]))
    np.testing.assert_allclose(found.mean, np.array(mean), atol=1e-6)
    assert found.classes == ["cat", "dog", "dog"]
    assert run("encode", photos / "one.png", "--label", "dog", *flags)[0] == 0
    assert codes.load(tmp_path / "codes.npz", 3).classes == ["dog"]
    assert "one.png: the model needs a label — give --label" in fails("encode", photos / "one.png", *flags)


def test_codes_are_decoded_by_name_and_after_arithmetic(run, fails, model, model_file, photos, tmp_path):
    path, out = tmp_path / "codes.npz", tmp_path / "a.png"
    run("encode", photos / "pets", "--model", model_file, "--outfile", path)
    found = codes.load(path, 3)
    flags = ["--model", model_file, "--scale", 1, "--outfile", out, "--codes"]
    status, text, _ = run("generate", *flags, path, "--names", "dog/b x.png", "cat/a.png", "--outdir", tmp_path / "out")
    assert status == 0 and f"Sheet of 2 pictures: {out}" in text
    expected = images.to_bytes(inference.decode(model, found.mean[[2, 0]]))
    with Image.open(out) as sheet:
        np.testing.assert_array_equal(np.array(sheet), images.sheet(expected, scale=1)[:, :, 0])
    written = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert written == ["all.png", "cat_a.png", "dog_b x.png"]
    np.savez(tmp_path / "sum.npz", mean=found.mean[0] - found.mean[1] + found.mean[2])
    assert run("generate", *flags, tmp_path / "sum.npz")[0] == 0
    with Image.open(out) as sheet:
        z = (found.mean[0] - found.mean[1] + found.mean[2])[None]
        np.testing.assert_array_equal(np.array(sheet), images.to_bytes(inference.decode(model, z))[0, :, :, 0])
    assert "no row named x — the names are cat/a.png" in fails("generate", *flags, path, "--names", "x")


def test_codes_of_classes(run, fails, conditional, photos, tmp_path):
    model, path = conditional
    flags = ["--model", path, "--outfile"]
    run("encode", photos / "pets", *flags, tmp_path / "codes.csv")
    mean = codes.load(tmp_path / "codes.csv", 3).mean
    for more, labels in (([], [0, 1, 1]), (["--label", "cat"], [0, 0, 0])):
        assert (
            run("generate", "--scale", 1, *flags, tmp_path / "a.png", "--codes", tmp_path / "codes.csv", *more)[0] == 0
        )
        with Image.open(tmp_path / "a.png") as sheet:
            expected = images.to_bytes(inference.decode(model, mean, np.array(labels)))
            np.testing.assert_array_equal(np.array(sheet), images.sheet(expected, scale=1))
    np.savez(tmp_path / "bare.npz", mean=mean)
    line = fails("generate", *flags, tmp_path / "a.png", "--codes", tmp_path / "bare.npz")
    assert "have none — give --label" in line


def test_pictures_that_are_none(run, fails, model_file, photos, tmp_path):
    flags = ["--model", model_file, "--outfile", tmp_path / "codes.npz", "--overwrite"]
    (photos / "pets" / "text.png").write_text("These are words.")
    line = fails("encode", photos / "pets" / "text.png", *flags)
    assert "text.png cannot be read: it is not an image" in line
    status, out, _ = run("encode", photos / "pets", *flags)  # among others it is skipped
    assert status == 0 and "Left out: 1 TXT, 1 damaged (text.png: " in out
    (tmp_path / "empty").mkdir()
    assert "contains no image" in fails("encode", tmp_path / "empty", *flags)
    assert "no such file" in fails("encode", tmp_path / "gone.png", *flags)
    assert "name one that ends in .npz or .csv" in fails("encode", "--model", model_file, "--outfile", "codes.txt")
    assert "not class-conditional" in fails("encode", photos / "one.png", "--label", "cat", *flags)


BROKEN = {
    "a column is missing": (b"name,mean_0,mean_2\na,1,2\n", "the column mean_1 is missing"),
    "no columns of means": (b"name,z\na,1\n", "no columns mean_0"),
    "another size": (b"mean_0,mean_1\n1,2\n", "vectors of 2 dims, the model has 3"),
    "no rows": (b"name,mean_0,mean_1,mean_2\n", "contains no rows"),
    "a short row": (b"mean_0,mean_1,mean_2\n1,2\n", "row 1 has 2 columns instead of 3"),
    "a word": (b"mean_0,mean_1,mean_2\n1,2,3\n1,x,3\n", "row 2: could not convert string to float: 'x'"),
    "not a number": (b"mean_0,mean_1,mean_2\n1,nan,3\n", "infinite values or NaN"),
    "half a log_var": (b"mean_0,mean_1,mean_2,log_var_0\n1,2,3,4\n", "differ in shape"),
    "nothing": (b"", "no columns"),
    "a broken archive": (b"PK\x03\x04 broken", "contains no latent vectors"),
    "a picture": (b"\x89PNG\r\n\xff\xfe", "contains no latent vectors"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_codes_that_are_none(fails, model_file, tmp_path, what):
    data, said = BROKEN[what]
    (tmp_path / "codes.csv").write_bytes(data)
    out = ["--outfile", tmp_path / "a.png"]
    assert said in fails("generate", "--model", model_file, "--codes", tmp_path / "codes.csv", *out)


@pytest.mark.parametrize(
    "arrays", [{"z": np.zeros((1, 3))}, {"mean": np.zeros((2, 3)), "name": ["a"]}, {"mean": np.array([{}], object)}]
)
def test_arrays_that_are_no_codes(tmp_path, arrays):
    np.savez(tmp_path / "codes.npz", **arrays)
    with pytest.raises(UserError, match="contains no latent vectors"):
        codes.load(tmp_path / "codes.npz", 3)


def test_names_become_files():
    names = ["cats/1 x.jpg", "cats_1 x.png", "../../etc/passwd", "12", "", "ÄÖ.webp", "A.jpg", "a.jpg", "all.png"]
    made = file_names(names, ["all.png"])
    assert made[:3] == ["cats_1 x.png", "cats_1 x-2.png", "_.._etc_passwd.png"]
    assert made[3:] == ["12.png", "image.png", "ÄÖ.png", "A.png", "a-2.png", "all-2.png"]
    assert distinct(["a.png", "a-2.png", "a.png"]) == ["a.png", "a-2.png", "a-3.png"]
    assert distinct(["\xe4.png", "a\u0308.png"]) == ["\xe4.png", "a\u0308-2.png"]  # one name on a Mac
    assert distinct(["x"] * 3000)[-1] == "x-3000"


def test_a_model_whose_encoder_alone_sees_classes(run, fails, photos, tmp_path):
    model = make_model(arch="bounded", num_classes=2, channels=3)
    save(tmp_path / "b.npz", model, dataset="folder:pets", class_names=["cat", "dog"])
    flags = ["--model", tmp_path / "b.npz", "--outfile", tmp_path / "codes.npz", "--overwrite"]
    found = []
    for label in ("cat", "1"):
        assert run("encode", photos / "one.png", "--label", label, *flags)[0] == 0
        found.append(codes.load(tmp_path / "codes.npz", 3))
    assert [one.classes for one in found] == [["cat"], ["dog"]] and (found[0].mean != found[1].mean).any()
    assert "0 to 1 or cat, dog" in fails("encode", photos / "one.png", "--label", "bird", *flags)
    assert "only this model's encoder" in fails("generate", "--model", tmp_path / "b.npz", "--label", "cat")


def test_codes_that_take_much_memory_or_never_end(fails, model_file, tmp_path, small_memory, monkeypatch):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zero.npz"):
        line = fails("generate", "--model", model_file, "--codes", tmp_path / name, "--outfile", tmp_path / "a.png")
        assert "not a regular file" in line
    (tmp_path / "bomb.npz").write_bytes(make_lying_zip("mean.npy", 1000))
    (tmp_path / "wide.csv").write_bytes(b"1," * 2**20)
    np.savez(tmp_path / "long.npz", mean=np.zeros((2**21, 0)))
    np.savez(tmp_path / "names.npz", mean=np.zeros((1, 3)), name=np.zeros(2, "U10"))
    (tmp_path / "rows.csv").write_bytes(b"mean_0\n" + b"1\n" * 2000)
    (tmp_path / "huge.csv").write_bytes(b"")
    os.truncate(tmp_path / "huge.csv", 2**26)
    (tmp_path / "vast.npz").write_bytes(b"PK")
    os.truncate(tmp_path / "vast.npz", 2**40)
    for name, why in (
        *(
            ("bomb.npz", "CRC"),
            ("wide.csv", "no columns"),
            ("long.npz", "more than 1,048,576 rows"),
            ("names.npz", "1 rows"),
        ),
        *(("huge.csv", "larger than 32 MiB"), ("vast.npz", "larger than 128 MiB")),
    ):
        with small_memory(2**25), pytest.raises(UserError, match=why):
            codes.load(tmp_path / name, 3)
    monkeypatch.setattr(codes, "MOST_ROWS", 1000)
    with pytest.raises(UserError, match="more than 1,000 rows"):
        codes.load(tmp_path / "rows.csv", 1)


def test_names_of_any_characters_come_back(tmp_path):
    names = ["a\rb", "c\nd", 'e"f', "g,h", "", "i\r\n"]
    codes.save(tmp_path / "a.csv", codes.Codes(names, np.ones((6, 2))))
    assert codes.load(tmp_path / "a.csv", 2).names == names


def test_columns_are_compared_before_rows_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("mean_0,mean_1\n0,no number\n")
    with pytest.raises(UserError, match="vectors of 2 dims, the model has 3"):
        codes.load(tmp_path / "a.csv", 3)


def test_many_equal_names_take_a_step_each(monkeypatch):
    steps = []
    monkeypatch.setattr(wording, "as_one", lambda name: steps.append(name) or name.casefold())
    names = [f"{'A' if i % 2 else 'a'}{'B' if i % 3 else 'b'}" for i in range(300)]
    assert len(set(map(str.casefold, distinct(names)))) == 300 and len(steps) < 3000


@pytest.mark.parametrize("mean", [np.full((1, 2), 1e300), np.full((1, 2), 1j)])
def test_values_that_are_none_bring_no_warning(tmp_path, mean):
    np.savez(tmp_path / "a.npz", mean=mean)
    with pytest.raises(UserError, match="a.npz contains"):
        codes.load(tmp_path / "a.npz", 2)


def test_models_of_other_channels_than_pictures(fails, tmp_path):
    save(tmp_path / "a.npz", make_model(arch="mlp", channels=4))
    for command in ("encode", "evaluate"):
        assert "has 4 channels" in fails(command, "--model", tmp_path / "a.npz", "--dataset", "synthetic", "--limit", 5)
