"""CIFAR: the binary files in a folder or in the published archive, with every byte in its place."""

import gzip
import hashlib
import os

import numpy as np
import pytest
from sample_files import CIFAR_FOLDERS, CIFAR_LABELS, make_cifar_archive, make_cifar_files

from toolkit import datasets
from toolkit.datasets import cifar
from toolkit.errors import UserError


def write_cifar(data_dir, name, files, inner=True):
    folder = data_dir / name / (CIFAR_FOLDERS[name] if inner else "")
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return folder


@pytest.fixture
def publish(monkeypatch):
    """Make the checksum of an archive the published one."""

    def call(path):
        monkeypatch.setitem(cifar.SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())

    return call


@pytest.mark.parametrize("place", ["inner", "folder", "archive"])
@pytest.mark.parametrize("name", CIFAR_LABELS)
def test_reads_both_splits_wherever_they_are(tmp_path, publish, name, place):
    files = make_cifar_files(name)
    if place == "archive":
        publish(make_cifar_archive(tmp_path, name, [("readme.html", b"hello")]))
    else:
        write_cifar(tmp_path, name, files, inner=place == "inner")
    label_bytes = len(CIFAR_LABELS[name]["test_batch.bin" if name == "cifar-10" else "test.bin"])
    for split in ("train", "test"):
        images, labels, *_ = datasets.load(name, split, tmp_path)
        raw = b"".join(data for file, data in files.items() if ("test" in file) == (split == "test"))
        records = np.frombuffer(raw, np.uint8).reshape(-1, label_bytes + 3072)
        assert images.shape == (len(records), 32, 32, 3) and images.dtype == np.uint8
        for i, y, x, channel in ((0, 0, 0, 0), (3, 5, 9, 1), (6, 31, 2, 2)):
            assert images[i, y, x, channel] == records[i, label_bytes + channel * 1024 + y * 32 + x]
        np.testing.assert_array_equal(labels, records[:, label_bytes - 1])  # of CIFAR_LABELS-100 the fine ones
    assert [path.name for path in (tmp_path / name).iterdir() if place == "archive"] in ([], [f"{name}-binary.tar.gz"])


def test_part_of_the_files_is_used_and_said(run, tmp_path):
    files = make_cifar_files("cifar-10")
    write_cifar(
        tmp_path, "cifar-10", {file: files[file] for file in ("data_batch_1.bin", "data_batch_3.bin", "test_batch.bin")}
    )
    flags = "--dataset cifar-10 --image_size 16 --max_filters 8 --epochs 1".split()
    flags += ["--data_dir", tmp_path]
    status, out, err = run("train", *flags, "--outdir", tmp_path / "out")
    assert (status, err) == (0, "")
    assert "cifar-10, 14 of 50,000 training and 7 of 10,000 test images" in out and "16×16, colour" in out
    name = "vae_cifar-10_filters_0008_dims_0008.npz"
    status, *_ = run("reconstruct", "--model", tmp_path / "out" / name, "--data_dir", tmp_path, "--outdir", tmp_path)
    assert status == 0 and len(list((tmp_path / "cifar-10_train" / "0008_latent_dims").glob("img*.png"))) == 14
    status, out, _ = run("train", *flags, "--outdir", tmp_path / "grey", "--channels", 1)
    assert status == 0 and "16×16, grey" in out


RECORD = bytes([3]) + bytes(3072)


@pytest.mark.parametrize(
    "data",
    [b"", RECORD[:-1], RECORD * 2 + b"\0", bytes([10]) + bytes(3072), RECORD + bytes([255]) + bytes(3072)],
    ids=["empty", "one byte short", "one byte long", "label 10", "label 255"],
)
def test_damaged_files(fails, tmp_path, data):
    write_cifar(tmp_path, "cifar-10", make_cifar_files("cifar-10") | {"data_batch_2.bin": data})
    line = fails("train", "--dataset", "cifar-10", "--data_dir", tmp_path, "--outdir", tmp_path / "out")
    assert "data_batch_2.bin" in line and not (tmp_path / "out").exists()


def test_an_archive_that_is_not_the_published_one_is_not_unpacked(tmp_path, small_memory):
    path = tmp_path / "data" / "cifar-10" / "cifar-10-binary.tar.gz"
    whole = make_cifar_archive(tmp_path / "data").read_bytes()
    for data in (b"", b"no archive", whole[: len(whole) // 2], whole, gzip.compress(bytes(2**26), 1)):
        path.write_bytes(data)
        with small_memory(), pytest.raises(UserError, match="is damaged: it is not the published archive — replace it"):
            datasets.load("cifar-10", "test", tmp_path / "data")
    os.truncate(path, 2**40)  # takes no room on the disk
    with pytest.raises(UserError, match="is damaged: it is larger than 256 MiB"):
        datasets.load("cifar-10", "test", tmp_path / "data")
    assert {file.name for file in tmp_path.rglob("*")} == {"data", "cifar-10", path.name}


def test_no_file_has_more_records_than_were_published(tmp_path, small_memory):
    write_cifar(tmp_path, "cifar-10", {"test_batch.bin": b""})
    os.truncate(tmp_path / "cifar-10" / CIFAR_FOLDERS["cifar-10"] / "test_batch.bin", 3073 * 10_001)
    with small_memory(), pytest.raises(UserError, match="is larger than 29.3 MiB"):
        datasets.load("cifar-10", "test", tmp_path)


def test_downloads_and_checks_the_archive(tmp_path, monkeypatch, publish):
    served = make_cifar_archive(tmp_path / "served")
    mirrors = (f"file://{tmp_path}/none/", f"file://{served.parent}/")
    monkeypatch.setitem(cifar.MIRRORS, "cifar-10", mirrors)
    with pytest.raises(UserError, match="wrong checksum"):
        datasets.load("cifar-10", "test", tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    publish(served)
    assert len(datasets.load("cifar-10", "test", tmp_path / "data").images) == 7
    monkeypatch.setitem(cifar.MIRRORS, "cifar-10", mirrors[:1])
    assert len(datasets.load("cifar-10", "train", tmp_path / "data").images) == 35  # from what was downloaded


def test_mirrors():
    """Each archive has a second source, and the throttled one is asked last."""
    for name in CIFAR_LABELS:
        first, *_, last = cifar.MIRRORS[name]
        assert last == cifar.TORONTO != first
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in cifar.MIRRORS[name])
        assert f"{name}-binary.tar.gz" in cifar.SHA256


def test_real_cifar_10(real_data):
    images, labels, *_ = datasets.load("cifar-10", "train", real_data("cifar-10"), 10_000)
    assert images.shape == (10_000, 32, 32, 3) and np.bincount(labels).min() > 900
    # Neighbouring pixels are alike, which they would not be with the planes or rows in another order.
    assert np.abs(np.diff(images[:1000].astype(int), axis=1)).mean() < 20
    assert np.abs(np.diff(images[:1000].astype(int), axis=2)).mean() < 20
