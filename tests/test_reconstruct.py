"""Reconstructions: every pair under its own number, the figures, and data that does not fit."""

import re

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from sample_files import read_pixels
from sample_models import make_model, save

from toolkit import datasets
from toolkit.model.inputs import to_floats


@pytest.mark.parametrize("split, flags", [("train", []), ("test", ["--rec_testdata"])])
def test_every_pair_has_its_number(run, model, model_file, tmp_path, split, flags):
    outdir = tmp_path / "out here"
    status, out, err = run(
        "reconstruct", "--model", model_file, *flags, "--limit", 300, "--scale", 1, "--outdir", outdir
    )
    assert (status, err) == (0, "")
    folder = outdir / f"synthetic_{split}" / "0003_latent_dims"
    names = [f"img_{i:08d}.png" for i in range(300)]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "overview.png", "sources.csv"]

    stack = datasets.load("synthetic", split, None, 300).images
    x = to_floats(mx.array(stack), model.config)
    x, y = np.array(x), np.array(model.reconstruct(x))
    for i in (0, 1, 249, 250, 299):
        pair = read_pixels(folder / names[i]).astype(int)
        assert np.abs(pair[:, :16] - np.rint(x[i, :, :, 0] * 255)).max() <= 1
        assert np.abs(pair[:, 16:] - np.rint(y[i, :, :, 0] * 255)).max() <= 1

    error = np.square(x.astype(np.float64) - y).mean()
    assert float(re.search(r"Mean squared error ([\d.]+)", out)[1]) == pytest.approx(error, abs=2e-6)
    assert f"PSNR {10 * np.log10(1 / error):.2f} dB ({split} split)" in out
    np.testing.assert_array_equal(read_pixels(folder / "overview.png")[:16, :32], read_pixels(folder / names[0]))


def test_pictures_of_ones_own_keep_their_names(run, fails, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my cat.jpg", "my cat.png", "overview.png", "more/a b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((30, 20, 3), 90, np.uint8)).save(name)
    images = ["my cat.jpg", "my cat.png", "overview.png", "more"]
    status, out, err = run("reconstruct", "--model", model_file, "--images", *images, "--outdir", "out")
    assert (status, err) == (0, "") and "4 pairs: out/pictures/0003_latent_dims/my cat.png" in out
    assert "PSNR" in out and "dB (4 pictures)" in out
    folder = tmp_path / "out" / "pictures" / "0003_latent_dims"
    pairs = ["my cat.png", "my cat-2.png", "overview-2.png", "a b.png"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*pairs, "overview.png", "sources.csv"])
    lines = (folder / "sources.csv").read_text().splitlines()
    assert lines == ["file,source", *(f"{a},{b}" for a, b in zip(pairs, [*images[:3], "a b.png"], strict=True))]
    assert np.abs(read_pixels(folder / "my cat.png")[:, :16].astype(int) - 90).max() <= 1


def test_the_sources_of_a_split_are_in_a_list(run, model_file, tmp_path):
    for i in range(12):
        (tmp_path / "pets" / "cats").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20, 3), 10 * i, np.uint8)).save(tmp_path / "pets" / "cats" / f"{i}.png")
    (tmp_path / "pets" / "cats" / "5.png").write_text("broken")
    data = ["--dataset", f"folder:{tmp_path / 'pets'}", "--data_dir", tmp_path / "data"]
    for _ in range(2):  # decoded, and read from the cache
        assert run("reconstruct", "--model", model_file, *data, "--outdir", tmp_path / "out")[0] == 0
        folder = tmp_path / "out" / "folder-pets_train" / "0003_latent_dims"
        lines = [line.split(",") for line in (folder / "sources.csv").read_text().splitlines()[1:]]
        assert len(lines) == len(list(folder.glob("img_*.png"))) and "cats/5.png" not in [line[1] for line in lines]
        for file, source in lines:
            shade = 10 * int(source.removeprefix("cats/").removesuffix(".png"))
            assert np.abs(read_pixels(folder / file)[:, :16].astype(int) - shade).max() <= 1


def test_another_data_set_than_the_model_was_trained_on(run, model_file, mnist_folder, tmp_path):
    flags = ["--dataset", "mnist", "--data_dir", mnist_folder.parent, "--rec_testdata", "--outdir", tmp_path]
    assert run("reconstruct", "--model", model_file, *flags)[0] == 0
    assert len(list((tmp_path / "mnist_test" / "0003_latent_dims").glob("img_*.png"))) == 20


def test_contradicting_flags_and_blocked_folders_are_rejected(fails, model_file, tmp_path):
    assert "has 3" in fails("reconstruct", "--model", model_file, "--latent_dims", 8)
    (tmp_path / "file").touch()
    fails("reconstruct", "--model", model_file, "--limit", 10, "--outdir", tmp_path / "file")


def test_a_coloured_model_sees_grey_images_too(run, tmp_path):
    save(tmp_path / "rgb.npz", make_model(channels=3), dataset="synthetic")
    assert run("reconstruct", "--model", tmp_path / "rgb.npz", "--limit", 2, "--outdir", tmp_path)[0] == 0
    pair = read_pixels(tmp_path / "synthetic_train" / "0003_latent_dims" / "img_00000000.png")
    assert pair.shape == (16, 32, 3) and (pair[:, :16, 0] == pair[:, :16, 2]).all()


def test_a_file_without_facts_means_mnist(run, mnist_folder, tmp_path):
    save(tmp_path / "bare.npz", make_model())
    flags = ["--data_dir", mnist_folder.parent, "--outdir", tmp_path / "out"]
    assert run("reconstruct", "--model", tmp_path / "bare.npz", *flags)[0] == 0
    assert (tmp_path / "out" / "mnist_train" / "0003_latent_dims" / "img_00000029.png").exists()


def test_one_pair_is_one_pair(run, model_file, tmp_path):
    _, out, _ = run("reconstruct", "--model", model_file, "--limit", 1, "--outdir", tmp_path)
    assert "1 pair: " in out and "…" not in out
