"""Pictures by what is in them: which code is where, what stays still, which colours there are, how many frames."""

import base64
import io
import json
import os
import re
from statistics import NormalDist

import mlx.core as mx
import numpy as np
import pytest
from html_page import Page
from PIL import Image
from sample_files import read_pixels
from sample_models import make_model, save
from selection import slow_but

import visualize
from toolkit import datasets
from toolkit.errors import UserError
from toolkit.formats.checkpoint import Checkpoint
from toolkit.model import inference
from toolkit.options import options_of
from toolkit.pictures import charts, fonts, images, sampling
from toolkit.pictures.kinds import (
    beside,
    comparison,
    curves,
    film,
    interpolate,
    latents,
    manifold,
    samples,
    traversal,
)
from toolkit.pictures.layout import page
from toolkit.pictures.subject import Subject


def subject(model, count=30, **options):
    return Subject(Checkpoint(model), lambda split: datasets.load("synthetic", split, None, count), **options)


def decode_to_bytes(model, codes, labels=None):
    return images.to_bytes(inference.decode(model, mx.array(np.asarray(codes, np.float32)), labels))


def test_traversal_changes_one_dimension_and_a_dead_one_changes_nothing():
    model = make_model(latent_dims=4)
    weight = np.array(model.decoder.lin1.weight)
    weight[:, 2] = 0  # the decoder does not listen to z2
    model.decoder.lin1.weight = mx.array(weight)
    shown = subject(model)
    tiles, left, top = traversal.traverse(shown, columns=5)
    assert tiles.shape == (4, 5, 16, 16, 1) and top == ["−3.0", "−1.5", "0", "+1.5", "+3.0"]
    assert [word.split()[0] for word in left] == [f"z{dim}" for dim in np.argsort(-shown.kl)]
    for row, word in zip(tiles, left, strict=True):
        assert (row != row[0]).any() == (word.split()[0] != "z2")
        codes = np.zeros((5, 4))
        codes[:, int(word[1])] = [-3, -1.5, 0, 1.5, 3]
        np.testing.assert_array_equal(row, decode_to_bytes(model, codes))


def test_traversal_around_an_image():
    model = make_model()
    shown = subject(model)
    tiles, left, _ = traversal.traverse(shown, 7, columns=3)
    for row, word in zip(tiles, left, strict=True):
        code = shown.latents[0][7].copy()
        code[int(word[1])] = 0
        np.testing.assert_array_equal(row[1], decode_to_bytes(model, code[None])[0])
    with pytest.raises(UserError, match="no test image 30 — choose 0 to 29"):
        traversal.traverse(shown, 30)


@pytest.fixture
def photos(tmp_path):
    """Two pictures with names of their own."""
    for name, shade in (("my cat.png", 60), ("dog.jpg", 200)):
        Image.fromarray(np.full((20, 30, 3), shade, np.uint8)).save(tmp_path / name)
    return tmp_path / "my cat.png", tmp_path / "dog.jpg"


@pytest.mark.parametrize("kind, flag", [("traversal", "--image"), ("interpolate", "--images")])
def test_pictures_named_by_their_files(run, fails, tmp_path, photos, kind, flag):
    """No data set is opened for them, and their names stand on the page."""
    path, out = tmp_path / "a.npz", ["--outfile", tmp_path / "a.png"]
    save(path, make_model(), dataset=f"folder:{tmp_path / 'gone'}")
    files = photos[:1] if kind == "traversal" else photos
    assert run("visualize", kind, "--model", path, flag, *files, *out)[0] == 0
    shown = read_pixels(tmp_path / "a.png")
    renamed = [file.rename(tmp_path / f"x{file.name}") for file in files]
    assert run("visualize", kind, "--model", path, flag, *renamed, *out)[0] == 0
    assert not np.array_equal(shown, read_pixels(tmp_path / "a.png"))  # but for the names it is the same picture
    assert "no effect" in fails("visualize", kind, "--model", path, flag, *renamed, "--limit", 3, *out)
    assert "no such file" in fails("visualize", kind, "--model", path, flag, *["x.png" for _ in files], *out)


def test_interpolations_between_images_of_ones_own_choice(fails, model_file, photos):
    model = make_model()
    opened = lambda files: datasets.load_files(files, 16, 1)  # noqa: E731
    shown = subject(model, open_files=opened)
    rows, left = interpolate.interpolate(shown, 4, 3, (4, str(photos[0]), str(photos[1])))
    assert [word.split("  ")[0] for word in left[::2]] == ["image 4 to my cat.png", "my cat.png to dog.jpg"]
    np.testing.assert_array_equal(rows[0, 0], shown.image(4).pixels)
    np.testing.assert_array_equal(rows[0, -1], rows[2, 0])
    assert np.abs(rows[2, 0].astype(int) - 60).max() <= 1 and np.abs(rows[2, -1].astype(int) - 200).max() <= 2
    ends = decode_to_bytes(model, [shown.image(4).mean, shown.image(str(photos[0])).mean])
    assert np.abs(rows[0, [1, 3]].astype(int) - ends).max() <= 1
    assert "two or more" in fails("visualize", "interpolate", "--model", model_file, "--images", 3, "--limit", 9)


