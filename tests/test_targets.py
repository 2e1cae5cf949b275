"""Nothing that a person has is replaced unasked, whatever command writes and however its target is named."""

import io
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_models import save

from toolkit import datasets
from toolkit.errors import UserError
from toolkit.files import targets, writing
from toolkit.files.targets import METRICS, NEW, PAGE, PICTURE, kind_of
from toolkit.formats import checkpoint
from toolkit.pictures import images

TINY = "--dataset synthetic --limit 40 --image_size 8 --max_filters 8 --latent_dims 2".split()
NAME = "vae_synthetic_filters_0008_dims_0002"
GREY = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def home(tmp_path, model_file, monkeypatch):
    """A folder with files of a person, in which commands run; returns what each file holds."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(5):
        Image.fromarray(np.full((20, 20, 3), 40 * i, np.uint8)).save(f"photos/{i}.png")
    shutil.copy(model_file, "keep.npz")
    Path("notes.json").write_text('{"mine": true}')
    Path("mine.csv").write_text("a,b\n1,2\n")
    Path("page.html").write_text("<p>mine</p>")
    Path("project").mkdir()
    for name in ("config.json", "samples.png", "model.safetensors", "README.md"):
        Path("project", name).write_text("{}")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    yield files
    changed = [str(path) for path, data in files.items() if not path.exists() or path.read_bytes() != data]
    assert not changed, f"{changed} of a person are lost"


FEW = ["--limit", 5, "--importance_samples", 0]


@pytest.mark.parametrize(
    "command, said",
    {
        "encode.py photos --outfile keep.npz": "keep.npz exists",
        "encode.py photos --outfile mine.csv": "mine.csv exists",
        "convert.py keep.npz keep.npz": "is an input of this command",
        "convert.py keep.npz ./photos/../keep.npz": "is an input of this command",
        "convert.py keep.npz link.npz": "is an input of this command",
        "convert.py keep.npz hard.npz": "is an input of this command",
        "convert.py MODEL keep.npz": "keep.npz exists",
        "convert.py keep.npz project/": "contains files other than",
        "convert.py keep.npz ./": "contains files other than",
        "evaluate.py --json keep.npz": "is not a metrics file made by this toolkit",
        "evaluate.py --json notes.json": "is not a metrics file made by this toolkit",
        "evaluate.py --json MODEL": "is an input of this command",
        "generate.py --outfile photos/0.png": "is not a picture file made by this toolkit",
        "visualize.py samples --outfile photos/0.png": "is not a picture file made by this toolkit",
        "visualize.py traversal --image ours.png --outfile ours.png": "is an input of this command",
        "visualize.py explorer --outfile page.html": "is not a page file made by this toolkit",
        "visualize.py report --outfile page.html": "is not a page file made by this toolkit",
        "generate.py --outfile protected.png": "is read-only",
        "generate.py --outfile photos": "is a folder",
    }.items(),
)
def test_files_of_a_person(fails, run, home, model_file, command, said):
    os.symlink("keep.npz", "link.npz")
    os.link("keep.npz", "hard.npz")
    images.save("ours.png", GREY)
    images.save("protected.png", GREY)
    os.chmod("protected.png", 0o444)
    name, *words = command.replace("MODEL", model_file.name).split()
    model = [] if name == "convert.py" else ["--model", model_file.name]
    line = fails(name.removesuffix(".py"), *words, *model)
    assert said in line and ("--overwrite" in line or "folder" in said)


def test_pictures_that_were_encoded_are_not_replaced_by_their_decodings(run, fails, home, model_file):
    assert run("encode", "photos", "--model", model_file, "--outfile", "photos.npz")[0] == 0
    flags = ["--model", model_file, "--codes", "photos.npz", "--outdir"]
    assert "photos/0.png exists" in fails("generate", *flags, "photos")
    assert run("generate", *flags, "decoded")[0] == 0
    Path("decoded/4.png").unlink()
    assert "decoded/0.png exists" in fails("generate", *flags, "decoded")  # nor those of before
    assert not Path("decoded/4.png").exists()  # and nothing was written until that was known
    assert run("generate", *flags, "decoded", "--overwrite")[0] == 0


@pytest.mark.slow
def test_a_run_again(run, home, model_file):
    """What is made again all day is replaced without a word."""
    model = ["--model", model_file]
    for _ in range(2):
        for flags in (["--outfile", "a.png"], ["--outfile", "a.jpg"], ["--outdir", "samples", "--nsamples", 3]):
            assert run("generate", *model, *flags)[0] == 0
        assert run("reconstruct", *model, "--rec_testdata", "--limit", 5)[0] == 0
        assert run("evaluate", *model, *FEW, "--json", "a.json")[0] == 0
        for name in ("a.png", "a.gif"):
            assert run("visualize", "traversal", *model, "--limit", 5, "--outfile", name)[0] == 0
        assert run("visualize", "explorer", *model, "--limit", 5)[0] == 0
        assert run("visualize", "report", *model, *FEW)[0] == 0
        assert run("convert", "keep.npz", "hub/")[0] == 0
    assert "mlx-vae" in json.loads(Path("a.json").read_text())["made_by"]


def test_numbered_samples_replace_no_pictures_of_a_person(run, fails, home, model_file, tmp_path):
    theirs = Image.fromarray(GREY)
    for folder, name in (("out", "img_000002.png"), ("out2", "all.png"), ("out3", "IMG.png")):
        Path(folder).mkdir()
        theirs.save(Path(folder, name))
    flags = ["--model", model_file, "--nsamples", 3, "--outdir"]
    assert "img_000002.png exists" in fails("generate", *flags, "out")
    assert os.listdir("out") == ["img_000002.png"]
    assert "all.png exists" in fails("generate", *flags, "out2")
    assert run("generate", *flags, "out3")[0] == 0


def test_reconstructions_of_a_persons_pictures(run, fails, home, model_file):
    flags = ["--model", model_file, "--images", "photos"]
    folder = Path("reconstructions/pictures/0003_latent_dims")
    folder.mkdir(parents=True)
    (folder / "sources.csv").write_text("mine\n")
    assert "is not a list file made by this toolkit" in fails("reconstruct", *flags)
    (folder / "sources.csv").unlink()
    assert run("reconstruct", *flags)[0] == 0
    assert "0.png exists" in fails("reconstruct", *flags)
    assert run("reconstruct", *flags, "--overwrite")[0] == 0


@pytest.mark.parametrize("ending", images.ENDINGS)
def test_pictures_of_every_format_say_who_made_them(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    images.save(path, np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    assert kind_of(path) == PICTURE
    targets.check_target(path, PICTURE)
    for kind in (PAGE, METRICS, NEW):
        with pytest.raises(UserError, match="--overwrite"):
            targets.check_target(path, kind)
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    assert kind_of(path) == ""


def test_an_empty_file_is_nothing_to_lose(run, home, model_file):
    Path("new.png").touch()
    assert run("generate", "--model", model_file, "--outfile", "new.png")[0] == 0


# A run's own files


def train_tiny(run, *flags):
    status, out, err = run("train", *TINY, *flags)
    assert status == 0, err
    return out


@pytest.mark.slow
@pytest.mark.parametrize("way", ["/proc/self/cwd/m", "/proc/{pid}/root{here}/m", "/dev/fd/{folder}", "link"])
def test_a_run_is_a_run_by_whatever_name(run, tmp_path, monkeypatch, way):
    if not os.path.exists("/proc/self/cwd"):
        pytest.skip("needs /proc")
    monkeypatch.chdir(tmp_path)
    train_tiny(run, "--epochs", 2, "--outdir", "m")
    os.symlink("m", "link")
    folder = os.open("m", os.O_RDONLY)
    place = way.format(pid=os.getpid(), here=tmp_path, folder=folder)
    assert not writing.is_stream(f"{place}/{NAME}.npz") and not writing.is_stream(place)
    train_tiny(run, "--epochs", 3, "--resume", "--outdir", place)
    os.close(folder)
    sheets = sorted(path.name for path in Path("m", NAME).glob("*_samples.png"))
    assert sheets == [f"epoch_000{i}_samples.png" for i in (1, 2, 3)]
    log = [json.loads(line)["epoch"] for line in Path("m", NAME, "log.jsonl").read_text().splitlines()]
    assert log == [1, 2, 3] and checkpoint.load_state(Path("m", NAME, "state.npz")).facts["epoch"] == 3


def test_streams_are_what_stat_says(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "file", "wb") as file:
        assert writing.is_stream(f"/dev/fd/{file.fileno()}") and not writing.is_stream(tmp_path / "file")
    assert writing.is_stream(tmp_path / "pipe") and writing.is_stream("/dev/null") and writing.is_stream("-")
    assert not writing.is_stream("/proc/self/cwd") and not writing.is_stream(tmp_path / "gone")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UserError, match="cannot write"):
        writing.write(tmp_path / "a", b"")


def test_only_pipes_and_devices_are_cleared_away(run, fails, tmp_path):
    train_tiny(run, "--epochs", 1, "--outdir", tmp_path)
    log = tmp_path / NAME / "log.jsonl"
    log.rename(tmp_path / "kept")
    os.mkfifo(tmp_path / "pipe")
    log.symlink_to(tmp_path / "pipe")
    line = fails("train", *TINY, "--epochs", 2, "--resume", "--outdir", tmp_path)
    assert "log.jsonl is a pipe or a device — remove it" in line
    assert log.is_symlink() and stat.S_ISFIFO(os.stat(log).st_mode)
    log.unlink()
    os.mkfifo(log)
    train_tiny(run, "--epochs", 2, "--resume", "--outdir", tmp_path)
    assert log.is_file()


def test_what_a_run_has_left_is_not_cleared_away_unasked(run, fails, tmp_path):
    """Also where its state is gone: sheets and a log are all that a person may have kept of it."""
    train_tiny(run, "--epochs", 1, "--outdir", tmp_path)
    (tmp_path / f"{NAME}.npz").unlink()
    (tmp_path / NAME / "state.npz").unlink()
    own = tmp_path / NAME / "epoch_times.png"
    own.write_text("mine")
    assert "exists — replace it with --overwrite" in fails("train", *TINY, "--outdir", tmp_path)
    train_tiny(run, "--epochs", 1, "--outdir", tmp_path, "--overwrite")
    assert own.read_text() == "mine"


def test_a_model_that_is_read_only_is_not_trained_further(run, fails, tmp_path):
    train_tiny(run, "--epochs", 1, "--outdir", tmp_path)
    path = tmp_path / f"{NAME}.npz"
    path.chmod(0o444)
    before = path.read_bytes()
    assert "is read-only" in fails("train", *TINY, "--epochs", 2, "--resume", "--outdir", tmp_path)
    assert path.read_bytes() == before


def test_pictures_of_a_run_are_not_its_data(run, home, model_file):
    """A run among its own pictures leaves sheets there, and so does every other command."""
    os.chdir("photos")
    flags = [*TINY[4:], "--dataset", "folder:.", "--cache_dir", "../cache"]
    assert "4 training and 1 test image" in run("train", *flags, "--epochs", 1)[1]
    assert run("generate", "--model", model_file)[0] == 0
    assert run("generate", "--model", model_file, "--outfile", "a.jpg")[0] == 0
    status, out, _ = run("train", *flags, "--epochs", 2, "--resume")
    assert status == 0 and "4 made by this toolkit" in out
    assert "4 training and 1 test image" in out


# A model's file does not choose folders of its reader


@pytest.fixture(params=["folder:{}", "folder:Private", "Folder:~/Private"])
def foreign(request, tmp_path, model, monkeypatch):
    """A model from elsewhere that names a folder here, with the state of a run that names it too."""
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "Private"
    secret.mkdir()
    for i in range(3):
        Image.fromarray(np.full((20, 20), 40 * i, np.uint8)).save(secret / f"secret{i}.png")
    facts = {"dataset": request.param.format(secret), "options": {"epochs": 1}}
    save(tmp_path / "x.npz", model, **facts)
    (tmp_path / "x").mkdir(exist_ok=True)
    arrays, facts = {"a": np.zeros(3)}, {"options": {"dataset": f"folder:{secret}"}, "folder": 12345}
    (tmp_path / "x" / "state.npz").write_bytes(checkpoint.pack(arrays, facts))
    return secret


@pytest.mark.parametrize(
    "command",
    ["encode.py", "evaluate.py", "reconstruct.py", "visualize.py report", "visualize.py latents", "train.py --like"],
)
def test_a_folder_that_only_a_file_names_is_asked_for(fails, foreign, monkeypatch, command):
    looked = []
    monkeypatch.setattr(datasets.folder, "listing", lambda place: looked.append(place))
    monkeypatch.setenv("HOME", str(foreign.parent))
    name, *words = command.split()
    line = fails(name.removesuffix(".py"), *words, *(["x.npz"] if "--like" in words else ["--model", "x.npz"]))
    assert "trained on a folder Private — add --dataset folder:PATH" in line and not looked


def test_the_explorer_of_such_a_model_has_no_pictures(run, foreign):
    status, _, err = run("visualize", "explorer", "--model", "x.npz", "--outfile", "a.html")
    assert status == 0 and "the page has no test images" in err


def test_ones_own_run_knows_its_pictures(run, home, tmp_path):
    flags = [*TINY[2:], "--dataset", "folder:photos", "--epochs", 1]
    assert run("train", *flags)[0] == 0
    model = f"models/{NAME.replace('synthetic', 'folder-photos')}.npz"
    assert run("encode", "--model", model)[0] == 0
