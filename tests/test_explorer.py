"""The explorer: the model in JavaScript against MLX's, in Node and in a browser; what the page holds and escapes."""

import base64
import functools
import io
import json
import shutil
import subprocess

import mlx.core as mx
import numpy as np
import pytest
from html_page import Page
from PIL import Image
from sample_models import make_flow, make_model, save

from bench import browser
from toolkit import datasets
from toolkit.architectures import ARCHITECTURES
from toolkit.formats.checkpoint import Checkpoint
from toolkit.model import inference
from toolkit.model.inputs import resize_matrix
from toolkit.model.likelihoods import LIKELIHOODS
from toolkit.model.mixture import Mixture
from toolkit.pictures import explorer
from toolkit.pictures.explorer import network
from toolkit.pictures.kinds.interpolate import between
from toolkit.pictures.subject import Subject

RUNNING = [name for name in ARCHITECTURES if name != "bounded"]
VARIANTS = {
    **{f"{name}, grey": {"arch": name} for name in RUNNING},
    **{f"{name}, colour, classes": {"arch": name, "channels": 3, "num_classes": 3} for name in RUNNING},
    **{f"likelihood {name}": {"likelihood": name} for name in LIKELIHOODS},
    "logistic of mlp": {"arch": "mlp", "likelihood": "logistic"},
    "odd widths": {"max_filters": 20, "latent_dims": 5, "image_size": 24},
    "one pixel": {"image_size": 8},
    "deep": {"arch": "resnet", "depth": 1, "image_size": 12, "max_filters": 6},
}

NASTY = ["</script><b>", '"it\'s" & <!--', "\u2028 {block}"]  # names of classes

# Both run functions that are given as text, on the scripts of the page.
IN_NODE = """
const fs = require("fs"), vm = require("vm");
const [names, question] = JSON.parse(fs.readFileSync(0, "utf8"));
vm.runInThisContext(names.map((name) => fs.readFileSync(name, "utf8")).join("\\n"));
vm.runInThisContext("globalThis.answer = async (question) => { %s }");
answer(question).then((found) => console.log(JSON.stringify(found)));
"""
ANSWERS = """
  const answers = {};
  for (const [name, { about, block, image, z, label }] of Object.entries(question)) {
    const model = new Model(about, await unpack(block, about.arrays));
    model.encode(image, 0), model.decode(z, 0); // what a first run leaves must not matter
    const [mean, logVariance] = [[...model.encode(image, label)], [...model.logVariance]];
    answers[name] = { mean, logVariance, pixels: [...model.decode(z, label)] };
  }
  return answers;
"""