def test_between():
    a, b = np.array([3.0, 0]), np.array([0, 3.0])
    np.testing.assert_allclose(interpolate.between(a, b, 0.5, False), [1.5, 1.5])
    np.testing.assert_allclose(interpolate.between(a, b, 0.5, True), np.array([3, 3]) / np.sqrt(2))
    for spherical in (False, True):
        for one, other in ((a, b), (a, a), (a, -a), (a, 0 * a)):
            np.testing.assert_allclose(interpolate.between(one, other, 0, spherical), one, atol=1e-9)
            np.testing.assert_allclose(interpolate.between(one, other, 1, spherical), other, atol=1e-9)


def test_interpolations_begin_and_end_at_test_images():
    model = make_model()
    shown = subject(model)
    rows, left = interpolate.interpolate(shown, 2, 5)
    assert rows.shape == (4, 7, 16, 16, 1) and [word.split("  ")[1] for word in left] == ["linear", "spherical"] * 2
    pairs = interpolate.pairs_of(shown, 2)
    means = shown.latents[0]
    for (a, b), row in zip(pairs, rows[::2], strict=True):
        assert shown.test.labels[a] != shown.test.labels[b]
        np.testing.assert_array_equal(row[0], shown.image(a)[0])
        np.testing.assert_array_equal(row[-1], shown.image(b)[0])
        ends = decode_to_bytes(model, [means[a], (means[a] + means[b]) / 2, means[b]])
        for place, end in zip((1, 3, 5), ends, strict=True):
            assert np.abs(row[place].astype(int) - end).max() <= 1
    conditional = subject(make_model(num_classes=10), count=60)
    for a, b in interpolate.pairs_of(conditional, 3):
        assert conditional.test.labels[a] == conditional.test.labels[b]


def test_manifold_holds_equal_shares_of_the_prior():
    model = make_model(latent_dims=2)
    sheet = manifold.draw(subject(model), manifold.Options(scale=1, rows=4))[-70:, -70:]
    steps = [NormalDist().inv_cdf(share) for share in (0.125, 0.375, 0.625, 0.875)]
    upper_left, lower = (decode_to_bytes(model, [[steps[a], steps[b]]])[0] for a, b in ((0, 3), (1, 0)))
    np.testing.assert_array_equal(sheet[:16, :16, :1], upper_left)
    np.testing.assert_array_equal(sheet[54:, 18:34, 2:], lower)
    shown = subject(make_model(latent_dims=5))
    first, second = sorted(shown.order[:2])
    code = np.zeros((1, 5))
    code[0, [first, second]] = steps[3]
    sheet = manifold.draw(shown, manifold.Options(scale=1, rows=4))[-70:, -70:]
    np.testing.assert_array_equal(sheet[:16, 54:, :1], decode_to_bytes(shown.model, code)[0])
    with pytest.raises(UserError, match="two latent dims"):
        manifold.draw(subject(make_model(latent_dims=1)), manifold.Options())


@pytest.mark.parametrize("dims", slow_but(2, (2, 6)))
def test_latents_have_a_dot_for_every_image_in_the_colour_of_its_class(dims):
    shown = subject(make_model(latent_dims=dims), count=60)
    shown.latents = (np.random.default_rng(0).normal(size=(60, dims)), np.zeros((60, dims)))
    chart = latents.draw(shown)
    assert chart.shape[0] == 1440 and chart.shape[2] == 3
    plane = chart[84:1328, 132:1376]  # within the axes
    for label in range(10):
        half = (np.array(charts.COLOURS[label]) + 255) / 2  # transparent, on paper
        near = (np.abs(plane - half).max(axis=2) < 8).sum()
        if label < 9:  # black is that of the circles, too
            count = (shown.test.labels == label).sum()  # a name covers the only one of its class
            assert (near > 2) >= (count > 2) and (near == 0 or count), label
    legend = chart[84:1328, 1400:1440]
    assert all((np.abs(legend.astype(int) - colour).max(axis=2) < 12).any() for colour in charts.COLOURS)


def test_samples_with_temperature():
    model = make_model()

    def at(temperature):
        return samples.draw(subject(model, sampler=sampling.Sampler(model.prior, temperature)), samples.Options(1, 6))

    cold = at(0)
    assert (cold[:, :16] == cold[:, 18:34]).all()
    warm = samples.draw(subject(model), samples.Options(1, 6))
    assert (warm[:16, :16] != warm[:16, 18:34]).any()
    z = model.prior.sample(6, mx.random.key(0))
    expected = images.sheet(images.to_bytes(inference.decode(model, 0.5 * z)), scale=1)
    np.testing.assert_array_equal(at(0.5), expected)


