"""Every line of the README's table of ancestors, run on tiny data."""

import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image
from sample_files import make_celeb_a
from sample_models import TORCH, arrays_of, make_model, make_torch_state, save

from toolkit.shell.opening import ROOT

TABLE = (ROOT / "docs" / "compatibility.md").read_text().split("## Lines of the four systems")[1].split("\n## ")[0]
LINES = re.findall(r"\| `python (\w+)\.py ?([^`]*)` \|", TABLE)


@pytest.fixture
def place(tmp_path, monkeypatch, mnist_folder):
    """A folder with small data sets and models under the names that the lines have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    make_celeb_a(tmp_path)
    write_torch(tmp_path / "models/mnist/vae_filters_0128_dims_0064.pth", 1)
    write_torch(tmp_path / "models/celeb-a/vae_filters_0128_dims_0064.pth", 3)
    (tmp_path / "pretrained").mkdir()
    shutil.copy(TORCH / "annealed_one_hot.pth", tmp_path / "pretrained" / "checkpoint_best.pth")
    path = tmp_path / "pretrained" / "vae_mnist_filters_0064_dims_0008.npz"
    save(path, make_model(latent_dims=8), dataset="mnist")
    mlp = make_model(latent_dims=12, arch="mlp", max_filters=16, image_size=28)
    save(tmp_path / "models" / "vae_mnist_filters_0512_dims_0012.npz", mlp, dataset="mnist")
    return tmp_path


CARD = (
    ("train", "--latent_dims 8 --epochs 1 --limit 12"),  # which has 50 epochs, and all images
    ("generate", "--model pretrained/vae_mnist_filters_0064_dims_0008.npz --outfile samples.png"),
    ("reconstruct", "--rec_testdata"),
)


@pytest.mark.parametrize("command, flags", CARD)
def test_the_lines_of_the_card_can_be_typed_twice(run, place, command, flags):
    for _ in range(2):
        assert run(command, *shlex.split(flags))[0] == 0


def write_torch(path, channels):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_torch_state(arrays_of(make_model(arch="transpose", latent_dims=64, channels=channels))))


def test_the_table_has_them_all():
    assert len(LINES) == 14 and {command for command, _ in LINES} == {"train", "reconstruct", "generate"}


@pytest.mark.slow
@pytest.mark.parametrize("command, flags", LINES)
def test_line(run, place, command, flags):
    argv = shlex.split(flags)
    if command == "train":  # the whole line, with the last word on how long
        argv += "--epochs 1 --limit 12 --overwrite".split()
    run(command, *argv)
    status, out, err = run(command, *argv)  # typed twice, it does the same
    assert (status, err) == (0, "")
    written = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    said = dict(re.findall(r"--(\w+)[= ](\S+)", flags))
    if command == "train":
        dims = int(said.get("latent_dims", 8))
        filters = 512 if "mlp" in flags else 64
        name = f"vae_{said.get('dataset', 'mnist')}_filters_{filters:04d}_dims_{dims:04d}"
        folder = "models/my_run" if "my_run" in flags else "models"
        assert {f"{folder}/{name}.npz", f"{folder}/{name}/epoch_0001_samples.png"} <= written
    elif command == "reconstruct":
        split = f"{said.get('dataset', 'mnist')}_train"
        folder = f"{said['outdir']}/{split}/{int(said['latent_dims']):04d}_latent_dims"
        assert f"{folder}/img_00000000.png" in written
    elif "info_only" in flags:
        assert "Latent dimensions: 2" in out and "beta_max 1.0" in out
    elif "outdir" in said:
        folder = place / said["outdir"]
        assert len(list(folder.glob("img_0000??.png"))) == 64
        with Image.open(folder / "all.png") as sheet:
            assert sheet.mode == ("RGB" if said["nimg_channels"] == "3" else "L")
    else:
        with Image.open(place / said.get("output_path", said.get("outfile", "samples.png"))) as sheet:
            assert np.array(sheet).std() > 0
