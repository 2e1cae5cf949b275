"""The table of data sets: names in every spelling and what is made from them; and broken files of all data sets."""

import gzip
import os
import tracemalloc

import numpy as np
import pytest
from sample_files import damage, draw_tricolour, encode_idx, encode_image, make_celeb_a, make_cifar_archive

from toolkit import datasets
from toolkit.errors import UserError
from toolkit.wording import public_name


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("cifar10", "cifar-10"),
        ("CIFAR-100", "cifar-100"),
        ("CIFAR_100", "cifar-100"),
        ("fashion_mnist", "fashion-mnist"),
        ("FashionMNIST", "fashion-mnist"),
        ("celeba", "celeb-a"),
        ("CelebA", "celeb-a"),
        ("MNIST", "mnist"),
        ("Synthetic", "synthetic"),
        *((name, name) for name in datasets.NAMES if ":" not in name),
    ],
)
def test_names_in_every_spelling(typed, meant):
    assert datasets.full_name(typed) == meant


def test_a_name_in_another_spelling_is_loaded_and_remembered_as_the_canonical_one(run, tmp_path):
    assert len(datasets.load("SYNTHETIC", "test", None, 3).images) == 3
    flags = "--image_size 16 --max_filters 8 --epochs 1 --limit 64 --dataset Synthetic".split()
    assert run("train", *flags, "--outdir", tmp_path)[0] == 0
    assert (tmp_path / "vae_synthetic_filters_0008_dims_0008.npz").exists()


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("syntetic", "synthetic"),
        ("cifar", "cifar-10"),
        ("mnits", "mnist"),
        ("mnist:", "mnist"),
        ("folder", "folder:PATH"),
        ("Folder:", "folder:PATH"),
    ],
)
def test_almost_right_names_get_a_hint(fails, tmp_path, typed, meant):
    line = fails("train", "--dataset", typed, "--outdir", tmp_path)
    assert f"did you mean {meant}?" in line


def test_other_names(tmp_path):
    with pytest.raises(UserError, match="choose one of mnist, fashion-mnist, cifar-10, cifar-100, celeb-a"):
        datasets.load("photos", "train", None)
    with pytest.raises(UserError, match="did you mean folder:"):
        datasets.load(str(tmp_path), "train", None)
    for name in ("", "-", "mnist:a", "a" * 5000, "a\0b"):
        with pytest.raises(UserError, match="there is no data set"):
            datasets.full_name(name)
    for path in ("a" * 5000, "a\0b"):
        with pytest.raises(UserError, match="does not exist"):
            datasets.load(f"folder:{path}", "train", tmp_path)


def test_every_row_is_complete():
    """What a new row must have: a spelling of its own, and counts and classes unless its files tell them."""
    assert len(datasets.ROWS) == len(datasets.TABLE)
    for row in datasets.TABLE:
        if row.name not in ("celeb-a", "folder:PATH"):
            assert set(row.counts) == {"train", "test"} and len(set(row.class_names)) == len(row.class_names) > 1


def test_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Meine Bücher!").mkdir()

    def name(typed):
        return datasets.file_name(datasets.full_name(typed))

    assert name("mnist") == "mnist"
    assert name("folder:a/Meine Bücher!/") == "folder-Meine_Bücher_"
    assert name("folder:Meine Bücher!/..") == f"folder-{tmp_path.name}"
    assert name("folder:/") == "folder-root"
    assert len(name("folder:" + 300 * "𠀀").encode()) < 80
    assert datasets.full_name("folder:a") == datasets.full_name("folder:./a/") == f"folder:{tmp_path / 'a'}"
    assert datasets.full_name("folder:~/a") == "folder:" + os.path.expanduser("~/a")
    assert datasets.full_name("Folder:a") == datasets.full_name("FOLDER:a") == f"folder:{tmp_path / 'a'}"
    assert datasets.full_name("folder:a:b") == f"folder:{tmp_path / 'a:b'}"


def test_public_names_hold_no_path():
    assert public_name("folder:/home/me/my pictures") == "folder:my pictures"
    assert public_name("folder:/home/me/a:b") == "folder:a:b"
    assert public_name("folder:/") == "folder:root"
    for name in ("mnist", "cifar-100", "celeb-a", "folder:my pictures"):
        assert public_name(name) == name
    assert public_name("folder:/x/" + os.fsdecode(b"a\xff")) == "folder:a?"  # a name that is not UTF-8


@pytest.mark.parametrize(
    "word, name",
    [
        ("cifar", "cifar-10"),
        ("cifar10", "cifar-10"),
        ("CIFAR_100", "cifar-100"),
        ("mnits", "mnist"),
        ("minst", "mnist"),
        ("MNIST", "mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("fashon-mnist", "fashion-mnist"),
        ("celeb", "celeb-a"),
        ("syntetic", "synthetic"),
        ("folder", "folder:PATH"),
        ("Folder:~/pets", "folder:~/pets"),
    ],
)
def test_words_that_resemble_a_data_set(word, name):
    assert datasets.resembles(word) == name


@pytest.mark.parametrize(
    "word", "mnist2 mnist-beta4 mnist_conditional cifar-10-wide cifar1000 beta4 run1 vae test older folders-2 -".split()
)
def test_words_that_are_fine_as_names_of_runs(word):
    assert datasets.resembles(word) is None


@pytest.mark.slow
def test_broken_files_of_every_data_set(tmp_path):
    """Mutated files: each loads, is skipped, or ends in our error; none takes much memory."""
    random = np.random.default_rng(0)
    mnist_images = encode_idx(random.integers(0, 256, (9, 28, 28), dtype=np.uint8))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(encode_idx(np.arange(9, dtype=np.uint8)))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "whole.png").write_bytes(encode_image(draw_tricolour()))
    archive = make_celeb_a(tmp_path).parent / "celeb-a" / "img_align_celeba.zip"
    tar = make_cifar_archive(tmp_path / "data")
    pictures = [encode_image(draw_tricolour(), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")]
    readers = [  # where a file lies, its bytes, the data set that it belongs to
        (tmp_path / "mnist" / "t10k-images-idx3-ubyte", [mnist_images], ("mnist", tmp_path)),
        (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz", [gzip.compress(mnist_images)], ("mnist", tmp_path)),
        (tar, [tar.read_bytes()], ("cifar-10", tmp_path / "data")),
        (archive, [archive.read_bytes()], ("celeb-a", tmp_path / "data")),
        (tmp_path / "pictures" / "broken.png", pictures, (f"folder:{tmp_path / 'pictures'}", tmp_path)),
    ]
    everything = [data for _, files, _ in readers for data in files]
    loaded = 0
    tracemalloc.start()
    for i in range(300):
        path, files, (name, data_dir) = readers[i % len(readers)]
        path.write_bytes(damage(files[i // len(readers) % len(files)], everything, random))
        tracemalloc.reset_peak()
        try:
            for split in ("test", "train") if name.startswith("folder") else ("test",):
                loaded += len(datasets.load(name, split, data_dir, image_size=8).images) > 0
        except UserError as error:
            assert " — " in str(error), i
        assert tracemalloc.get_traced_memory()[1] < 2**26, i
        if name == "mnist":
            path.unlink()
    tracemalloc.stop()
    assert loaded > 50