def test_samples_of_classes_are_rows_with_their_names(monkeypatch):
    shown = []
    monkeypatch.setattr(samples, "page", lambda rows, left, **_: shown.append((rows, left)))
    pets = Subject(Checkpoint(make_model(num_classes=3), class_names=("cat", "dog", "owl")), None)
    samples.draw(pets, samples.Options(None, 12))
    samples.draw(pets, samples.Options(None, 80))
    (rows, left), (more, names) = shown
    assert rows.shape == (3, 4, 16, 16, 1) and left == ["cat", "dog", "owl"]
    assert (rows[0] != rows[1]).any()
    assert more.shape == (6, 12, 16, 16, 1) and names == ["cat", "", "dog", "", "owl", ""]


def test_reconstructions_show_what_differs(monkeypatch):
    """Three rows a block: originals, reconstructions, and the error over all channels, brighter where it is larger."""
    shown, page_of = [], comparison.page
    seen = lambda rows, left, **more: shown.append((rows, left, more["block"])) or page_of(rows, left, **more)  # noqa: E731
    monkeypatch.setattr(comparison, "page", seen)
    model = make_model(channels=3)
    comparison.draw(subject(model), comparison.Options(None, 8), columns=5)
    ((rows, left, block),) = shown
    assert left == ["original", "reconstruction", "error"] * 2 and block == 3
    rows = np.array(rows).astype(int)
    assert rows.shape == (6, 5, 16, 16, 3) and (rows[3:, 3:] == 255).all()  # places without an image are paper
    for original, reconstruction, error in (rows[:3, :], rows[3:, :3]):
        difference = np.abs(original - reconstruction).mean(axis=3).ravel()
        bright = (error @ [0.3, 0.6, 0.1]).ravel()[np.argsort(difference)]
        assert bright[:50].mean() < bright[len(bright) // 2] < bright[-50:].mean()


def test_a_page_has_room_between_its_blocks():
    rows = np.zeros((6, 2, 16, 16, 1), np.uint8)
    plain, blocks = (page(rows, tile=16, block=block) for block in (None, 3))
    assert blocks.shape[0] - plain.shape[0] == 24 and blocks.shape[1] == plain.shape[1]
    assert (blocks[52:78] == 255).all() and not blocks[78:94, :16].any()


LOG = [
    {"epoch": e, "loss": 90.0 / e, "reconstruction": 70.0 / e, "kl": 20.0 / e, "images_per_second": 1000.0 + e}
    | {"test": {"loss": 100.0 / e, "reconstruction": 80.0 / e, "kl": 20.0 / e}}
    for e in (1, 2, 3)
]


def write_log(folder, epochs=3, first=()):
    folder.mkdir(parents=True)
    lines = [json.dumps(entry) for entry in (*first, *LOG[:epochs])]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
def test_curves_of_several_runs(run, tmp_path):
    a = write_log(tmp_path / "a" / "vae", 3, [{"epoch": 0, "skipped": {}}])
    b = write_log(tmp_path / "b" / "vae", 1)
    out = tmp_path / "curves.png"
    assert run("visualize", "curves", "--logs", a, b / "log.jsonl", "--outfile", out)[0] == 0
    both = read_pixels(out).astype(int)
    assert run("visualize", "curves", "--logs", a, "--outfile", out)[0] == 0
    one = read_pixels(out).astype(int)
    assert both.shape[0] > one.shape[0] and both.shape[1] == one.shape[1] > 2000
    for chart, runs in ((both, (0, 1)), (one, (0,))):
        for i in (0, 1):
            seen = (np.abs(chart - curves.colour_of_run(i)).max(axis=2) < 20).sum()
            assert (seen > 50) == (i in runs)


def test_invalid_logs_are_rejected(run, fails, tmp_path, model_file):
    (tmp_path / "text").write_text("no log")
    (tmp_path / "empty").touch()
    (tmp_path / "list").write_text("[1]\n")
    (tmp_path / "half").write_text(json.dumps(LOG[0])[:-9])
    (tmp_path / "nan").write_text(json.dumps(LOG[0] | {"kl": float("nan")}))
    (tmp_path / "word").write_text(json.dumps(LOG[0] | {"reconstruction": "x"}))
    (tmp_path / "lacks").write_text(json.dumps(LOG[0] | {"test": {"loss": 1.0}}))
    (tmp_path / "deep").write_text(json.dumps(LOG[0])[:-1] + ', "a": ' + "[" * 100_000)
    (tmp_path / "huge").write_text(json.dumps(LOG[0] | {"loss": 1e308}) + "\n")
    (tmp_path / "falling").write_text(f"{json.dumps(LOG[0])}\n{json.dumps(LOG[0])}\n")
    (tmp_path / "odd").write_text(json.dumps(LOG[0] | {"epoch": 10**30}))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in (
        "text",
        "empty",
        "list",
        "half",
        "nothing",
        "nan",
        "word",
        "lacks",
        "deep",
        "huge",
        "falling",
        "odd",
        "pipe",
        "endless",
    ):
        assert name in fails("visualize", "curves", "--logs", tmp_path / name, "--outfile", tmp_path / "a.png")
    assert "no run folder" in fails("visualize", "curves", "--model", model_file, "--outfile", tmp_path / "a.png")


VARIANTS = {
    "grey": {},
    "coloured": {"channels": 3},
    "conditional": {"num_classes": 10},
    "one dimension": {"latent_dims": 1},
    "bits": {"arch": "mlp", "likelihood": "bce", "binarize": "threshold", "image_size": 9},
}


@pytest.mark.parametrize("variant", slow_but("grey", VARIANTS))
def test_the_report_is_one_page_for_every_model(run, tmp_path, variant):
    model = make_model(**VARIANTS[variant])
    path = tmp_path / "a <b>.npz"
    options = {"dataset": "synthetic", "recipe": "classic", "epochs": 3}
    options |= {name: getattr(model.config, name) for name in ("arch", "image_size", "likelihood", "binarize")}
    save(path, model, dataset="synthetic", epoch=3, options=options)
    write_log(tmp_path / "a <b>")
    flags = ["--limit", 30, "--importance_samples", 2, "--outfile", tmp_path / "r.html"]
    status, out, err = run("visualize", "report", "--model", path, *flags)
    assert (status, err) == (0, "") and "r.html" in out
    page = Page((tmp_path / "r.html").read_text())
    names = [tag for tag, _ in page.tags]
    assert "script" not in names and "link" not in names
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == (6 if variant == "one dimension" else 7)
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert np.array(picture).std() > 0
    words = " ".join(page.text)
    for word in ("a <b>.npz", "synthetic", "for 3 epochs", "ELBO", "Active units", "Linear probe", "Training"):
        assert word in words
    line = next(word for word in page.text if word.startswith("python train.py"))
    for flag in ("--dataset synthetic", "--recipe classic", "--epochs 3", f"--image_size {model.config.image_size}"):
        assert flag in line
    (frame,) = [attributes["srcdoc"] for tag, attributes in page.tags if tag == "iframe"]
    assert "a <b>" in Page(frame).scripts["about"].replace("\\u003c", "<") and str(tmp_path) not in frame


@pytest.mark.parametrize("variant", slow_but("grey", VARIANTS))
@pytest.mark.parametrize("kind", ["traversal", "interpolate", "latents", "samples", "reconstructions", "manifold"])
def test_every_kind_for_every_model(run, tmp_path, kind, variant):
    save(tmp_path / "a.npz", make_model(**VARIANTS[variant]), dataset="synthetic")
    flags = ["--outfile", tmp_path / "out" / "ä b.png", *(["--limit", 30] if kind != "samples" else [])]
    status, _, err = run("visualize", kind, "--model", tmp_path / "a.npz", *flags)
    if (kind, variant) == ("manifold", "one dimension"):
        assert status == 2 and "two latent dims" in err
    else:
        assert (status, err) == (0, "") and read_pixels(tmp_path / "out" / "ä b.png").std() > 0


def test_classes_whose_names_are_numbers_are_not_mistaken():
    model = make_model(num_classes=3)
    shown = Subject(Checkpoint(model, class_names=("1", "10", "2")), None)
    codes = np.zeros((1, 3))
    for label in range(3):  # a label of the data is an index, what is typed a name
        np.testing.assert_array_equal(shown.decode(codes, label), decode_to_bytes(model, codes, np.array([label])))
    shown = Subject(Checkpoint(model, class_names=("1", "10", "2")), None, label="10")
    np.testing.assert_array_equal(shown.decode(codes), decode_to_bytes(model, codes, np.array([1])))


def test_an_image_is_shown_as_it_was_encoded():
    model = make_model(binarize="dynamic")
    shown = subject(model)
    x, _ = next(inference.reconstruct(model, shown.test))
    for number in (0, 7):
        np.testing.assert_array_equal(shown.image(number)[0], images.to_bytes(x)[number])


@pytest.mark.slow
def test_circles_are_around_the_middle_of_the_prior():
    shown = subject(make_model(latent_dims=3), count=60)
    means = np.random.default_rng(0).normal(0, [1, 0.8, 0.1], (60, 3))
    ring = []
    for shift in (0, 1):
        shown.latents = (means + [shift, 0, 0], np.zeros((60, 3)))
        chart = latents.draw(shown).astype(int)
        ring.append(np.argwhere((chart[84:1328, 140:1376] < 60).all(axis=2)).mean(axis=0)[1])
    assert abs(ring[1] - ring[0]) > 40  # they stay, where the codes have gone


def test_letters_that_no_font_has(monkeypatch):
    monkeypatch.setattr(fonts, "SYSTEM", ())
    letters = lambda words: "".join(text for _, text in fonts.lettering(words, 20))  # noqa: E731
    assert letters("abc XYZ 0-9 (+)") == "abc XYZ 0-9 (+)" and letters("β −1") == "beta -1"
    assert letters("Größe, naïve") in ("Grosse, naive", "Größe, naïve")
    assert letters("日本") in ("??", "日本")


def test_letters_that_a_font_of_the_system_has():
    ((face, words),) = fonts.lettering("данные", 20)
    if face is fonts.font(None, 20):
        pytest.skip("needs a font of the system with Cyrillic letters, such as DejaVu")
    assert words == "данные" and bytes(face.getmask("д")) != bytes(face.getmask("\U0010ffff"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["traversal", "interpolate"])
def test_animations(run, model_file, tmp_path, kind):
    flags = ["--model", model_file, "--limit", 30, "--outfile", tmp_path / "a.gif"]
    assert run("visualize", kind, *flags)[0] == 0
    shown = []  # every 40 milliseconds; equal frames are stored once, and shown for longer
    with Image.open(tmp_path / "a.gif") as made:
        assert made.info["loop"] == 0
        for i in range(made.n_frames):
            made.seek(i)
            pixels = np.array(made.convert("RGB"))[::4, ::4].astype(int)  # a sixteenth: frames are large
            shown += [pixels] * (made.info["duration"] // 40)
    rest, step = 600 // 40, 80 // 40
    assert len(shown) == 2 * rest + 46 * step and (shown[0] != shown[rest + 23 * step]).any()
    for i in range(rest):  # it rests at its ends
        assert (shown[i] == shown[0]).all() and (shown[rest + 23 * step + i] == shown[rest + 23 * step]).all()
    for i in range(23 * step):  # there and back
        assert np.abs(shown[rest + i] - shown[-1 - i]).max() <= 60


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 4])
def test_interpolations_of_few_pairs_fit_a_frame(run, model_file, tmp_path, rows):
    flags = ["--model", model_file, "--dataset", "synthetic", "--limit", 40, "--rows", rows]
    assert run("visualize", "interpolate", *flags, "--outfile", tmp_path / "a.gif")[0] == 0
    with Image.open(tmp_path / "a.gif") as made:
        assert made.width >= 1000 and made.height < 1.5 * made.width


@pytest.mark.slow
def test_a_film_of_a_training(run, fails, tmp_path):
    flags = "--dataset synthetic --limit 100 --epochs 3 --image_size 16 --max_filters 8".split()
    run("train", *flags, "--outdir", tmp_path)
    folder = tmp_path / "vae_synthetic_filters_0008_dims_0008"
    out = ["--outfile", tmp_path / "a.gif"]
    assert run("visualize", "training", "--logs", folder, *out)[0] == 0
    with Image.open(tmp_path / "a.gif") as made:
        assert made.n_frames == 4 and made.width >= 1000  # the last one is drawn from the fitted prior
        first = np.array(made.convert("L")).astype(int)
        made.seek(3)
        assert made.info["duration"] == film.HOLD
        assert (np.array(made.convert("L")) != first).any()
    with Image.open(folder / "epoch_0001_samples.png") as sheet:
        assert "after epoch 1: synthetic digits" in sheet.text["Title"]
        shown = images.enlarged(np.array(sheet)[:60, :60, None], 2)[:, :, 0]
    area = first[120 : 120 + 300, 36 : 36 + 120]
    assert min(np.abs(area[y : y + 120] - shown).mean() for y in range(180)) < 8  # in a palette of 256 colours
    assert run("visualize", "training", "--model", f"{folder}.npz", *out)[0] == 0
    (tmp_path / "empty").mkdir()
    assert "no sheets" in fails("visualize", "training", "--logs", tmp_path / "empty", *out)
    assert "one run" in fails("visualize", "training", "--logs", folder, folder, *out)
    assert ".gif" in fails("visualize", "training", "--logs", folder, "--outfile", tmp_path / "a.png")
    (folder / "epoch_0002_samples.png").write_bytes(b"broken")
    assert "epoch_0002_samples.png" in fails("visualize", "training", "--logs", folder, *out)


def test_long_trainings_show_most_of_their_beginning():
    assert film.chosen([1, 2, 3]) == [1, 2, 3]
    few = film.chosen(list(range(1, 501)))
    assert len(few) <= film.MOST and few[0] == 1 and few[-1] == 500 and few == sorted(set(few))
    assert few[10] < 500 * 10 / 60


@pytest.mark.slow
def test_options_that_do_not_apply_are_rejected(fails, run, model_file, tmp_path):
    out = ["--outfile", tmp_path / "a.png"]
    few = ["--model", model_file, "--limit", 9, *out]
    assert "is not one of traversal" in fails("visualize", "everything")
    assert "did you mean traversal?" in fails("visualize", "traversl")
    assert "ends in .png" in fails("visualize", "samples", "--model", model_file, "--outfile", tmp_path / "a.txt")
    assert "ends in .html" in fails("visualize", "report", "--model", model_file, "--outfile", tmp_path / "a.png")
    assert "no test image 99" in fails("visualize", "traversal", *few, "--image", 99)
    assert "not class-conditional" in fails("visualize", "samples", "--model", model_file, "--label", 3, *out)
    assert "not class-conditional" in fails("visualize", "traversal", *few, "--label", 3)
    fails("visualize", "manifold", "--model", model_file, "--rows", 10**6, *out)
    fails("visualize", "samples", "--model", model_file, "--nsamples", 10**7, *out)
    fails("visualize", "samples", "--model", model_file, "--nsamples", 3 * 10**9, *out)
    fails("visualize", "interpolate", "--model", model_file, "--limit", 1, *out)
    fails("visualize", "latents", "--model", model_file, "--limit", 1, *out)
    gif = ["--outfile", tmp_path / "a.gif"]
    assert "--rows" in fails("visualize", "interpolate", *few, "--limit", 900, "--rows", 300, *gif)
    assert "is a folder" in fails("visualize", "samples", "--model", model_file, "--outfile", tmp_path)
    save(tmp_path / "gone.npz", make_model(), dataset=f"folder:{tmp_path / 'gone'}")
    assert "trained on a folder gone" in fails("visualize", "latents", "--model", tmp_path / "gone.npz", *out)
    assert run("visualize", "samples", "--model", tmp_path / "gone.npz", *out)[0] == 0  # needs no data
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.parametrize(
    "flags, kind, owner",
    [
        ("--image 3", "samples", "traversal or report"),
        ("--rows 3", "samples", "traversal, interpolate or manifold"),
        ("--logs x", "samples", "curves or training"),
        ("--dataset mnist", "samples", "explorer or report"),
        ("--limit 3", "curves", "explorer or report"),
        ("--image 3", "interpolate", "traversal or report"),
        ("--seed 3", "traversal", "samples, nearest, compare or report"),
        ("--nsamples 3", "latents", "samples, nearest, reconstructions or explorer"),
        ("--temperature 2", "reconstructions", "samples, nearest, compare or report"),
        ("--importance_samples 3", "manifold", "report"),
        ("--rows 3", "report", "traversal, interpolate or manifold"),
        ("--label 3", "latents", "samples, nearest, compare or report"),
        ("--half", "report", "explorer"),
    ],
)
def test_a_flag_of_another_kind_says_whose_it_is(fails, model_file, kind, flags, owner):
    line = fails("visualize", kind, "--model", model_file, *flags.split())
    assert f"{flags.split()[0]} is an option of " in line and f"{owner} — leave it out" in line


def test_pairs_are_not_counted_where_images_are_named(fails, model_file):
    flags = ["--model", model_file, "--images", 1, 2, "--rows", 3]
    assert "--rows has no effect with --images" in fails("visualize", "interpolate", *flags)


def test_kinds_are_listed_a_line_each(run):
    for flags in ((), ("-h",)):
        status, out, err = run("visualize", *flags)
        assert (status, err) == (0, "") and "Flags of one KIND: python visualize.py KIND -h" in out
        for name, kind in visualize.kinds().items():
            assert re.search(rf"^  {name} +{re.escape(kind.words)}$", out, re.M)


@pytest.mark.parametrize("kind", visualize.kinds())
def test_the_help_of_a_kind_shows_its_flags_alone(run, kind):
    status, out, _ = run("visualize", kind, "-h")
    assert status == 0 and out.startswith(f"usage: python visualize.py {kind} ") and "[options]\n" in out
    listed = re.findall(r"^  (--\w+)", out, re.M)
    assert set(listed) == {
        "--help",
        "--version",
        *(f"--{name}" for name, _, known in options_of(visualize.kinds()[kind].Options) if not known.positional),
    }
    assert ("--dataset" in listed) == (kind not in ("samples", "curves", "training"))


def test_a_report_notices_wrong_flags_before_it_computes(fails, model_file, monkeypatch, tmp_path):
    from toolkit.metrics import measure

    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("computed first"))
    flags = ["--model", model_file, "--limit", 5, "--outfile", tmp_path / "r.html"]
    assert "no test image 7" in fails("visualize", "report", *flags, "--image", 7)
    assert "not class-conditional" in fails("visualize", "report", *flags, "--label", 7)


