"""Samples as pictures: how many, where, and what the model's file says of itself."""

import hashlib
import shlex
import sys
import time
from importlib.metadata import version

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from sample_files import read_pixels
from sample_models import make_model, save

from toolkit.model import inference
from toolkit.pictures import images


@pytest.mark.parametrize("count, columns, rows", [(128, 12, 11), (1, 1, 1), (7, 4, 2), (64, 8, 8), (300, 12, 25)])
def test_any_number_of_samples_makes_a_sheet(run, model_file, tmp_path, count, columns, rows):
    out = tmp_path / "sheets" / "a.png"
    status, text, err = run("generate", "--model", model_file, "--nsamples", count, "--scale", 1, "--outfile", out)
    assert (status, err) == (0, "") and str(out) in text
    assert read_pixels(out).shape == (rows * 18 - 2, columns * 18 - 2)


def test_grid_size_is_the_number_in_a_row(run, model_file, tmp_path):
    flags = ["--checkpoint_path", model_file, "--num_samples", 10, "--scale", 1, "--grid_size", 4, "--output_path"]
    run("generate", *flags, tmp_path / "a.png")
    assert read_pixels(tmp_path / "a.png").shape == (3 * 18 - 2, 4 * 18 - 2)


def test_the_seed_decides(run, model_file, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("generate", "--model", model_file, "--seed", seed, "--outfile", tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_outdir_gets_every_sample_and_the_sheet(run, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [
        "--model",
        model_file,
        "--latent_dims=3",
        "--nimg_channels=1",
        "--nsamples=12",
        "--scale=1",
        "--outdir=./samples/x",
    ]
    assert run("generate", *flags)[0] == 0
    folder = tmp_path / "samples" / "x"
    assert sorted(path.name for path in folder.iterdir()) == ["all.png", *(f"img_{i:06d}.png" for i in range(12))]
    assert not (tmp_path / "samples.png").exists()
    sheet = read_pixels(folder / "all.png")
    np.testing.assert_array_equal(sheet[:16, 18:34], read_pixels(folder / "img_000001.png"))


def test_colour_models_make_colour_sheets(run, tmp_path):
    save(tmp_path / "rgb.npz", make_model(channels=3))
    run("generate", "--model", tmp_path / "rgb.npz", "--nsamples", 4, "--scale", 1, "--outfile", tmp_path / "a.png")
    assert read_pixels(tmp_path / "a.png").shape == (34, 34, 3)


@pytest.fixture
def conditional(tmp_path):
    """A model of three classes, and the file of it."""
    model = make_model(num_classes=3)
    save(tmp_path / "c.npz", model, dataset="folder:x", class_names=["cat", "dog", "1"])
    return model, tmp_path / "c.npz"


def test_labels_by_number_and_name(run, fails, conditional, model_file, tmp_path):
    model, path = conditional
    out = tmp_path / "a.png"

    def sheet(*flags):
        line = ("generate", "--model", path, "--nsamples", 6, "--grid_size", 6, "--scale", 1, "--outfile", out)
        assert run(*line, *flags)[0] == 0
        return read_pixels(out)

    z = model.prior.sample(6, mx.random.key(0))

    def expected(labels):
        return images.sheet(images.to_bytes(inference.decode(model, z, np.array(labels))), 6, 1)[:, :, 0]

    np.testing.assert_array_equal(sheet("--label", 0), expected([0] * 6))
    np.testing.assert_array_equal(sheet("--label", "dog"), expected([1] * 6))
    np.testing.assert_array_equal(sheet("--label", "1"), expected([2] * 6))  # a name comes before a number
    np.testing.assert_array_equal(sheet(), expected([0, 1, 2, 0, 1, 2]))
    assert (expected([0] * 6) != expected([1] * 6)).any()
    assert "0 to 2 or cat, dog, 1" in fails("generate", "--model", path, "--label", 12)
    fails("generate", "--model", path, "--label", -1)
    fails("generate", "--model", path, "--label", "")
    for label in ("7", "0", "all"):
        assert "not class-conditional" in fails("generate", "--model", model_file, "--label", label, "--outfile", out)


def test_a_decoder_without_labels_needs_no_label(run, fails, tmp_path):
    path = tmp_path / "a.npz"
    save(path, make_model(arch="bounded", num_classes=3), dataset="synthetic")
    assert run("generate", "--model", path, "--nsamples", 2, "--outfile", tmp_path / "a.png")[0] == 0
    for label in ("1", "all"):
        line = fails("generate", "--model", path, "--label", label, "--outfile", tmp_path / "a.png")
        assert "only this model's encoder uses labels" in line


def test_all_labels_make_a_row_each_of_the_same_codes(run, conditional, tmp_path):
    model, path = conditional
    run("generate", "--model", path, "--label", "all", "--nsamples", 14, "--scale", 1, "--outfile", tmp_path / "a.png")
    sheet = read_pixels(tmp_path / "a.png")
    assert sheet.shape == (3 * 18 - 2, 4 * 18 - 2)
    z = model.prior.sample(4, mx.random.key(0))
    for row in range(3):
        decoded = images.to_bytes(inference.decode(model, z, np.full(4, row)))
        for column in range(4):
            tile = sheet[18 * row : 18 * row + 16, 18 * column : 18 * column + 16]
            np.testing.assert_array_equal(tile, decoded[column, :, :, 0])


def test_latent_square_runs_to_the_right_and_upwards(run, tmp_path):
    model = make_model(latent_dims=2)
    save(tmp_path / "two.npz", model)
    run("generate", "--model", tmp_path / "two.npz", "--vis_lat_space", "--scale", 1, "--outfile", tmp_path / "a.png")
    sheet = read_pixels(tmp_path / "a.png")
    assert sheet.shape == (16 * 18 - 2, 16 * 18 - 2)

    corners = {
        (-2, 2): sheet[:16, :16],
        (2, 2): sheet[:16, -16:],
        (-2, -2): sheet[-16:, :16],
        (2, -2): sheet[-16:, -16:],
    }
    for code, tile in corners.items():
        expected = images.to_bytes(mx.sigmoid(model.decoder(mx.array([code], dtype=mx.float32))))[0, :, :, 0]
        assert np.abs(tile.astype(int) - expected).max() <= 1


def test_latent_square_needs_two_dims(fails, model_file):
    assert "2 latent dims" in fails("generate", "--model", model_file, "--vis_lat_space")


@pytest.mark.parametrize("flag", ["--info", "--info_only"])
def test_info(run, model_file, tmp_path, flag, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("generate", "--model", model_file, flag)
    assert status == 0
    for line in ("Data set: synthetic", "Latent dimensions: 3", "Filters: 8", "16×16, grey"):
        assert line in out
    assert not (tmp_path / "samples.png").exists()


@pytest.mark.parametrize("flag, asked, has", [("latent_dims", 4, 3), ("max_filters", 64, 8), ("nimg_channels", 3, 1)])
def test_contradicting_flags_name_both_values(fails, model_file, flag, asked, has):
    line = fails("generate", "--model", model_file, f"--{flag}", asked)
    assert f"--{flag} {asked}" in line and f"has {has}" in line


def test_impossible_outputs_are_rejected(fails, model_file, tmp_path):
    (tmp_path / "file").touch()
    model = ["--model", model_file]
    fails("generate", *model, "--outfile", tmp_path / "a.xyz")
    fails("generate", *model, "--outfile", tmp_path / "file" / "a.png")
    fails("generate", *model, "--outdir", tmp_path / "file")
    fails("generate", *model, "--nsamples", 10**23, "--outfile", tmp_path / "a.png")
    fails("generate", *model, "--nsamples", 0)
    (tmp_path / "b.png").mkdir()
    assert "is a folder" in fails("generate", *model, "--outfile", tmp_path / "b.png")
    assert not (tmp_path / "a.png").exists()


def test_temperature_scales_the_latent_vectors(run, model, model_file, tmp_path):
    run(
        "generate",
        "--model",
        model_file,
        "--nsamples",
        6,
        "--temperature",
        0.5,
        "--scale",
        1,
        "--outfile",
        tmp_path / "a.png",
    )
    z = 0.5 * model.prior.sample(6, mx.random.key(0))
    expected = images.sheet(images.to_bytes(inference.decode(model, z)), scale=1)[:, :, 0]
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), expected)
    flags = ["--nsamples", 6, "--temperature", 0, "--scale", 1]
    run("generate", "--model", model_file, *flags, "--outfile", tmp_path / "a.png")
    sheet = read_pixels(tmp_path / "a.png")
    assert (sheet[:16, :16] == sheet[:16, 18:34]).all()


def test_words_for_one_and_for_a_grid(run, model_file, tmp_path):
    _, out, _ = run("generate", "--model", model_file, "--nsamples", 1, "--outfile", tmp_path / "a.png")
    assert "Sheet of 1 sample:" in out
    save(tmp_path / "two.npz", make_model(latent_dims=2))
    _, out, _ = run("generate", "--model", tmp_path / "two.npz", "--vis_lat_space", "--outfile", tmp_path / "a.png")
    assert out.startswith("Latent grid: ")


@pytest.mark.parametrize("name", ["vae_mnist_filters_0064_dims_0002", "conditional/vae_mnist_filters_0064_dims_0008"])
def test_every_shipped_model_is_found_from_anywhere(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert run("generate", "--model", f"pretrained/{name}.npz", "--info")[0] == 0


def test_the_shipped_models_need_no_flag_and_work_from_anywhere(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("generate", "--scale", 1)
    assert (status, err) == (0, "")
    assert read_pixels(tmp_path / "samples.png").shape == (11 * 66 - 2, 12 * 66 - 2)
    assert "samples.png" in out


@pytest.mark.parametrize("more", [[], ["--seed", 5, "--nsamples", 5, "--temperature", 0.5], ["--vis_lat_space"]])
def test_a_sheet_tells_how_to_make_it_again(run, tmp_path, monkeypatch, more):
    folder = tmp_path / "my models"
    save(folder / "a b.npz", make_model(latent_dims=2), dataset="folder:/home/me/pets", options={"beta": 4.0})
    run("generate", "--model", folder / "a b.npz", *more, "--outfile", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as sheet:
        text, shown = sheet.text, sheet.tobytes()
    assert "pets, 2 latent dimensions, β 4" in text["Title"]
    assert hashlib.sha256((folder / "a b.npz").read_bytes()).hexdigest()[:12] in text["Model"]
    assert str(tmp_path) not in str(text) and f"mlx {version('mlx')}" in text["Software"]
    if "--seed" in more:
        assert "temperature 0.5, seed 5" in text["Description"] and text["Title"].startswith("5 samples: ")
    monkeypatch.chdir(folder)
    python, program, *words = shlex.split(text["Command"])
    assert (python, program) == ("python", "generate.py") and run("generate", *words)[0] == 0
    with Image.open("samples.png") as again:
        assert again.tobytes() == shown and again.text == text


def test_included_models_of_one_name_are_told_apart(run, tmp_path):
    for folder in ("pretrained", "pretrained/conditional"):
        model = f"{folder}/vae_mnist_filters_0064_dims_0008.npz"
        run("generate", "--model", model, "--nsamples", 1, "--outfile", tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as sheet:
            assert f"--model {model}" in sheet.text["Command"]


def test_small_sheets_are_enlarged(run, model_file, tmp_path):
    """Without a flag to about 500 pixels, with a margin and words; each pixel is a square."""
    flags = ["--model", model_file, "--nsamples", 4, "--outfile", tmp_path / "a.png"]
    sheets = {}
    for scale in ([], ["--scale", 3], ["--scale", 1]):
        run("generate", *flags, *scale)
        sheets[(*scale, 0)[1:2] or 0] = read_pixels(tmp_path / "a.png")
    bare, default = sheets[(1,)], sheets[0]
    assert bare.shape == (34, 34) and 500 <= default.shape[1] < 650 and default[0, 0] == 255
    tile = images.enlarged(bare[:16, :16, None], 3)[:, :, 0]
    windows = np.lib.stride_tricks.sliding_window_view(sheets[(3,)], tile.shape)
    assert (windows == tile).all(axis=(2, 3)).any()


def test_few_classes_make_no_ribbon(run, tmp_path):
    save(tmp_path / "c.npz", make_model(num_classes=2), dataset="synthetic")
    flags = ["--model", tmp_path / "c.npz", "--label", "all", "--scale", 1, "--outfile", tmp_path / "a.png"]
    run("generate", *flags)
    assert read_pixels(tmp_path / "a.png").shape == (10 * 18 - 2, 12 * 18 - 2)
    run("generate", *flags, "--grid_size", 16)
    assert read_pixels(tmp_path / "a.png").shape == (8 * 18 - 2, 16 * 18 - 2)


def test_open_shows_the_result_and_never_fails(run, model_file, tmp_path, monkeypatch):
    viewer = tmp_path / ("open" if sys.platform == "darwin" else "xdg-open")
    viewer.write_text(f'#!/bin/sh\necho "$1" >> "{tmp_path}/seen"\nsleep 1\nexit 3\n')
    viewer.chmod(0o755)
    flags = ["--model", model_file, "--nsamples", 1, "--outfile", tmp_path / "a.png"]
    run("generate", *flags)
    assert not (tmp_path / "seen").exists()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert run("generate", *flags, "--open")[::2] == (0, "")
    for _ in range(100):
        if (tmp_path / "seen").exists():
            break
        time.sleep(0.02)
    assert (tmp_path / "seen").read_text() == f"{tmp_path / 'a.png'}\n"
    monkeypatch.setenv("PATH", "")
    status, _, err = run("generate", *flags, "--open")
    assert status == 0 and err.count("\n") == 1 and "no viewer" in err