def in_node(body, question):
    node = shutil.which("node")
    if not node:
        pytest.skip("needs Node.js, which runs the scripts of the page")
    names = [str(explorer.FOLDER / name) for name in explorer.SCRIPTS if name != "page.js"]
    script = IN_NODE % body.replace("\n", "\\n").replace('"', '\\"')
    asked = json.dumps([names, question])
    done = subprocess.run([node, "-e", script], input=asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def read_facts(page):
    """What a page is told of its model."""
    scripts = Page(page).scripts
    return {"about": json.loads(scripts["about"]), "block": scripts["block"]}


def page_of(model, count=None, half=False, **facts):
    """A page, without data or with so many synthetic digits."""
    load = count and (lambda split: datasets.load("synthetic", split, None, count))
    return explorer.make("a model", Subject(Checkpoint(model, **facts), load, dataset="synthetic"), half=half).page


@functools.cache
def questions():
    """Random inputs for every variant, and what MLX makes of them."""
    asked, expected, random = {}, {}, np.random.default_rng(0)
    for name, values in VARIANTS.items():
        model = make_model(**values)
        config, labels = model.config, None
        model.encoder.proj_log_var.bias = mx.array(np.linspace(-1, 3, config.latent_dims))  # some are damped
        image = random.random((1, config.image_size, config.image_size, config.channels)).astype(np.float32)
        z = random.normal(0, 2, (1, config.latent_dims)).astype(np.float32)
        label = max(0, config.num_classes - 1)
        if config.num_classes:
            labels = mx.array([label])
        mean, log_variance = model.posterior(mx.array(image), labels)
        pixels = model.decode(mx.array(z), labels)
        asked[name] = {"image": image.ravel().tolist(), "z": z.ravel().tolist(), "label": label}
        asked[name] |= read_facts(page_of(model))
        expected[name] = {"mean": np.array(mean), "logVariance": np.array(log_variance), "pixels": np.array(pixels)}
    return asked, expected


def check(answers, expected):
    for name, arrays in expected.items():
        assert arrays["pixels"].std() > 0.005, name
        for what, array in arrays.items():
            difference = np.abs(np.array(answers[name][what]) - array.ravel()).max()
            assert difference < 1e-5, (name, what, difference)


def test_the_model_in_node_is_that_of_mlx():
    asked, expected = questions()
    check(in_node(ANSWERS, asked), expected)


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path):
    """One start of a browser: the model is that of MLX, the controls do what they say, and nothing is loaded."""
    if lacks := browser.missing():
        pytest.skip(f"needs {lacks}")
    model = make_model(num_classes=3, latent_dims=4)
    model.encoder.proj_mu.weight *= 20  # so that images differ
    model.mixture = Mixture(np.ones((3, 1)), np.full((1, 4), 0.5), np.full((1, 10), 0.1))
    data = datasets.load("synthetic", "test", None, 40)
    data = data._replace(labels=np.asarray(data.labels) % 3, class_names=tuple(NASTY))
    subject = Subject(Checkpoint(model, class_names=NASTY), lambda split: data, dataset="synthetic")
    page = tmp_path / "explorer.html"
    page.write_text(explorer.make("a </title> b", subject).page)
    with browser.Browser(900, 700) as opened:
        opened.open(page)
        asked, expected = questions()
        check(opened.run("const [question] = values;" + ANSWERS, asked), expected)
        seen = opened.run(ACTIONS)
        assert opened.said() == []
    assert "digits by class, 4 latent dimensions" in seen["title"] and seen["classes"] == NASTY and seen["loaded"] == 0
    pictures = seen["pictures"]
    assert len(set(pictures.values())) == len(pictures)  # every action shows another picture
    assert seen["moved"] == pytest.approx(1.5) and seen["order"] == subject.order.tolist()
    np.testing.assert_allclose(seen["chosen"], subject.latents[0][5], atol=1e-5)
    halfway = between(subject.latents[0][5], subject.latents[0][9], 0.5, True)
    np.testing.assert_allclose(seen["halfway"], halfway, atol=1e-4)
    assert seen["neighbours"] == 5 and seen["kept"] == 6 and seen["hovered"] == NASTY[data.labels[7]]
    assert seen["label"] == int(data.labels[9])
    with Image.open(io.BytesIO(base64.b64decode(seen["film"]))) as film:
        assert film.n_frames == 6 * 20 and film.size == (256, 256)