def test_a_report_shows_what_there_is(run, tmp_path):
    """One test image makes no interpolation and no map; the rest is there."""
    save(tmp_path / "a.npz", make_model(), dataset="synthetic")
    flags = ["--limit", 1, "--importance_samples", 0, "--outfile", tmp_path / "r.html"]
    assert run("visualize", "report", "--model", tmp_path / "a.npz", *flags)[0] == 0
    words = " ".join(Page((tmp_path / "r.html").read_text()).text)
    assert "Reconstructions" in words and "Interpolation" not in words and "1 test image." in words


@pytest.mark.parametrize("kind", slow_but("samples", ("traversal", "manifold", "samples")))
def test_all_classes(run, fails, model_file, tmp_path, kind):
    names = ["cat", "dog", "1"]
    save(tmp_path / "c.npz", make_model(num_classes=10), dataset="synthetic")
    data = ["--limit", 60] if kind != "samples" else []
    flags = ["--model", tmp_path / "c.npz", *data, "--outfile", tmp_path / "a.png", "--label"]
    assert run("visualize", kind, *flags, "all")[0] == 0
    every = read_pixels(tmp_path / "a.png")
    assert run("visualize", kind, *flags, "3")[0] == 0
    assert every.shape[0] > read_pixels(tmp_path / "a.png").shape[0] or kind in ("samples", "interpolate")
    line = fails("visualize", kind, "--model", model_file, *data, "--outfile", tmp_path / "a.png", "--label", "all")
    assert "not class-conditional" in line
    assert sampling.class_number(Checkpoint(make_model(num_classes=3), class_names=names), "1") == 2


