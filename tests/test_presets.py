"""Options of train.py that come from a file, or from a model that was trained with them."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from sample_models import make_model, save

from toolkit.formats import checkpoint

TINY = "--dataset synthetic --limit 100 --image_size 16 --max_filters 8 --latent_dims 2 --epochs 1".split()
NAME = "vae_synthetic_filters_0008_dims_0002.npz"
TOML = """
dataset = "synthetic"
limit = 100
image-size = 16  # hyphens work as they do in flags
max_filters = 8
hidden_dim = 2  # and so do earlier spellings
num_epochs = 1
conditional = true
keep_best = false
beta = 2
"""
VALUES = {"dataset": "synthetic", "limit": 100, "image_size": 16, "max_filters": 8, "latent_dims": 2, "epochs": 1}


def options(path):
    return checkpoint.load(path).options


@pytest.mark.parametrize("ending", ["toml", "json"])
def test_a_file_is_as_good_as_flags(run, tmp_path, ending):
    if ending == "toml":
        pytest.importorskip("tomllib")
    text = TOML if ending == "toml" else json.dumps(VALUES | {"conditional": True, "beta": 2, "lr_schedule": None})
    (tmp_path / f"run.{ending}").write_text(text)
    flags = ["--config", tmp_path / f"run.{ending}", "--outdir"]
    assert run("train", *flags, tmp_path / "a")[0] == 0
    assert run("train", *TINY, "--conditional", "--beta", 2, "--outdir", tmp_path / "b")[0] == 0
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()
    assert run("train", *flags, tmp_path / "c", "--beta", 3)[0] == 0  # flags come first
    assert options(tmp_path / "c" / NAME) == options(tmp_path / "a" / NAME) | {"beta": 3.0}


BROKEN = {
    "an unknown key": ({"latent_dim": 3}, r"an unknown key 'latent_dim' — did you mean latent_dims\?"),
    "a far key": ({"xyzzy": 3}, "an unknown key 'xyzzy' — python train.py --help-all"),
    "itself": ({"config": "a.json"}, "an unknown key 'config'"),
    "a word for a number": ({"epochs": "three"}, "json: epochs needs a number, not 'three' — "),
    "half a dimension": ({"latent_dims": 0.5}, "latent_dims needs a whole number, not 0.5"),
    "too little": ({"epochs": 0}, "json: epochs must be above 0 — "),
    "a wrong choice": ({"likelihood": "norml"}, "likelihood 'norml' is not one of .* — did you mean normal"),
    "a number for a switch": ({"conditional": 1}, "conditional must be true or false, not 1"),
    "a switch for a number": ({"epochs": True}, "epochs needs a number, not true"),
    "a section": ({"model": {"epochs": 3}}, "an unknown key 'model'"),
    "a list": ([1], "a list or a single value"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_of_wrong_options(fails, tmp_path, what):
    values, said = BROKEN[what]
    (tmp_path / "run.json").write_text(json.dumps(values))
    line = fails("train", "--config", tmp_path / "run.json", "--outdir", tmp_path / "out")
    assert "run.json" in line and re.search(said, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "values, flags, said",
    [
        ({"beta": 2}, "--objective iwae", "--beta is an option of --objective elbo"),
        ({"iw_samples": 2}, "", "--iw_samples is an option of --objective iwae"),
        ({"beta_start": 0.1}, "", "--beta_start has no effect without --beta_warmup"),
        ({"beta": 1, "beta_max": 2}, "", "add --beta_warmup"),
        ({"decoder": "transpose"}, "--arch mlp", "--arch mlp has its own decoder"),
    ],
)
def test_a_file_is_checked_as_flags_are(fails, tmp_path, values, flags, said):
    (tmp_path / "run.json").write_text(json.dumps(values))
    assert said in fails("train", *TINY, "--config", tmp_path / "run.json", *flags.split(), "--outdir", tmp_path)


def test_an_objective_from_elsewhere_brings_its_options(run, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"objective": "iwae", "iw_samples": 3}))
    assert run("train", *TINY, "--config", tmp_path / "run.json", "--outdir", tmp_path / "a")[0] == 0
    like = ["--like", tmp_path / "a" / NAME, "--outdir"]
    assert run("train", *TINY, *like, tmp_path / "b", "--iw_samples", 2)[0] == 0
    assert options(tmp_path / "b" / NAME)["iw_samples"] == 2 and "beta" not in options(tmp_path / "b" / NAME)
    assert run("train", *TINY, *like, tmp_path / "c", "--objective", "elbo", "--beta", 2)[0] == 0
    assert options(tmp_path / "c" / NAME)["beta"] == 2 and "iw_samples" not in options(tmp_path / "c" / NAME)


def test_invalid_config_files_are_rejected(fails, tmp_path):
    (tmp_path / "run.json").write_text("{epochs: 3}")
    assert "run.json is not JSON" in fails("train", "--config", tmp_path / "run.json")
    (tmp_path / "run.toml").write_text("epochs 3\n")
    assert re.search("is not TOML|Python 3.11", fails("train", "--config", tmp_path / "run.toml"))
    (tmp_path / "run.yaml").write_text("epochs: 3\n")
    assert "write .toml or .json" in fails("train", "--config", tmp_path / "run.yaml")
    assert "check the name" in fails("train", "--config", tmp_path / "gone.json")


def test_a_resumed_run_and_a_file_must_agree(run, fails, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(VALUES))
    flags = ["--config", tmp_path / "run.json", "--outdir", tmp_path]
    assert run("train", *flags)[0] == 0
    assert "\n  2/2 " in run("train", *flags, "--resume", "--epochs", 2)[1]
    (tmp_path / "run.json").write_text(json.dumps(VALUES | {"beta": 2}))
    assert "--beta 2 contradicts the run to resume, which has 1" in fails("train", *flags, "--resume")


def test_like_a_model(run, tmp_path):
    run("train", *TINY, "--beta", 2, "--recipe", "classic", "--lr", 0.002, "--conditional", "--outdir", tmp_path / "a")
    flags = ["--like", tmp_path / "a" / NAME, "--outdir"]
    assert run("train", *flags, tmp_path / "b")[0] == 0
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()
    (tmp_path / "run.json").write_text(json.dumps({"beta": 3, "seed": 4}))
    assert run("train", *flags, tmp_path / "c", "--config", tmp_path / "run.json", "--seed", 5)[0] == 0
    assert options(tmp_path / "c" / NAME) == options(tmp_path / "a" / NAME) | {"beta": 3.0, "seed": 5}


def test_a_new_recipe_or_architecture_brings_its_own_defaults(run, tmp_path):
    run("train", *TINY, "--lr", 0.002, "--outdir", tmp_path / "a")
    flags = ["--like", tmp_path / "a" / NAME, "--outdir", tmp_path / "b"]
    assert run("train", *flags, "--recipe", "classic")[0] == 0
    assert options(tmp_path / "b" / NAME)["lr"] == 0.001 and options(tmp_path / "b" / NAME)["optimizer"] == "adamw"
    out = run("train", *flags, "--arch", "mlp", "--max_filters", 16)[1]
    assert "Optimizer: AdamW, " in out and "Learning rate: 0.003, " in out
    out = run("train", *flags, "--recipe", "fast", "--overwrite")[1]  # it is the same, so the rate stays
    assert "Learning rate: 0.002" in out


def test_like_a_model_of_ones_own_pictures(run, fails, tmp_path, monkeypatch):
    """Its file holds no path; the run beside it does."""
    for i in range(8):
        (tmp_path / "pets").mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 20, 3), 30 * i, np.uint8)).save(tmp_path / "pets" / f"{i}.png")
    data = ["--data_dir", tmp_path / "data"]
    run("train", *TINY, "--dataset", f"folder:{tmp_path / 'pets'}", *data, "--outdir", tmp_path / "a")
    path = tmp_path / "a" / NAME.replace("synthetic", "folder-pets")
    monkeypatch.chdir(tmp_path / "a")
    assert run("train", "--like", path, *data, "--outdir", tmp_path / "b")[0] == 0
    alone = path.rename(tmp_path / "alone.npz")
    line = fails("train", "--like", alone, *data, "--outdir", tmp_path / "c")
    assert "a folder pets — add --dataset folder:PATH" in line
    assert (
        run("train", "--like", alone, *data, "--dataset", f"folder:{tmp_path / 'pets'}", "--outdir", tmp_path / "c")[0]
        == 0
    )


def test_a_file_that_is_nested_deep(fails, tmp_path):
    (tmp_path / "run.json").write_text('{"epochs": ' + "[" * 50_000)
    assert "nested too deep" in fails("train", "--config", tmp_path / "run.json")


def test_another_architecture_leaves_the_options_of_the_model_s_own_behind(run, tmp_path):
    tiny = "--dataset synthetic --limit 40 --image_size 16 --max_filters 8 --epochs 1".split()
    assert run("train", *tiny, "--arch", "bounded", "--decoder_filters", "4", "--outdir", tmp_path / "a")[0] == 0
    (model,) = (tmp_path / "a").glob("*.npz")
    again = ["--like", model, "--arch", "conv", "--max_filters", 8, "--outdir", tmp_path / "b"]
    status, out, _ = run("train", *again)
    assert status == 0 and "convolutions, upsampling decoder" in out


def test_like_rejects_models_without_options(fails, model_file, tmp_path):
    assert "does not contain its training options" in fails("train", "--like", model_file)
    save(tmp_path / "new.npz", make_model(), options={"younger": 1})
    assert "unknown option 'younger'" in fails("train", "--like", tmp_path / "new.npz")
    assert "no such file" in fails("train", "--like", tmp_path / "gone.npz")


def test_keys_of_many_parts(fails, tmp_path):
    (tmp_path / "run.toml").write_text("a." * 20_000 + "a = 1")
    assert "a line has more than 1000 characters" in fails("train", "--config", tmp_path / "run.toml")


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_names_that_no_file_can_have(fails, tmp_path, name):
    for option in ("outdir", "run_name"):
        (tmp_path / "run.json").write_text(json.dumps({option: name}))
        assert "must be a valid file name" in fails("train", "--config", tmp_path / "run.json")


def test_a_recipe_of_the_model_to_be_like_gives_its_options_too(run, tmp_path):
    small = [*TINY, "--flow_layers", 2, "--flow_units", 8]
    run("train", *small, "--recipe", "samples", "--latent_dims", 3, "--outdir", tmp_path / "a")
    like = next((tmp_path / "a").glob("*.npz"))
    for i, recipe in enumerate(([], ["--recipe", "samples"])):
        status, out, err = run("train", "--like", like, *recipe, "--flow_units", 9, "--outdir", tmp_path / str(i))
        assert (status, err) == (0, "") and "Latent dimensions: 3\n" in out and "0.3 KL" in out
    run("train", *TINY, "--latent_dims", 3, "--outdir", tmp_path / "b")
    like = next((tmp_path / "b").glob("*.npz"))
    _, out, _ = run("train", "--like", like, "--recipe", "samples", "--outdir", tmp_path / "c")
    assert "Latent dimensions: 32\n" in out and "Prior: a flow" in out
