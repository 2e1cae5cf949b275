"""A folder of your own images, from the files to a trained model; and CelebA, which comes as such files."""

import io
import json
import os
import re
import shutil
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from sample_files import encode_jpeg, limit_file_size, make_celeb_a

from toolkit import datasets
from toolkit.datasets import cache, celeb_a, decoding, folder, tree
from toolkit.errors import UserError
from toolkit.files import writing
from toolkit.formats import checkpoint
from toolkit.shell.data import load_pictures


@pytest.fixture
def pets(tmp_path):
    """A folder with an awkward name: 12 dark cats, 8 light dogs, and other files."""
    folder = tmp_path / "Meine Tiere ä"
    for name, count, shade in (("cats", 12, 40), ("dogs/große", 8, 210)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i} x.jpg").write_bytes(encode_jpeg(shade + i, (30 + i, 20)))
    (folder / "birds").mkdir()  # a class with none
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(encode_jpeg(0))
    return folder


def load(folder, split, tmp_path, **options):
    return datasets.load(f"folder:{folder}", split, tmp_path / "data", **{"image_size": 16} | options)


def test_splits_and_classes(pets, tmp_path):
    train, test = (load(pets, split, tmp_path) for split in ("train", "test"))
    assert (len(train.images), len(test.images)) == (19, 1) and (train.total, test.total) == (19, 1)
    assert train.images.shape == (19, 16, 16, 3) and train.class_names == test.class_names == ("cats", "dogs")
    shades = np.concatenate([split.images[:][:, 8, 8, 0] for split in (train, test)])
    labels = np.concatenate([train.labels, test.labels])
    assert sorted(shades) == sorted([*range(40, 52), *range(210, 218)])  # each once
    np.testing.assert_array_equal(labels, shades > 128)
    names = [*train.names, *test.names]  # those of the files, in the order of the images
    assert [int(name.split("/")[-1].split()[0]) + (210 if "dogs" in name else 40) for name in names] == shades.tolist()
    assert load(pets, "train", tmp_path, channels=1).images.shape == (19, 16, 16, 1)
    assert len(load(pets, "train", tmp_path, limit=5).images) == 5


def test_new_pictures_are_seen_and_move_no_other_one_across(pets, tmp_path):
    def shades():
        return [set(load(pets, split, tmp_path).images[:][:, 8, 8, 0].tolist()) for split in ("train", "test")]

    train, test = set(), set()
    for i in range(120):
        (pets / "cats" / f"new {i}.jpg").write_bytes(encode_jpeg(60 + i))
        if i % 40 == 39:
            before, (train, test) = (train, test), shades()
            assert before[0] <= train and before[1] <= test
    assert len(train) + len(test) == 140 and 5 <= len(test) <= 25


def test_two_pictures_are_one_for_each_split(tmp_path):
    for i in range(20):
        folder = tmp_path / str(i)
        folder.mkdir()
        for k in range(2):
            (folder / f"{i} {k}.jpg").write_bytes(encode_jpeg(i))
        assert [len(load(folder, split, tmp_path).images) for split in ("train", "test")] == [1, 1]


