"""Model folders for the Hugging Face Hub: written, read, fetched, and what their card says."""

import json
import sys
import types

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from sample_models import make_model, save

from toolkit.formats import checkpoint, hub
from toolkit.model.mixture import Mixture

FACTS = {
    "dataset": "mnist",
    "epoch": 4,
    "class_names": ("cat", "<b>|dog"),
    "options": {"dataset": "mnist", "epochs": 4, "conditional": True, "recipe": "fast", "lr": 0.01, "latent_dims": 3},
    "test": {"loss": 63.901, "reconstruction": 45.5, "kl": 18.4},
}


@pytest.fixture
def model():
    return make_model(num_classes=2)


def make_mixture():
    means = np.random.default_rng(0).normal(size=(1, 3))
    return Mixture(np.full((2, 1), 1.0), means, np.array([[1, 0, 1, 0, 0, 1.0]]))


@pytest.fixture
def folder(run, model, tmp_path):
    """A model folder as convert.py writes it."""
    save(tmp_path / "pets.npz", model, **FACTS, sampler=make_mixture())
    status, out, err = run("convert", tmp_path / "pets.npz", f"{tmp_path}/pets/")
    assert (status, err) == (0, "") and "Its licence is unknown" in out
    return tmp_path / "pets"


def test_a_folder_is_a_model(run, model, folder, tmp_path):
    assert sorted(path.name for path in folder.iterdir()) == sorted([hub.CARD, hub.CONFIG, hub.MODEL, hub.PICTURE])
    loaded = checkpoint.load(folder)
    read = loaded.model
    assert {name: getattr(loaded, name) for name in FACTS} == FACTS and read.config == model.config
    z = loaded.sampler.sample(4, mx.random.key(0), labels=np.zeros(4, int))
    np.testing.assert_array_equal(
        np.array(read.decode(z, mx.zeros(4, mx.int32))), np.array(model.decode(z, mx.zeros(4, mx.int32)))
    )
    for name, path in (("a", "pets.npz"), ("b", "pets"), ("c", "pets/")):
        assert run("generate", "--model", f"{tmp_path}/{path}", "--outfile", tmp_path / f"{name}.png")[0] == 0
        with Image.open(tmp_path / f"{name}.png") as shown, Image.open(tmp_path / "a.png") as first:
            assert shown.tobytes() == first.tobytes()
    assert run("convert", folder, tmp_path / "back.npz")[0] == 0
    assert (tmp_path / "back.npz").read_bytes() == (tmp_path / "pets.npz").read_bytes()


def test_config_json_completes_weights_without_metadata(fails, model, folder):
    config = json.loads((folder / hub.CONFIG).read_text())
    assert config["model_type"] == "vae" and config["latent_dims"] == 3 and config["id2label"]["0"] == "cat"
    arrays = mx.load(str(folder / hub.MODEL))
    mx.save_safetensors(str(folder / hub.MODEL), arrays)  # as tools do that know of no metadata
    loaded = checkpoint.load(folder)
    assert loaded.model.config == model.config and loaded.class_names == FACTS["class_names"]
    for text in (
        "",
        "[]",
        "{}",
        json.dumps(config | {"model_type": "bert"}),
        json.dumps(config | {"latent_dims": "x"}),
    ):
        (folder / hub.CONFIG).write_text(text)
        fails("generate", "--model", folder, "--info")