def test_the_test_curve_is_dashed_along_its_whole_line(tmp_path):
    """Also where its pieces are shorter than a dash; and the first epochs do not flatten the rest."""
    losses = [30_000, 9_000, *(60 + 20 / e for e in range(1, 300))]
    terms = [{"loss": loss, "reconstruction": loss, "kl": -loss} for loss in losses]
    entries = [{"epoch": i + 1, "images_per_second": 1.0, **t, "test": t} for i, t in enumerate(terms)]
    chart = curves.Canvas(1000, 400)
    axes = charts.Axes(chart, (0, 0, 900, 300), (1, 301), curves.robust(losses))
    assert axes.y_range[1] < 100
    chart.page.paste(charts.PAPER, (0, 0, *chart.page.size))
    curves.plot(chart, axes, [(e["epoch"], e["loss"]) for e in entries], (0, 0, 255), curves.DASH)
    inked = (chart.finished()[:600] < 128).any(axis=2).any(axis=0)[100:1790]
    assert 0.35 < inked.mean() < 0.65 and 60 < (np.diff(inked.astype(int)) == 1).sum() < 90
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert curves.draw([tmp_path]).std() > 0  # negative values too


@pytest.mark.slow
def test_runs_are_named_by_the_options_in_which_they_differ(tmp_path, run):
    for beta in (1, 4):
        flags = "--dataset synthetic --limit 20 --epochs 1 --image_size 8 --max_filters 4 --latent_dims 2"
        assert run("train", *flags.split(), "--beta", beta, "--outdir", tmp_path / str(beta))[0] == 0
    name = "vae_synthetic_filters_0004_dims_0002"
    both = [tmp_path / "1" / name, tmp_path / "4" / name]
    assert curves.names(both) == ["β 1", "β 4"]
    assert curves.names(both[:1]) == ["synthetic digits, 2 latent dimensions, β 1"]
    assert curves.names([tmp_path / "1", tmp_path / "4"]) == ["1", "4"]
    assert curves.names([both[0], both[0]]) == [f"1/{name}"] * 2
    titles = []
    for folder in both:
        flags = ["--limit", 20, "--importance_samples", 0, "--outfile", tmp_path / "r.html"]
        assert run("visualize", "report", "--model", f"{folder}.npz", *flags)[0] == 0
        titles.append(re.findall("<h1>(.*)</h1>", (tmp_path / "r.html").read_text())[0])
    assert titles == [f"VAE of synthetic digits, 2 latent dimensions, β {beta}" for beta in (1, 4)]


