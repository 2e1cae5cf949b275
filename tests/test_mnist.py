"""Reading IDX files, refusing broken ones, downloading past mirrors that fail."""

import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest
from sample_files import encode_idx

import mnist
from toolkit import datasets
from toolkit.errors import UserError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load(folder, split="train", limit=None):
    return datasets.load("mnist", split, folder.parent, limit)


@pytest.mark.parametrize("zipped", [False, True])
def test_reads_both_splits(mnist_folder, zipped):
    raw = {name: (mnist_folder / name).read_bytes() for name in NAMES}
    if zipped:
        for name in NAMES:
            (mnist_folder / name).unlink()
            (mnist_folder / f"{name}.gz").write_bytes(gzip.compress(raw[name]))
    for split, prefix, count in (("train", "train", 30), ("test", "t10k", 20)):
        images, labels, *_ = load(mnist_folder, split)
        assert images.shape == (count, 28, 28, 1) and images.dtype == np.uint8
        assert images.tobytes() == raw[f"{prefix}-images-idx3-ubyte"][16:]
        assert labels.tobytes() == raw[f"{prefix}-labels-idx1-ubyte"][8:]


def test_limit_takes_the_first(mnist_folder):
    np.testing.assert_array_equal(load(mnist_folder, limit=7).images, load(mnist_folder).images[:7])


IMAGES = np.zeros((30, 28, 28), np.uint8)
DAMAGE = {
    "empty": b"",
    "only a header": encode_idx(IMAGES)[:16],
    "wrong magic": b"\x00\x00\x09\x03" + encode_idx(IMAGES)[4:],
    "labels instead of images": encode_idx(np.zeros(30, np.uint8)),
    "too short": encode_idx(IMAGES)[:-1],
    "too long": encode_idx(IMAGES) + b"\x00",
    "wrong count": bytes([0, 0, 8, 3]) + struct.pack(">3I", 31, 28, 28) + IMAGES.tobytes(),
    "huge count": bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1) + IMAGES.tobytes(),
    "other size": encode_idx(np.zeros((30, 14, 56), np.uint8)),
    "no images": encode_idx(IMAGES[:0]),
    "fewer than labels": encode_idx(IMAGES[:29]),
    "far more than it says": encode_idx(IMAGES) + bytes(2**20),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_images(fails, mnist_folder, tmp_path, kind, zipped):
    path = mnist_folder / "train-images-idx3-ubyte"
    path.unlink()
    if zipped:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(DAMAGE[kind]))
    else:
        path.write_bytes(DAMAGE[kind])
    fails("train", "--data_dir", mnist_folder.parent, "--outdir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_not_unpacked(mnist_folder):
    """A gzip file of a few kilobytes that would unpack to 64 MiB."""
    path = mnist_folder / "train-images-idx3-ubyte"
    path.unlink()
    with gzip.open(f"{path}.gz", "wb", compresslevel=1) as file:
        file.write(encode_idx(IMAGES))
        file.write(bytes(2**26))
    tracemalloc.start()
    with pytest.raises(UserError, match="it contains more"):
        load(mnist_folder)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_header_of_a_billion_values(mnist_folder, small_memory):
    path = mnist_folder / "train-images-idx3-ubyte"
    path.unlink()
    with gzip.open(f"{path}.gz", "wb", compresslevel=1) as file:
        file.write(struct.pack(">IIII", 0x803, 1_275_510, 28, 28) + bytes(2**24))
    with small_memory(), pytest.raises(UserError, match="1275510 items"):
        load(mnist_folder)


def test_impossible_labels(mnist_folder):
    (mnist_folder / "train-labels-idx1-ubyte").write_bytes(encode_idx(np.full(30, 10, np.uint8)))
    with pytest.raises(UserError, match="a label 10"):
        load(mnist_folder)


def test_fashion_mnist_has_the_same_files_in_a_folder_of_its_own(run, mnist_folder, tmp_path):
    mnist_folder.rename(mnist_folder.parent / "fashion-mnist")
    images, labels, *_ = datasets.load("fashion-mnist", "test", mnist_folder.parent)
    assert images.shape == (20, 28, 28, 1) and len(labels) == 20
    flags = "--dataset fashion-mnist --image_size 16 --max_filters 8 --epochs 1 --data_dir".split()
    status, out, _ = run("train", *flags, mnist_folder.parent, "--outdir", tmp_path / "out")
    assert status == 0 and (tmp_path / "out" / "vae_fashion-mnist_filters_0008_dims_0008.npz").exists()


def test_no_images_and_no_labels(mnist_folder):
    (mnist_folder / "train-images-idx3-ubyte").write_bytes(encode_idx(IMAGES[:0]))
    (mnist_folder / "train-labels-idx1-ubyte").write_bytes(encode_idx(np.zeros(0, np.uint8)))
    with pytest.raises(UserError, match="no train images"):
        load(mnist_folder)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no gzip"])
def test_damaged_gzip(mnist_folder, damage):
    path = mnist_folder / "train-images-idx3-ubyte"
    data = bytearray(gzip.compress(path.read_bytes()))
    path.unlink()
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 2] ^= 16
    else:
        data = b"plain text"
    path.with_name(f"{path.name}.gz").write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        load(mnist_folder)


@pytest.fixture
def mirrors(tmp_path, monkeypatch, mnist_folder):
    """Three mirrors: one that is not there, one with a wrong file, one that is right; no files in place."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.mkdir(), wrong.mkdir()
    for name in NAMES:
        data = gzip.compress((mnist_folder / name).read_bytes())
        (right / f"{name}.gz").write_bytes(data)
        (wrong / f"{name}.gz").write_bytes(data[:-1])
        monkeypatch.setitem(mnist.MD5, ("mnist", name), hashlib.md5(data).hexdigest())
        (mnist_folder / name).unlink()
    addresses = tuple(f"file://{folder}/" for folder in (tmp_path / "none", wrong, right))
    monkeypatch.setitem(mnist.MIRRORS, "mnist", addresses)
    return mnist_folder


def test_downloads_from_the_first_mirror_that_is_right(mirrors):
    assert len(load(mirrors, "test").images) == 20
    assert sorted(path.name for path in mirrors.iterdir()) == [f"{name}.gz" for name in sorted(NAMES[2:])]


def test_without_network_and_files(mirrors, monkeypatch, fails, tmp_path):
    monkeypatch.setitem(mnist.MIRRORS, "mnist", mnist.MIRRORS["mnist"][:2])
    line = fails("train", "--data_dir", mirrors.parent, "--outdir", tmp_path / "out")
    assert str(mirrors) in line and "No such file" in line and "--dataset synthetic" in line
    assert list(mirrors.iterdir()) == []


def test_real_mnist(real_data):
    for split, count in (("train", 60_000), ("test", 10_000)):
        images, labels, *_ = datasets.load("mnist", split, real_data("mnist"))
        assert images.shape == (count, 28, 28, 1)
        assert sorted(set(labels.tolist())) == list(range(10))
