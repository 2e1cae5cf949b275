"""The explorer: the model in JavaScript against MLX's, in Node and in a browser, and what the page holds and escapes."""

import json
import re
import shutil
import subprocess

import mlx.core as mx
import numpy as np
import pytest
from conftest import make_model

from toolkit.formats import checkpoint
from toolkit.model.likelihoods import LIKELIHOODS
from toolkit.pictures import explorer, scenes
from vae import ARCHITECTURES

VARIANTS = {
    **{f"{name}, grey": {"arch": name} for name in ARCHITECTURES},
    **{f"{name}, colour, classes": {"arch": name, "channels": 3, "classes": 3} for name in ARCHITECTURES},
    **{f"likelihood {name}": {"likelihood": name} for name in LIKELIHOODS},
    "logistic of mlp": {"arch": "mlp", "likelihood": "logistic"},
    "odd widths": {"max_filters": 20, "latent_dims": 5, "image_size": 24},
    "one pixel": {"image_size": 8},
    "deep": {"arch": "resnet", "depth": 1, "image_size": 12, "max_filters": 6},
}

RUN = """
const fs = require("fs"), vm = require("vm");
const scripts = %s;
const source = scripts.map((name) => fs.readFileSync(name, "utf8")).join("\\n");
vm.runInThisContext(source + "; globalThis.parts = { unpack, Model };");
(async () => {
  const answers = {};
  for (const [name, { about, block, image, z, label }] of Object.entries(JSON.parse(fs.readFileSync(0, "utf8")))) {
    const model = new parts.Model(about, await parts.unpack(block, about.arrays));
    model.encode(image, label), model.decode(z, label);
    const [mean, logVariance] = [[...model.encode(image, label)], [...model.logVariance]];
    answers[name] = { mean, logVariance, pixels: [...model.decode(z, label)] };
  }
  console.log(JSON.stringify(answers));
})();
"""


def told(model, half=False):
    """What a page is told of a model without data."""
    page = explorer.make("a", scenes.Subject(model, {}, None), "synthetic", half=half).page
    return {"about": json.loads(part(page, "about")), "block": part(page, "block")}


def part(page, name):
    return re.search(rf'<script type="[\w/]+" id="{name}">(.*?)</script>', page, re.S)[1]


def question(model):
    """Random inputs, and what the model makes of them."""
    random, config = np.random.default_rng(0), model.config
    image = random.random((1, config.image_size, config.image_size, config.channels)).astype(np.float32)
    z = random.normal(0, 2, (1, config.latent_dims)).astype(np.float32)
    label = config.classes - 1 if config.classes else 0
    labels = mx.array([label]) if config.classes else None
    mean, log_variance = model.posterior(mx.array(image), labels)
    pixels = model.decode(mx.array(z), labels)
    asked = {"image": image.ravel().tolist(), "z": z.ravel().tolist(), "label": label}
    return asked, {"mean": np.array(mean), "logVariance": np.array(log_variance), "pixels": np.array(pixels)}


def in_node(questions):
    node = shutil.which("node")
    if not node:
        pytest.skip("needs Node.js, to run the page's model")
    script = RUN % json.dumps([str(explorer.FOLDER / name) for name in explorer.SCRIPTS[:3]])
    asked = json.dumps(questions)
    done = subprocess.run([node, "-e", script], input=asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def differences(answer, expected):
    return {name: np.abs(np.array(answer[name]) - array.ravel()).max() for name, array in expected.items()}


def test_the_model_in_javascript_is_that_of_mlx():
    models = {name: make_model(**config) for name, config in VARIANTS.items()}
    asked, expected = {}, {}
    for name, model in models.items():
        model.encoder.proj_log_var.bias = mx.array(np.linspace(-1, 3, model.config.latent_dims))  # some are damped
        asked[name], expected[name] = question(model)
        asked[name] |= told(model)
    answers = in_node(asked)
    for name in VARIANTS:
        assert expected[name]["pixels"].std() > 0.005, name
        for what, difference in differences(answers[name], expected[name]).items():
            assert difference < 1e-4, (name, what, difference)
