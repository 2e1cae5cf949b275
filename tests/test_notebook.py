"""The five functions for a notebook, their documentation, and the notebook itself, which runs."""

import doctest
import json
import warnings

import mlx.core as mx
import numpy as np
import pytest
from sample_models import make_model

from toolkit import datasets, notebook
from toolkit.errors import UserError
from toolkit.formats.checkpoint import Checkpoint
from toolkit.model import inference
from toolkit.notebook import decode, encode, load, reconstruct, sample
from toolkit.shell.opening import ROOT


@pytest.fixture
def digits():
    return datasets.load("synthetic", "test", None, 5)


def test_the_documentation_runs():
    failed, tried = doctest.testmod(notebook)
    assert tried >= 8 and failed == 0


def test_the_same_as_the_commands(model, model_file, digits):
    loaded = load(model_file)
    mean, log_var = encode(loaded, digits.images)
    np.testing.assert_array_equal(mean, inference.encode(model, digits)[0])
    np.testing.assert_array_equal(log_var, inference.encode(model, digits)[1])
    np.testing.assert_array_equal(decode(loaded, mean), inference.decode(model, mean))
    (_, y), *_ = inference.reconstruct(model, digits)
    np.testing.assert_array_equal(reconstruct(loaded, digits.images), y)
    z = model.prior.sample(6, mx.random.key(3), 0.5)
    np.testing.assert_array_equal(sample(loaded, 6, temperature=0.5, seed=3), inference.decode(model, z))


def test_images_of_every_kind(model, digits):
    expected, _ = encode(Checkpoint(model), digits.images)
    grey = digits.images[..., 0]
    for images in (grey, grey / 255, grey.astype(np.float32) / 255, np.repeat(digits.images, 3, axis=3), grey.tolist()):
        if isinstance(images, list):
            images = np.array(images, np.uint8)
        np.testing.assert_allclose(encode(Checkpoint(model), images)[0], expected, atol=1e-5)
    wide = np.pad(digits.images, ((0, 0), (0, 0), (7, 7), (0, 0)), constant_values=99)
    np.testing.assert_allclose(encode(Checkpoint(model), wide)[0], expected, atol=1e-6)
    for one in (grey[0], digits.images[0], np.repeat(digits.images[0], 3, axis=2)):
        np.testing.assert_allclose(encode(Checkpoint(model), one)[0], expected[:1], atol=1e-5)
    assert decode(Checkpoint(model), expected[0]).shape == (1, 16, 16, 1)


def test_classes(digits):
    model = make_model(num_classes=10)
    np.testing.assert_array_equal(
        encode(Checkpoint(model), digits.images, digits.labels)[0], inference.encode(model, digits)[0]
    )
    z = np.zeros((3, 3))
    np.testing.assert_array_equal(decode(Checkpoint(model), z, 4), inference.decode(model, z, np.array([4, 4, 4])))
    sampled = sample(Checkpoint(model), 12)
    np.testing.assert_array_equal(sampled, sample(Checkpoint(model), 12, labels=np.arange(12) % 10))
    assert reconstruct(Checkpoint(model), digits.images, digits.labels).shape == (5, 16, 16, 1)


def test_arguments_that_do_not_fit_the_model_are_rejected(model, digits):
    conditional = make_model(num_classes=10)
    for call, said in (
        (lambda: encode(Checkpoint(model), digits.images.astype(int)), "floats from 0 to 1"),
        (lambda: encode(Checkpoint(model), np.zeros((1, 8, 8, 4))), "1 or 3 channels"),
        (lambda: encode(Checkpoint(model), np.zeros((0, 8, 8, 1))), "images: unusable"),
        (lambda: decode(Checkpoint(model), np.zeros((2, 5))), r"give \(N, 3\)"),
        (lambda: encode(Checkpoint(model), digits.images, 3), "leave labels out"),
        (lambda: encode(Checkpoint(conditional), digits.images), "from 0 to 9"),
        (lambda: encode(Checkpoint(conditional), digits.images, [1, 2]), "give one, or 5"),
        (lambda: encode(Checkpoint(conditional), digits.images, 10), "from 0 to 9"),
        (lambda: load("gone.npz"), "no such file"),
    ):
        with pytest.raises(UserError, match=said):
            call()


@pytest.mark.slow
def test_the_notebook_runs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the packages that run it
        import nbformat
        from nbclient import NotebookClient

        book = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
        kept = [[sorted(output.get("data", {})) for output in cell.get("outputs", [])] for cell in book.cells]
        place, quiet = {"metadata": {"path": str(ROOT / "docs")}}, ["--log-level=40"]
        NotebookClient(book, timeout=120, resources=place, extra_arguments=quiet).execute()
    made = [[sorted(output.get("data", {})) for output in cell.get("outputs", [])] for cell in book.cells]
    assert made == kept and sum("image/png" in str(outputs) for outputs in made) >= 4
    assert str(ROOT.parent) not in json.dumps(nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4))


def test_a_model_with_labels_in_the_encoder_only(digits):
    model = make_model(arch="bounded", num_classes=10)
    loaded = Checkpoint(model)
    z = encode(loaded, digits.images, digits.labels)[0]
    assert decode(loaded, z).shape == sample(loaded, 5).shape == (5, 16, 16, 1)
    with pytest.raises(UserError, match="give labels"):
        encode(loaded, digits.images)


@pytest.mark.parametrize(
    "call",
    [
        *(lambda m, n=n: sample(m, n) for n in (0, -1, 2.5, "3", None, True, 10**12)),
        *(lambda m, s=s: sample(m, 2, seed=s) for s in (-1, 2**64, 0.5, None)),
        *(lambda m, t=t: sample(m, 2, temperature=t) for t in (np.nan, np.inf, -1, "a", None, 1e300)),
        *(
            lambda m, z=z: decode(m, z)
            for z in (np.nan, [np.inf, 0, 0], "a", [[0], [1, 2]], np.zeros((0, 3)), 1j, None)
        ),
        *(lambda m, x=x: encode(m, x) for x in (None, "a", [], np.full((8, 8), np.nan), np.zeros((8, 8), complex))),
    ],
)
def test_arguments_out_of_range(model, call):
    with pytest.raises(UserError, match=" — give "):
        call(Checkpoint(model))


@pytest.mark.parametrize("labels", [[1.5, 2], [], "a", [[1], [2]], [None, 1], -1, np.nan])
def test_labels_out_of_range(labels):
    with pytest.raises(UserError, match=" — give "):
        sample(Checkpoint(make_model(num_classes=10)), 2, labels=labels)