def test_links_are_followed_and_what_cannot_be_read_now_is_tried_again(pets, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").write_bytes(encode_jpeg(100))
    (pets / "linked").symlink_to(tmp_path / "elsewhere")
    (pets / "cats" / "round").symlink_to(pets)
    (pets / "cats" / "itself.jpg").symlink_to("itself.jpg")
    (pets / "cats" / "nowhere.jpg").symlink_to("nothing.jpg")
    train, test = (load(pets, split, tmp_path) for split in ("train", "test"))
    assert len(train.images) + len(test.images) == 21 and train.class_names == ("cats", "dogs", "linked")
    assert {name for name, _ in train.skipped} == {"cats/itself.jpg", "cats/nowhere.jpg"}
    (pets / "cats" / "nowhere.jpg").unlink()
    (pets / "cats" / "itself.jpg").unlink()
    (pets / "cats" / "nowhere.jpg").write_bytes(encode_jpeg(50))
    train, test = (load(pets, split, tmp_path) for split in ("train", "test"))
    assert len(train.images) + len(test.images) == 22 and not train.skipped


def test_a_read_error_is_not_remembered(pets, tmp_path, monkeypatch):
    def gone(path, most):
        if path.name.startswith("3"):
            raise OSError(5, "Input/output error")
        return read(path, most)

    read = tree.opened
    monkeypatch.setattr(tree, "opened", gone)
    assert load(pets, "train", tmp_path).skipped[0][1] == "Input/output error"
    monkeypatch.setattr(tree, "opened", read)
    assert load(pets, "train", tmp_path).skipped == []


def test_pipes_and_devices_among_the_pictures_are_skipped_and_the_rest_is_decoded_once(pets, tmp_path, capsys):
    os.mkfifo(pets / "cats" / "pipe.jpg")
    (pets / "cats" / "endless.jpg").symlink_to("/dev/zero")
    (pets / "cats" / "nowhere.jpg").symlink_to("nothing.jpg")
    for _ in range(2):
        skipped = dict(load(pets, "train", tmp_path).skipped)
        assert skipped["cats/pipe.jpg"] == skipped["cats/endless.jpg"] == "it is not a regular file"
        assert "cats/nowhere.jpg" in skipped and len(skipped) == 3
    assert capsys.readouterr().out.count("Decoding") == 1
    (pets / "cats" / "pipe.jpg").unlink()
    assert len(load(pets, "train", tmp_path).skipped) == 2


def test_a_link_to_what_a_folder_lies_in_is_not_followed(pets, tmp_path, monkeypatch, fails):
    (pets / "cats" / "machine").symlink_to("/")
    (pets / "above").symlink_to(tmp_path)
    (tmp_path / "other.jpg").write_bytes(encode_jpeg(1))
    assert sum(len(load(pets, split, tmp_path).images) for split in ("train", "test")) == 20
    monkeypatch.setattr(tree, "MOST_FOLDERS", 3)
    assert "more than 3 folders" in fails("train", "--dataset", f"folder:{pets}", "--outdir", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="paths have at most 1,024 bytes there")
def test_very_deep_folders(tmp_path):
    deep = tmp_path / "pictures"
    deep.mkdir()
    (deep / "1.jpg").write_bytes(encode_jpeg(1))
    here = os.getcwd()
    try:
        os.chdir(deep)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    (deep / "d" / "2.jpg").write_bytes(encode_jpeg(2))
    train = load(deep, "train", tmp_path)
    (deep / "d" / "2.jpg").unlink()
    for depth in range(1200, 0, -1):  # deeper than pytest can clear
        os.rmdir(str(deep) + "/d" * depth)
    assert len(train.images) == 1


def test_another_folder_of_the_same_name_replaces_no_run(run, fails, pets, tmp_path):
    flags = "--image_size 16 --max_filters 8 --epochs 1 --data_dir".split()
    flags += [tmp_path / "data", "--outdir", tmp_path / "out"]
    other = tmp_path / "other" / pets.name
    other.parent.mkdir()
    shutil.copytree(pets, other)
    assert run("train", *flags, "--dataset", f"folder:{pets}")[0] == 0
    assert "another --dataset" in fails("train", *flags, "--dataset", f"folder:{other}")
    line = fails("train", *flags, "--dataset", f"folder:{other}", "--resume")
    assert "give the same" in line
    (pets / "cats" / "1 x.jpg").unlink()
    line = fails("train", *flags, "--dataset", f"folder:{pets}/", "--resume", "--epochs", 2)
    assert "the data has changed: 18 training" in line


def test_is_decoded_once(pets, tmp_path, monkeypatch, capsys):
    first = load(pets, "train", tmp_path)
    assert "Decoding 19 images once" in capsys.readouterr().out
    assert len(load(pets, "test", tmp_path).images) == 1
    assert "Decoding 1 image once" in capsys.readouterr().out

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(cache, "fill", never)
    again = load(pets, "train", tmp_path)
    np.testing.assert_array_equal(first.images[:], again.images[:])
    np.testing.assert_array_equal(first.labels, again.labels)
    assert capsys.readouterr().out == ""
    os.utime(pets / "cats" / "3 x.jpg", (1, 1))  # changed
    with pytest.raises(AssertionError):
        load(pets, "train", tmp_path)


def test_an_array_on_disk_is_indexed_like_one_in_memory(pets, tmp_path):
    images = load(pets, "train", tmp_path).images
    (path,) = (tmp_path / "data" / "cache").rglob("*.npy")
    plain = np.load(path)  # anybody can read the file
    assert len(images) == 19 and images.shape == plain.shape
    for chosen in (slice(None), slice(3, 9), np.array([5, 2, 2, 18]), slice(16, 40)):
        np.testing.assert_array_equal(images[chosen], plain[chosen])
        assert type(images[chosen]) is np.ndarray


@pytest.mark.parametrize(
    "damage",
    [
        *("cut", "empty", "text", "no json", "wrong json", "json is a list", "gone", "smaller", "a number", "deep"),
        *({"labels": None}, {"labels": [0] * 18 + [2]}, {"labels": [0] * 18 + [-1]}, {"labels": ["0"] * 19}),
        *({"labels": [10**30] * 19}, {"labels": [[0]] * 19}, {"skipped": [1]}, {"skipped": {}}, {"count": "19"}),
        *({"total": 1e400}, {"total": None}, {"checksum": []}),
    ],
    ids=str,
)
def test_a_damaged_cache_is_rebuilt(pets, tmp_path, damage):
    whole = load(pets, "train", tmp_path).images[:]
    (path,) = (tmp_path / "data" / "cache").rglob("*.npy")
    json_path = path.with_suffix(".json")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage in ("empty", "text"):
        path.write_bytes(b"" if damage == "empty" else b"no array")
    elif damage == "gone":
        path.unlink()
    elif damage in ("smaller", "a number"):
        np.save(path, np.zeros((19, 8, 8, 3) if damage == "smaller" else (), np.uint8))
    elif isinstance(damage, dict):
        json_path.write_text(json.dumps(json.loads(json_path.read_text()) | damage))
    else:
        texts = {"no json": "{", "wrong json": "{}", "json is a list": "[]", "deep": '{"a": ' + "[" * 100_000}
        json_path.write_text(texts[damage])
    np.testing.assert_array_equal(load(pets, "train", tmp_path).images[:], whole)


TINY = "--image_size 16 --max_filters 8 --latent_dims 2 --epochs 1 --cache_dir cache --outdir out".split()


def test_a_folder_of_pictures_is_all_that_train_needs(run, fails, pets, tmp_path, monkeypatch):
    monkeypatch.chdir(pets.parent)
    for name in (f"{pets.name}/", pets.name, str(pets)):
        status, out, err = run("train", name, *TINY, "--overwrite")
        assert (status, err) == (0, "") and "Data set: folder:" in out and "19 training and 1 test image" in out
    assert (tmp_path / "out" / "vae_folder-Meine_Tiere_ä_filters_0008_dims_0002.npz").exists()
    assert run("train", pets.name, *TINY, "--resume", "--epochs", 2)[0] == 0
    assert "is a folder, and --dataset names another" in fails("train", pets.name, "--dataset", "synthetic", *TINY)
    (tmp_path / "empty").mkdir()
    assert "empty is a folder without pictures" in fails("train", "empty", *TINY)
    status, out, _ = run("train", "first", "--dataset", "synthetic", "--limit", 20, *TINY)
    assert status == 0 and (tmp_path / "out" / "first").is_dir()  # any other word names the run
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "a.png").write_bytes(encode_jpeg(1))
    assert run("train", "first", "--dataset", "synthetic", "--limit", 20, *TINY)[0] == 0  # and still does