def test_names_in_pictures_are_short_and_harmless(run, tmp_path, small_memory):
    """A name of 10,000 characters, and marks that turn the direction of words."""
    names = ["x" * 10_000, "\u202ea\u2029b", "\ud800 c\nd"]
    assert [len(fonts.shortened(name)) <= 40 for name in names] == [True] * 3
    assert fonts.shortened("a\nb\u202e") == "a b\\u202e"
    shown = Subject(Checkpoint(make_model(num_classes=3), class_names=names), None)
    page = samples.draw(shown, samples.Options(1, 6))
    assert page.shape[1] < 1000
    images.png(page, {"Title": names[2]})


@pytest.mark.parametrize("kind", ["traversal", "interpolate", "latents", "reconstructions", "samples"])
def test_pages_have_titles_and_a_record(run, model_file, tmp_path, kind):
    data = ["--limit", 20] if kind != "samples" else []
    assert run("visualize", kind, "--model", model_file, *data, "--outfile", tmp_path / "a.png")[0] == 0
    with Image.open(tmp_path / "a.png") as made:
        text, page = made.text, np.array(made.convert("L"))
    assert text["Title"].endswith(": synthetic digits, 3 latent dimensions") and text["Description"]
    assert text["Command"] == " ".join(["python visualize.py", kind, "--model", model_file.name, *map(str, data)])
    assert (page[:15] == 255).all() and (page[20:90] < 128).any()  # a margin, and the title