ACTIONS = """
const pause = (time) => new Promise((done) => setTimeout(done, time));
for (let i = 0; i < 400 && !settled; i++) await pause(5);
const pictures = {}, seen = { pictures };
const look = async (name) => {
  await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  pictures[name] = $("picture").toDataURL();
};
await look("start");
const slider = document.querySelector("#sliders input");
slider.value = 1.5;
slider.dispatchEvent(new Event("input"));
await look("slider");
seen.moved = settled[facts.order[0]];
seen.order = [...document.querySelectorAll("#sliders input")].map((one) => Number(one.id.slice(1)));
$("random").click();
await look("random");
$("classes").querySelectorAll("input")[(label + 1) % 3].click();
await look("class");
seen.classes = [...document.querySelectorAll("#classes span")].map((one) => one.textContent);
while (!$("images").children.length) await pause(5);
choose(5);
seen.chosen = [...settled];
choose(9);
await look("image");
seen.label = label;
$("way-kind").value = "yes";
$("share").value = 0.5;
$("share").dispatchEvent(new Event("input"));
seen.halfway = [...settled];
await look("halfway");
const at = (canvas, name, x, y) => {
  const box = canvas.getBoundingClientRect(), values = { pointerId: 1, clientX: box.left + x, clientY: box.top + y };
  canvas.dispatchEvent(new PointerEvent(name, values));
};
const place = map.toPixels([...arrays.places.data.slice(14, 16)]);
at($("map"), "pointermove", ...place);
await look("map");
seen.hovered = $("tip").querySelector("figcaption").textContent;
at($("map"), "pointerup", ...place);
$("drawing").setPointerCapture = () => {};
at($("drawing"), "pointerdown", 60, 20);
at($("drawing"), "pointermove", 60, 100);
await look("drawing");
seen.neighbours = $("neighbours").children.length;
$("clear").click();
const press = (key) => $("drawing").dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
[" ", "ArrowDown", "ArrowDown", " ", "ArrowRight"].forEach(press);
await look("keyed");
$("surprise").click();
seen.kept = $("kept").children.length;
const made = gif((await renderWalk()).map((one) => enlarge(one, 16, 1, 16)), 256, 1, 60);
seen.film = btoa(new Uint8Array(await made.arrayBuffer()).reduce((text, byte) => text + String.fromCharCode(byte), ""));
seen.loaded = performance.getEntriesByType("resource").filter((one) => !one.name.startsWith("blob:")).length;
seen.title = document.title;
return seen;
"""


def test_half_precision_is_what_it_says(run, model_file, tmp_path):
    """The page computes with the rounded model, whose error the command prints, and is smaller."""
    model, out = make_model(), tmp_path / "a.html"
    rounded, z = network.fold_norms(model, half=True), np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32)
    asked = {"image": [0.5] * 256, "z": z[0].tolist(), "label": 0} | read_facts(page_of(model, half=True))
    pixels = in_node(ANSWERS, {"a": asked})["a"]["pixels"]
    np.testing.assert_allclose(pixels, inference.decode(rounded, z).ravel(), atol=1e-5)
    assert np.abs(pixels - inference.decode(model, z).ravel()).max() > 1e-6
    sizes = []
    for flags in ([], ["--half"]):
        data = ["--limit", 30, "--nsamples", 1, "--outfile", out]
        status, printed, _ = run("visualize", "explorer", "--model", model_file, *data, *flags)
        assert status == 0 and ("half precision: pixels differ by at most 0." in printed) == bool(flags)
        sizes.append(len(read_facts(out.read_text())["block"]))
    assert sizes[1] < 0.8 * sizes[0]


def test_a_model_with_weights_beyond_half_precision(run, fails, tmp_path):
    model = make_model()
    model.decoder.lin1.bias = model.decoder.lin1.bias + 1e5
    save(tmp_path / "a.npz", model, dataset="synthetic")
    flags = ["--model", tmp_path / "a.npz", "--limit", 9, "--outfile", tmp_path / "a.html"]
    assert "leave --half out" in fails("visualize", "explorer", *flags, "--half")