def test_what_is_not_read_is_counted_by_kind_with_what_to_do(run, fails, pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tree, "ENDINGS", tree.ENDINGS - {".heic"})
    monkeypatch.setattr(tree, "REMEDIES", {"HEIC": "pip install pillow-heif"})
    for name in ("1.MOV", "2.mov", "a.heic", "b.HEIC", "c.heic", "notes", ".hidden.mov"):
        (pets / name).write_bytes(b"?")
    (pets / "dogs" / "broken.jpg").write_bytes(encode_jpeg(9)[:-100])
    out = run("train", pets, *TINY)[1]
    line = "Left out: 3 HEIC (pip install pillow-heif), 2 MOV, 1 TXT, 1 without an ending"
    assert re.search(rf"^{re.escape(line)}(, 1 damaged \(dogs/broken.jpg: .*\))?$", out, re.M), out
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "IMG_1.HEIC").write_bytes(b"?")
    assert "left out: 1 HEIC (pip install pillow-heif)" in fails("train", "phone", *TINY)


def zipped(folder, file, prefix=""):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + str(path.relative_to(folder)))
    return file


def test_a_zip_file_is_as_good_as_the_folder_in_it(run, pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (pets / "dogs" / "broken.jpg").write_bytes(encode_jpeg(9)[:-100])
    plain = load(pets, "train", tmp_path)
    for prefix in ("", "Meine Tiere ä/"):  # the one folder that contains all is none of their classes
        archive = zipped(pets, tmp_path / f"Tiere {len(prefix)}.ZIP", prefix)
        with zipfile.ZipFile(archive, "a") as more:  # of macOS
            more.writestr(f"__MACOSX/{prefix}cats/._0 x.jpg", b"?")
            more.writestr(f"{prefix}.DS_Store", b"?")
        split = load(archive, "train", tmp_path)
        assert (split.names, split.class_names, split.left_out) == (plain.names, plain.class_names, plain.left_out)
        np.testing.assert_array_equal(split.images[:], plain.images[:])
        np.testing.assert_array_equal(split.labels, plain.labels)
    assert run("train", archive, *TINY, "--outdir", tmp_path / "out")[0] == 0
    (model,) = (tmp_path / "out").glob("*.npz")
    flags = ["--model", model, "--outfile", tmp_path / "codes.npz"]
    assert "20 latent vectors" in run("encode", archive, *flags)[1]  # and finds its data for other commands
    assert run("reconstruct", "--model", model, "--rec_testdata", "--outdir", tmp_path / "rec")[0] == 0


def test_zip_files_that_cannot_be_used(fails, pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [*TINY, "--outdir", tmp_path / "out"]
    (tmp_path / "a.zip").write_bytes(b"no archive")
    assert "a.zip is damaged: File is not a zip file" in fails("train", tmp_path / "a.zip", *flags)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("words.txt", "no picture")
    assert "b.zip is a zip file without pictures" in fails("train", tmp_path / "b.zip", *flags)
    assert "left out: 1 TXT" in fails("train", "--dataset", f"folder:{tmp_path / 'b.zip'}", *flags)
    archive = zipped(pets, tmp_path / "c.zip")
    data = bytearray(archive.read_bytes())
    start = data.index(b"dogs/") + 200
    data[start : start + 50] = bytes(50)
    archive.write_bytes(data)
    assert len(load(archive, "train", tmp_path).skipped) == 1
    os.mkfifo(tmp_path / "e.zip")
    for name in ("gone.zip", "e.zip"):
        assert f"there is no zip file {name}" in fails("train", name, *flags)
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as file:
        file.writestr("a.png", b"?")
        file.writestr("b.png", b"?")
    (tmp_path / "f.zip").write_bytes((tmp_path / "f.zip").read_bytes().replace(b"\x14\0\0\0", b"\x14\0\1\0"))
    assert "first error: it is encrypted" in fails("train", "f.zip", *flags)
    (tmp_path / "d.txt").write_text("?")
    assert "is a file without pictures" in fails("train", tmp_path / "d.txt", *flags)


def test_pictures_that_are_not_square_are_remembered_with_the_model(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "flags"
    folder.mkdir()
    for i in range(12):
        pixels = np.full((8, 24, 3), 20 * i, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    crop, pad, again = (load(folder, "train", tmp_path, fit=fit) for fit in ("crop", "pad", "crop"))
    assert crop.oblong == pad.oblong == again.oblong == len(crop.images)
    np.testing.assert_array_equal(crop.images[:], again.images[:])  # each has its own cache
    assert (pad.images[:][:, 0] == 255).all() and (crop.images[:][:, 0] < 255).all()
    assert run("train", folder, *TINY, "--fit", "pad", "--outdir", tmp_path / "out")[0] == 0
    (model,) = (tmp_path / "out").glob("*.npz")
    kept = checkpoint.load(model)
    given = load_pictures(kept, [str(folder / "3.png")])
    assert kept.model.config.fit == "pad" and (given.images[0, 0] == 255).all()


def test_pictures_all_alike_and_a_single_one_to_learn_from(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for count in (2, 12):
        folder = tmp_path / f"{count} alike"
        folder.mkdir()
        for i in range(count):
            Image.new("RGB", (16, 16), (90, 120, 30)).save(folder / f"{i}.png")
        status, out, err = run("train", folder, *TINY, "--outdir", tmp_path / folder.name)
        assert (status, err) == (0, "") and "few" in out
        (model,) = (tmp_path / folder.name).glob("*.npz")
        assert run("generate", "--model", model, "--outfile", tmp_path / f"{count}.png")[0] == 0


def test_a_folder_that_changes_while_it_is_read(pets, tmp_path, monkeypatch):
    """What vanishes is left out and looked for again; what comes later is there the next time."""
    found = tree.listing(pets)

    def changed(tree):
        (pets / "cats" / "3 x.jpg").unlink(missing_ok=True)
        (pets / "cats" / "new.jpg").write_bytes(encode_jpeg(99))
        return found

    monkeypatch.setattr(folder, "listing", changed)
    splits = [load(pets, split, tmp_path) for split in ("train", "test")]
    skipped = [name for split in splits for name, _ in split.skipped]
    assert skipped == ["cats/3 x.jpg"] and sum(len(split.images) for split in splits) == 19
    monkeypatch.undo()
    splits = [load(pets, split, tmp_path) for split in ("train", "test")]
    assert [split.skipped for split in splits] == [[], []] and sum(len(split.images) for split in splits) == 20


def test_no_right_to_read(fails, pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listdir = os.listdir

    def forbidden(path):
        if os.path.samefile(path, pets / "dogs"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(tree.os, "listdir", forbidden)
    split = load(pets, "train", tmp_path)
    assert ("dogs", "Permission denied") in [tuple(one) for one in split.skipped]
    monkeypatch.setattr(tree.os, "listdir", lambda path: forbidden(pets / "dogs"))
    line = fails("train", "--dataset", f"folder:{pets}", *TINY, "--outdir", tmp_path / "out")
    assert f"cannot read {pets}: Permission denied — check its permissions" in line


def test_photos_of_iphones_are_read_and_turned():
    heif = pytest.importorskip("pillow_heif")
    assert ".heic" in tree.ENDINGS and not tree.REMEDIES
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: white on top
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "HEIF", quality=100, exif=exif.tobytes())
    found = decoding.decode(file, decoding.Format(32, 1)).pixels[:, :, 0]
    assert heif.__version__ and found[:14].min() > 200 and found[18:].max() < 55


def test_broken_pictures_are_skipped_counted_and_named(run, pets, tmp_path):
    for i in range(40):  # enough for both splits
        (pets / "cats" / f"more {i}.jpg").write_bytes(encode_jpeg(60))
    (pets / "cats" / "broken.jpg").write_bytes(encode_jpeg(9)[:-100])
    (pets / "cats" / "empty.png").touch()
    (pets / "dogs" / "text.gif").write_text("no picture")
    flags = "--image_size 16 --max_filters 8 --epochs 1 --dataset".split()
    flags += [f"folder:{pets}", "--data_dir", tmp_path / "data", "--outdir", tmp_path / "out"]
    status, out, err = run("train", *flags)
    assert (status, err) == (0, "") and re.search(r"^Left out: .* damaged \(", out, re.M)
    name = "vae_folder-Meine_Tiere_ä_filters_0008_dims_0008"
    log = (tmp_path / "out" / name / "log.jsonl").read_text().splitlines()
    skipped = sum(json.loads(log[0])["skipped"].values(), [])
    assert sorted(file for file, _ in skipped) == ["cats/broken.jpg", "cats/empty.png", "dogs/text.gif"]
    assert json.loads(log[1])["epoch"] == 1
    status, out, err = run("train", *flags, "--epochs", 2, "--resume")
    assert (status, err) == (0, "") and "Resuming after epoch 1" in out

    model = tmp_path / "out" / f"{name}.npz"
    status, *_ = run("reconstruct", "--model", model, "--data_dir", tmp_path / "data", "--outdir", tmp_path / "rec")
    train = load(pets, "train", tmp_path)
    assert status == 0 and len(train.images) + len(train.skipped) == train.total
    pairs = list((tmp_path / "rec" / "folder-Meine_Tiere_ä_train" / "0008_latent_dims").glob("img*.png"))
    assert len(pairs) == len(train.images) == len(train.labels)


def test_what_libtiff_prints_about_broken_pictures_is_not_seen(pets, tmp_path, capfd):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)).convert("1").save(
        buffer, "TIFF", compression="group4"
    )
    data = bytearray(buffer.getvalue())
    for at in range(8, 300, 7):
        data[at] ^= 255
        (pets / "cats" / f"{at}.tif").write_bytes(data)
        data[at] ^= 255
    load(pets, "train", tmp_path)
    assert capfd.readouterr().err == ""
    datasets.load_files([str(pets)], 16, 3)
    assert capfd.readouterr().err == ""


def test_folders_without_classes_and_pictures_beside_classes(tmp_path):
    for name in ("plain/1.png", "plain/2.png", "mixed/a/1.png", "mixed/2.png", "mixed/b/c/3.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 7).save(path)
    plain = load(tmp_path / "plain", "train", tmp_path)
    assert plain.labels is None and plain.class_names is None
    assert load(tmp_path / "mixed", "train", tmp_path).class_names == ("", "a", "b")


def test_unusable_folders_are_rejected(fails, tmp_path):
    def line(path):
        flags = ["--data_dir", tmp_path / "data", "--outdir", tmp_path / "out"]
        return fails("train", "--dataset", f"folder:{path}", *flags)

    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "1.jpg").write_bytes(encode_jpeg(1))
    assert "is neither a folder nor a zip file" in line(tmp_path / "file")
    assert "does not exist" in line(tmp_path / "nothing")
    assert "contains 0 images, training and testing need at least two" in line(tmp_path / "empty")
    assert "contains 1 image, training and testing need at least two" in line(tmp_path / "one")
    assert "did you mean folder:PATH?" in line("")
    (tmp_path / "one" / "2.jpg").touch()
    (tmp_path / "one" / "1.jpg").write_text("broken too")
    assert f"none of the images in {tmp_path / 'one'} can be read (first error: " in line(tmp_path / "one")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.npy")) and not list(tmp_path.rglob("*.part"))


def test_full_disk_while_caching_leaves_nothing(pets, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="need 0 MiB .* make room"):
        load(pets, "train", tmp_path)
    monkeypatch.undo()
    files_size = 19 * 16 * 16 * 3
    with limit_file_size(files_size // 2), pytest.raises(UserError, match="cannot write .* make room"):
        load(pets, "train", tmp_path)
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []
    assert len(load(pets, "train", tmp_path).images) == 19


def test_interrupted_caching_leaves_nothing(pets, tmp_path, monkeypatch):
    count = iter(range(100))

    def pressed(*_):
        if next(count) == 10:
            raise KeyboardInterrupt
        return decoding.Picture(np.zeros((16, 16, 3), np.uint8), True)

    monkeypatch.setattr(cache, "decode", pressed)
    with pytest.raises(KeyboardInterrupt):
        load(pets, "train", tmp_path)
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_what_a_killed_process_left_is_cleared_and_the_cache_can_be_elsewhere(pets, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    load(pets, "train", tmp_path, cache_dir=elsewhere)
    (path,) = elsewhere.rglob("*.npy")
    path.unlink()
    left = path.with_name(f"{writing.PART}0123456789abcdef.part")
    left.write_bytes(b"half")
    writing.sweep.cache_clear()  # as in another process
    load(pets, "train", tmp_path, cache_dir=elsewhere)
    assert not left.exists() and path.exists() and not (tmp_path / "data").exists()


# CelebA


@pytest.mark.parametrize("zipped", [True, False])
def test_celeb_a_from_the_archive_and_from_a_folder(tmp_path, zipped, capsys):
    make_celeb_a(tmp_path, zipped)
    for split, shades in (("train", range(0, 140, 20)), ("test", (160, 180))):
        images, labels, total, skipped, *_ = datasets.load("celeb-a", split, tmp_path / "data", image_size=16)
        assert images[:][:, 8, 8, 0].tolist() == list(shades) and labels is None
        assert total == len(shades) and skipped == []
    assert datasets.load("celeb-a", "test", tmp_path / "data", image_size=16).names == ["000009.jpg", "000010.jpg"]
    assert ("img_align_celeba.zip is not the published file" in capsys.readouterr().out) == zipped


def test_names_of_a_warm_cache_take_no_look_at_the_pictures(tmp_path, monkeypatch, capsys):
    """The archive has 1.4 GB, and is hashed when its pictures are decoded."""
    make_celeb_a(tmp_path)
    for decoded in (True, False):
        test = datasets.load("celeb-a", "test", tmp_path / "data", image_size=16)
        assert test.names == ["000009.jpg", "000010.jpg"]
        assert ("is not the published file" in capsys.readouterr().out) == decoded
        for name in ("checksum_of", "unpacked"):
            monkeypatch.setattr(celeb_a, name, lambda *_: pytest.fail("the archive is read"))


def test_celeb_a_with_a_pipe_among_its_images(tmp_path):
    pipe = make_celeb_a(tmp_path, zipped=False) / "img_align_celeba" / "000009.jpg"
    pipe.unlink()
    os.mkfifo(pipe)
    test = datasets.load("celeb-a", "test", tmp_path / "data", image_size=16)
    assert len(test.images) == 1 and list(test.skipped[0]) == ["000009.jpg", "it is not a regular file"]


def test_celeb_a_says_exactly_what_goes_where(fails, tmp_path):
    line = fails("train", "--dataset", "celeb-a", "--data_dir", tmp_path, "--outdir", tmp_path / "out")
    for word in (str(tmp_path / "celeb-a"), "img_align_celeba.zip and list_eval_partition.txt missing", "as they are"):
        assert word in line
    folder = make_celeb_a(tmp_path)
    (folder / "list_eval_partition.txt").unlink()
    with pytest.raises(UserError, match="celeb-a: list_eval_partition.txt missing"):
        datasets.load("celeb-a", "test", tmp_path / "data")


@pytest.mark.parametrize(
    "partition",
    ["", "nonsense", "000001.jpg 3\n", "../../etc/passwd 0\n", "../x.jpg 2\n", "000099.jpg 2\n", "\0", "\xff"],
)
def test_celeb_a_with_a_wrong_partition(tmp_path, partition):
    make_celeb_a(tmp_path, partition=partition)
    with pytest.raises(UserError, match="damaged in line 1|contains none of|lists no images of the test split"):
        datasets.load("celeb-a", "test", tmp_path / "data")


def test_celeb_a_with_a_broken_or_hostile_archive(tmp_path):
    evil = [("../../evil.jpg", b"evil"), (str(tmp_path / "evil.jpg"), b"evil"), ("img_align_celeba/../../x.jpg", b"")]
    path = make_celeb_a(tmp_path, extra=evil) / "img_align_celeba.zip"
    before = {file.name for file in tmp_path.rglob("*")}
    assert len(datasets.load("celeb-a", "test", tmp_path / "data", cache_dir=tmp_path / "cache").images) == 2
    new = {file.name for file in tmp_path.rglob("*") if file.is_file()} - before
    assert new == {"test_64x64x3.npy", "test_64x64x3.json"}
    whole = path.read_bytes()
    for data in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(UserError, match="is damaged"):
            datasets.load("celeb-a", "test", tmp_path / "data")
    broken = bytearray(whole)
    at = broken.index(b"img_align_celeba/000009.jpg") + 200
    broken[at : at + 50] = bytes(50)  # the checksum of one picture is wrong
    path.write_bytes(broken)
    test = datasets.load("celeb-a", "test", tmp_path / "data")
    assert len(test.images) == 1 and test.skipped[0][0] == "000009.jpg"