@pytest.mark.slow
def test_films_are_wide_and_bounded(run, fails, tmp_path):
    for name, side in (("small", 16), ("large", 1800), ("huge", 8192)):
        (tmp_path / name).mkdir()
        for epoch in (1, 2):
            Image.new("L", (side, side), 99 * epoch).save(tmp_path / name / f"epoch_{epoch:04d}_samples.png")
        flags = ["training", "--logs", tmp_path / name, "--outfile", tmp_path / f"{name}.gif"]
        if name == "huge":
            assert "8192×8192" in fails("visualize", *flags)
            continue
        assert run("visualize", *flags)[0] == 0
        with Image.open(tmp_path / f"{name}.gif") as made:
            assert made.n_frames == 2 and 1000 <= made.width < 1100
    frames = film.animate([tmp_path / "large"])
    assert frames.draw(0).shape[:2] == frames.draw(1).shape[:2]


# Several models


@pytest.fixture
def several(tmp_path):
    """A function that saves models with options, and returns their files."""

    def made(*changes):
        paths = []
        for i, (config, options) in enumerate(changes):
            model, path = make_model(**config), tmp_path / f"{i}.npz"
            own = {"dataset": "synthetic", "latent_dims": model.config.latent_dims, "beta": 1.0} | options
            save(path, model, dataset=own["dataset"], options=own)
            paths.append(path)
        return paths

    return made