def test_samples_in_javascript_are_those_of_the_mixture():
    """Components that a class weights, with their means and covariances."""
    model = make_model(num_classes=2, latent_dims=2)
    scales = [[0.5, 0.3, 0.2], [1, 0, 0.1], [0.2, 0, 0.2]]
    fitted = Mixture([[0.75, 0, 0.25], [0, 1, 0]], [[-3, 0], [0, 5], [3, 1]], scales)
    body = """
      const model = new Model(question.about, await unpack(question.block, question.about.arrays));
      const many = (...how) => Array.from({ length: 4000 }, () => [...model.sample(...how)]);
      return [many(0, 1, 0), many(0, 0.5, 1), many(1, 2, 0)];
    """
    first, second, normal = (np.array(one) for one in in_node(body, read_facts(page_of(model, sampler=fitted))))
    left = first[:, 0] < 0
    assert left.mean() == pytest.approx(0.75, abs=0.03)
    np.testing.assert_allclose(first[left].mean(axis=0), [-3, 0], atol=0.05)
    np.testing.assert_allclose(np.cov(first[left].T), [[0.25, 0.15], [0.15, 0.13]], atol=0.03)
    np.testing.assert_allclose(second.mean(axis=0), [0, 5], atol=0.05)
    np.testing.assert_allclose(second.std(axis=0), [0.5, 0.05], atol=0.03)
    np.testing.assert_allclose(np.cov(normal.T), 4 * np.eye(2), atol=0.4)


@pytest.mark.parametrize("classes", [0, 3])
def test_the_flow_in_javascript_is_that_of_mlx(classes):
    """A flow in training and one that was fitted afterwards."""
    model, fitted = make_model(num_classes=classes, latent_dims=5, prior="flow", flow_units=20), make_flow(5, classes)
    eps, label = np.random.default_rng(0).normal(size=(1, 5)).astype(np.float32), classes and [classes - 1]
    body = """
      const model = new Model(question.about, await unpack(question.block, question.about.arrays));
      return [0, 1].map((prior) => [...model.ofFlow(prior, question.eps, question.label)]);
    """
    page = read_facts(page_of(model, sampler=fitted))
    found = in_node(body, page | {"eps": eps[0].tolist(), "label": max(0, classes - 1)})
    for flow, z in zip((fitted, model.prior), found, strict=True):
        expected = np.array(flow.from_noise(mx.array(eps), label))[0]
        assert np.abs(expected - eps).max() > 0.05
        np.testing.assert_allclose(z, expected, atol=1e-4)


def test_a_drawing_is_centred_as_mnist_is_and_resized_as_the_model_wants():
    body = """
      const drawing = new Drawing(112, 4.5);
      drawing.line(10, 20, 30, 100), drawing.line(30, 100, 44, 96);
      const image = drawing.centre(28, 20), matrix = { shape: [16, 28], data: question };
      const empty = [...new Drawing(112, 4).centre(28, 20)];
      return { image: [...image], resized: [...resizeImage(image, matrix)], empty };
    """
    matrix = resize_matrix(28, 16)
    found = in_node(body, matrix.ravel().tolist())
    image = np.array(found["image"]).reshape(28, 28)
    rows, columns = (np.flatnonzero(image.max(axis=axis) > 0.05) for axis in (1, 0))
    assert rows[-1] - rows[0] + 1 == pytest.approx(20, abs=1) and 0.9 < image.max() < 1.001
    weights = image / image.sum()
    assert (weights.sum(axis=1) @ np.arange(28), weights.sum(axis=0) @ np.arange(28)) == pytest.approx(
        (13.5, 13.5), abs=0.3
    )
    assert columns[-1] - columns[0] < 14
    np.testing.assert_allclose(found["resized"], (matrix @ image @ matrix.T).ravel(), atol=1e-5)
    assert not any(found["empty"])


