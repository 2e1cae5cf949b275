"""The table of data sets: names, almost right ones, and names of files made from them."""

import pytest

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
    assert datasets.file_name("mnist") == "mnist"
    assert datasets.file_name("folder:a/Meine Bücher!/") == "folder-Meine_Bücher_"
    assert datasets.file_name("folder:Meine Bücher!/..") == f"folder-{tmp_path.name}"
    assert datasets.file_name("folder:/") == "folder-root"