def test_models_beside_each_other_are_named_by_what_differs(run, several, tmp_path):
    paths, out = several(({}, {"beta": 1.0}), ({}, {"beta": 4.0})), tmp_path / "c.html"
    flags = ["--dataset", "synthetic", "--limit", 30, "--outfile", out]
    status, _, err = run("visualize", "compare", *paths, *flags)
    assert (status, err) == (0, "")
    found = Page(out.read_text())
    words = " ".join(found.text)
    for section in (
        "Reconstructions",
        "Samples",
        "Latent traversal",
        "KL by dimension",
        "Rate and distortion",
        "Metrics",
    ):
        assert section in words
    assert "Comparison: β 1 and β 4" in words and ".npz" not in words
    assert [tag for tag, _ in found.tags].count("img") == 5
    same = several(({}, {}), ({}, {}))
    assert run("visualize", "compare", *same, *flags, "--overwrite")[0] == 0
    assert "Comparison: 0.npz and 1.npz" in " ".join(Page(out.read_text()).text)


def test_what_cannot_be_compared_is_left_out_with_its_reason(run, several, tmp_path):
    changes = ({"image_size": 16}, {}), ({"image_size": 24, "channels": 3, "latent_dims": 2}, {"dataset": "mnist"})
    paths, out = several(*changes), tmp_path / "c.html"
    data = ["--limit", 30]
    status, _, err = run(
        "visualize", "compare", *paths, *data, "--dataset", "synthetic", "--outfile", out, "--overwrite"
    )
    assert status == 0, err
    words = " ".join(Page(out.read_text()).text)
    assert "Losses at different image sizes are not comparable" in words and "3 dims and 2 dims" in words


def test_models_of_different_data(tmp_path, monkeypatch):
    shown = []
    for name, dataset in (("a", "synthetic"), ("b", "mnist")):
        data = datasets.load("synthetic", "test", None, 30)
        kept = Checkpoint(make_model(), dataset, options={"dataset": dataset})
        shown.append(Subject(kept, lambda split, data=data: data, name=name, dataset=dataset))
    found = {section.title: section for section in beside.sections(shown)}
    assert found["Reconstructions"].picture is None and "different data" in found["Reconstructions"].caption
    assert found["Samples"].picture is not None and beside.names(shown) == ["synthetic digits", "MNIST"]


def test_many_models_are_points_and_rows(run, several, tmp_path):
    paths, out = several(*(({}, {"beta": float(i)}) for i in range(1, 8))), tmp_path / "c.html"
    assert run("visualize", "compare", *paths, "--limit", 20, "--outfile", out)[0] == 0
    found = Page(out.read_text())
    assert [tag for tag, _ in found.tags].count("img") == 1 and "β 7" in " ".join(found.text)


def test_a_sheet_of_several_models(run, fails, several, tmp_path):
    paths, out = several(({}, {"beta": 1.0}), ({"num_classes": 10}, {"beta": 2.0})), tmp_path / "c.png"
    assert run("visualize", "compare", *paths, "--limit", 20, "--outfile", out)[0] == 0
    with Image.open(out) as picture:
        assert picture.text["Title"] == "Comparison: β 1 and β 2"
        assert picture.text["Command"].startswith("python visualize.py compare 0.npz 1.npz")
    assert "two or more models" in fails("visualize", "compare", paths[0], "--outfile", tmp_path / "x.png")
    assert "--model has no effect" in fails("visualize", "compare", *paths, "--model", paths[0], "--outfile", out)
    assert "no such file or model" in fails("visualize", "compare", paths[0], "nope", "--outfile", tmp_path / "x.png")


def test_names_of_models_are_no_code(run, tmp_path):
    paths = []
    for name in ('</script><b>".npz', "'&<i>.npz"):
        path = tmp_path / name.replace("/", "∕")
        save(path, make_model(), dataset="synthetic")
        paths.append(path)
    out = tmp_path / "c.html"
    assert run("visualize", "compare", *paths, "--limit", 20, "--outfile", out)[0] == 0
    assert not {"script", "b", "i"} & {tag for tag, _ in Page(out.read_text()).tags}
