"""The table of data sets: names, almost right ones, names of files made from them; and broken files of all of them."""

import gzip
import os
import time
import tracemalloc

import numpy as np
import pytest
from conftest import idx
from test_cifar import make_files, members, pack
from test_decoding import flag, stored
from test_folder import celeb
from test_foreign import mutated

import datasets
from errors import UserError


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("syntetic", "synthetic"),
        ("cifar10", "cifar-10"),
        ("CIFAR-100", "cifar-100"),
        ("fashion_mnist", "fashion-mnist"),
        ("celeba", "celeb-a"),
        ("MNIST", "mnist"),
        ("folder", "folder:PATH"),
    ],
)
def test_almost_right_names_get_a_hint(fails, tmp_path, typed, meant):
    line = fails("train", "--dataset", typed, "--outdir", tmp_path)
    assert f"did you mean {meant}?" in line


def test_other_names(tmp_path):
    with pytest.raises(UserError, match="take one of mnist, fashion-mnist, cifar-10, cifar-100, celeb-a"):
        datasets.load("photos", "train", None)
    with pytest.raises(UserError, match="did you mean folder:"):
        datasets.load(str(tmp_path), "train", None)


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
    with pytest.raises(UserError, match="say folder:a"):
        datasets.full_name("Folder:a")


def test_broken_files_of_every_data_set(tmp_path):
    """Six hundred mutated files: each loads, is skipped, or ends in our error; none takes long or much memory."""
    random = np.random.default_rng(0)
    mnist_images = idx(random.integers(0, 256, (9, 28, 28), dtype=np.uint8))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(9, dtype=np.uint8)))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "whole.png").write_bytes(stored(flag()))
    archive = celeb(tmp_path).parent / "celeb-a" / "img_align_celeba.zip"
    (tmp_path / "data" / "cifar-10").mkdir()
    tar = pack(tmp_path / "data" / "cifar-10" / "cifar-10-binary.tar.gz", members("cifar-10", make_files("cifar-10")))
    pictures = [stored(flag(), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")]
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
    for i in range(600):
        path, files, (name, data_dir) = readers[i % len(readers)]
        path.write_bytes(mutated(files[i // len(readers) % len(files)], everything, random))
        tracemalloc.reset_peak()
        start = time.perf_counter()
        try:
            for split in ("test", "train") if name.startswith("folder") else ("test",):
                loaded += len(datasets.load(name, split, data_dir, image_size=8).images) > 0
        except UserError as error:
            assert " — " in str(error), i
        assert tracemalloc.get_traced_memory()[1] < 2**26, i
        assert time.perf_counter() - start < 5, i
        if name == "mnist":
            path.unlink()
    tracemalloc.stop()
    assert loaded > 100