@pytest.mark.parametrize("channels", [1, 3])
def test_films_are_gif_files_that_others_read(channels):
    """Noise fills the table of LZW several times; greys are exact, colours within the steps of the palette."""
    random = np.random.default_rng(0)
    smooth = np.broadcast_to(np.linspace(0, 1, 70)[:, None, None], (70, 70, channels))
    frames = [random.random((70, 70, channels)), smooth, np.zeros((70, 70, channels))]
    body = f"""
      const blob = gif(question, 70, {channels}, 60);
      return Buffer.from(await blob.arrayBuffer()).toString("base64");
    """
    made = base64.b64decode(
        in_node("const { Buffer } = globalThis;" + body, [frame.ravel().tolist() for frame in frames])
    )
    with Image.open(io.BytesIO(made)) as film:
        assert film.n_frames == 3 and film.info["loop"] == 0
        for i, frame in enumerate(frames):
            film.seek(i)
            shown = np.asarray(film.convert("RGB")) / 255
            assert film.info["duration"] == 60
            if channels == 1:
                np.testing.assert_allclose(shown, np.repeat(frame, 3, axis=2), atol=0.51 / 255)
            else:
                assert np.abs(shown - frame).max() <= 0.2 and np.abs(shown.mean() - frame.mean()) < 0.01


def test_names_cannot_end_a_script():
    page = page_of(make_model(num_classes=3), class_names=NASTY, dataset="folder:</script><img src=x>")
    parts = Page(page)
    assert set(parts.scripts) == {"about", "block", "script"} and "img" not in [tag for tag, _ in parts.tags]
    assert json.loads(parts.scripts["about"])["classes"] == NASTY


def test_a_page_loads_nothing_and_names_no_path(run, model_file, tmp_path):
    out = tmp_path / "a.html"
    assert run("visualize", "explorer", "--model", model_file, "--limit", 30, "--nsamples", 9, "--outfile", out)[0] == 0
    page = out.read_text()
    assert not any({"src", "href"} & attributes.keys() for _, attributes in Page(page).tags)
    assert "default-src 'none'" in page and str(tmp_path) not in page and "http:" not in page and "https:" not in page
    about = read_facts(page)["about"]
    assert about["arrays"]["images"]["shape"] == [9, 28, 28, 1] and about["total"] == 30
    assert sorted(about["order"]) == [0, 1, 2] and len(about["kl"]) == 3


def test_without_data_at_hand_there_is_a_page_without_a_map(run, fails, tmp_path):
    save(tmp_path / "gone.npz", make_model(), dataset=f"folder:{tmp_path / 'gone'}")
    flags = ["--model", tmp_path / "gone.npz", "--outfile", tmp_path / "a.html"]
    status, _, err = run("visualize", "explorer", *flags)
    assert status == 0 and err.startswith("Warning: the page has no test images or map") and err.count("\n") == 1
    about = read_facts((tmp_path / "a.html").read_text())["about"]
    assert not {"images", "places", "means"} & about["arrays"].keys() and about["dataset"] == "gone"
    assert "does not exist" in fails("visualize", "explorer", *flags, "--dataset", f"folder:{tmp_path / 'gone'}")


@pytest.mark.slow
def test_an_architecture_that_no_script_can_run(fails, tmp_path):
    save(tmp_path / "a.npz", make_model(arch="bounded"), dataset="synthetic")
    line = fails("visualize", "explorer", "--model", tmp_path / "a.npz", "--outfile", tmp_path / "a.html")
    assert "cannot run a model of --arch bounded" in line


def test_a_model_that_is_too_large(fails, model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "LARGEST", 1000)
    line = fails("visualize", "explorer", "--model", model_file, "--limit", 9, "--outfile", tmp_path / "a.html")
    assert "too large for a browser" in line and not (tmp_path / "a.html").exists()
    assert "ends in .html" in fails("visualize", "explorer", "--outfile", tmp_path / "a.png")


@pytest.mark.parametrize("values", [{"channels": 3}, {"latent_dims": 1}, {"binarize": "dynamic"}], ids=str)
def test_every_kind_of_model_has_its_page(values):
    about = read_facts(page_of(make_model(**values), count=20))["about"]
    assert about["arrays"]["places"]["shape"] == [20, 2] and about["binary"] == ("binarize" in values)


def test_one_test_image_makes_no_map():
    about = read_facts(page_of(make_model(), count=1))["about"]
    assert about["arrays"]["images"]["shape"][0] == 1 and "plane" not in about["arrays"]