def test_the_card(run, fails, folder, tmp_path):
    text = (folder / hub.CARD).read_text()
    head, body = text.removeprefix("---\n").split("---\n", 1)
    assert head.startswith("license: unknown\nlibrary_name: mlx\n") and head.endswith("datasets:\n- ylecun/mnist\n")
    for words in ("# pets", "(samples.png)", "| 63.90 |", "for 4 epochs", "2 classes", "one Gaussian for each class"):
        assert words in body, words
    assert "python train.py --conditional --epochs 4 --latent_dims 3\n" in body
    assert str(tmp_path) not in text
    with Image.open(folder / hub.PICTURE) as picture:
        assert np.array(picture).std() > 0
    (folder / hub.CARD).write_text("mine")  # what a person wrote stays
    out = run("convert", tmp_path / "pets.npz", f"{folder}/")[1]
    assert (folder / hub.CARD).read_text() == "mine" and "exists and was kept" in out
    other = f"{tmp_path}/other/"
    assert "licence" not in run("convert", folder, other, "--license", "cc-by-4.0")[1]
    assert (tmp_path / "other" / hub.CARD).read_text().startswith("---\nlicense: cc-by-4.0\n")
    assert "not a Hub licence identifier" in fails("convert", folder, other, "--license", "mit\ntags: x")


def test_a_card_omits_unknown_facts(run, model_file, tmp_path):
    save(tmp_path / "bare.npz", make_model(), dataset="folder:a|b\n---", options={"new": 1})
    assert run("convert", tmp_path / "bare.npz", f"{tmp_path}/bare/")[0] == 0
    text = (tmp_path / "bare" / hub.CARD).read_text()
    assert "## Metrics" not in text and "train.py" not in text and "datasets:" not in text
    assert "# bare: a\\|b ---, 3 latent dimensions" in text and text.count("\n---\n") == 1


@pytest.fixture
def stand_in(monkeypatch):
    """A stand-in for the package huggingface_hub; returns what it was asked for, and what it does."""
    package, asked = types.ModuleType("huggingface_hub"), []

    def put(answer):
        def snapshot_download(repository, **options):
            asked.append((repository, options))
            return answer()

        package.snapshot_download = snapshot_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", package)
        return asked

    return put


def test_a_model_of_the_hub_is_fetched(run, folder, stand_in, tmp_path):
    asked = stand_in(lambda: str(folder))
    assert run("generate", "--model", "hf:org/pets-1.0", "--outfile", tmp_path / "a.png")[0] == 0
    assert asked == [("org/pets-1.0", {"revision": None, "allow_patterns": [hub.MODEL, hub.CONFIG]})]
    assert run("convert", "hf:org/pets@v2", tmp_path / "a.npz")[0] == 0 and asked[1][1]["revision"] == "v2"
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "pets.npz").read_bytes()


def test_models_missing_on_the_hub_are_one_line(fails, stand_in, monkeypatch, tmp_path):
    def unreachable():
        raise OSError("no route\nto huggingface.co")

    stand_in(unreachable)
    line = fails("generate", "--model", "hf:org/pets")
    assert "cannot fetch hf:org/pets: no route to huggingface.co — check the name and the network" in line
    stand_in(lambda: str(tmp_path))
    assert hub.MODEL in fails("generate", "--model", "hf:org/pets")
    for name in ("hf:", "hf:pets", "hf:a/b/c", "hf:../.."):
        assert "write hf:org/name" in fails("generate", "--model", name)

    class Speechless(Exception):
        def __str__(self):
            raise TypeError

    def fail():
        raise Speechless

    stand_in(fail)
    assert "cannot fetch hf:org/pets: Speechless — " in fails("generate", "--model", "hf:org/pets")
    (tmp_path / "huggingface_hub.py").write_text("raise RuntimeError('broken')")
    monkeypatch.delitem(sys.modules, "huggingface_hub")
    monkeypatch.syspath_prepend(tmp_path)
    assert "cannot fetch hf:org/pets: broken — " in fails("generate", "--model", "hf:org/pets")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install huggingface_hub" in fails("generate", "--model", "hf:org/pets")


def test_a_data_set_s_name_stays_in_the_card_s_code_block(run, model, tmp_path):
    options = {"dataset": "folder:x\n```\n\n# INJECTED", "limit": 9}
    save(tmp_path / "a.npz", model, options=options)
    assert run("convert", tmp_path / "a.npz", f"{tmp_path}/h/")[0] == 0
    assert "INJECTED" not in (tmp_path / "h" / "README.md").read_text()
