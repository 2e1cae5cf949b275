"""Each likelihood against NumPy in float64, and what training, checkpoints and metrics make of a new one."""

import math

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from conftest import make_model

import vae
from toolkit import datasets
from toolkit.formats import checkpoint
from toolkit.metrics import bounds, measure, words
from toolkit.model import likelihoods
from toolkit.model.likelihoods import LIKELIHOODS

SIZE = 8


def inputs(seed=0, count=4):
    random = np.random.default_rng(seed)
    x, output = random.random((count, SIZE, SIZE, 1)), random.normal(0, 2, (count, SIZE, SIZE, 1))
    return x, output, *(mx.array(a.astype(np.float32)) for a in (x, output))


def made(name, **config):
    return LIKELIHOODS[name](vae.ModelConfig(image_size=SIZE, likelihood=name, **config))


def gaussian(x, mean, variance):
    """log N(x; mean, variance), summed over the pixels."""
    return (-0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance)).sum(axis=(1, 2, 3))


@pytest.mark.parametrize("log_variance", [-5.0, -2.0, math.log(0.5), 1.0])
def test_the_densities_are_gaussians(form, log_variance):
    x, output, *arrays = inputs()
    pixels = 1 / (1 + np.exp(-output))
    fixed, learned = made("mse"), made("normal")
    learned.log_variance = mx.array(log_variance)
    for likelihood, variance in ((fixed, 0.5), (learned, math.exp(log_variance))):
        log_p = likelihood.constant - np.array(likelihood.error(*arrays), np.float64)
        np.testing.assert_allclose(log_p, gaussian(x, pixels, variance), rtol=1e-5)
        np.testing.assert_allclose(np.array(likelihood.mean(arrays[1])), pixels, atol=1e-6)


def test_with_variance_one_half_both_gaussians_are_the_same(form):
    _, _, *arrays = inputs()
    learned = made("normal")
    learned.log_variance = mx.array(math.log(0.5))
    values = [likelihood.constant - np.array(likelihood.error(*arrays)) for likelihood in (made("mse"), learned)]
    np.testing.assert_allclose(*values, rtol=1e-5)


def test_gradients_of_the_learned_variance_agree_with_differences(form):
    _, _, *arrays = inputs()
    likelihood = made("normal")

    def error(log_variance):
        likelihood.log_variance = log_variance
        return likelihood.error(*arrays).sum()

    at, step = mx.array(-1.3), 1e-2
    slope = mx.grad(error)(at).item()
    assert slope == pytest.approx((error(at + step) - error(at - step)).item() / (2 * step), rel=2e-3)


def test_the_variance_is_learned_with_the_model_and_saved_with_it(tmp_path):
    """On images of pure noise nothing is left to learn but how much noise there is."""
    random = np.random.default_rng(0)
    images = random.normal(127, 0.2 * 255, (512, 16, 16, 1)).clip(0, 255).astype(np.uint8)
    model = make_model(likelihood="normal")
    optimizer = optim.Adam(learning_rate=0.02)
    optimizer.init(model.trainable_parameters())
    model.train()
    step = vae.training_step(model, optimizer)
    for i in range(300):
        step(mx.array(images[i % 4 * 128 :][:128]), None, mx.random.key(i), mx.array(1.0))
        mx.eval(model.state, optimizer.state)
    assert math.exp(model.likelihood.log_variance.item()) == pytest.approx((images / 255).var(), rel=0.1)
    checkpoint.save_model(tmp_path / "a.npz", model, {})
    loaded, _ = checkpoint.load_model(tmp_path / "a.npz")
    assert loaded.likelihood.log_variance.item() == model.likelihood.log_variance.item()
    assert "variance 0.0" in loaded.likelihood.title


def test_metrics_of_a_real_density():
    model, split = make_model(likelihood="normal"), datasets.load("synthetic", "test", None, 40)
    metrics = measure.measure(model, model.prior, split, None, 25, 0, 250, lambda *_: None)
    pixels = 16 * 16
    assert metrics["constant"] == pytest.approx(-0.5 * pixels * math.log(2 * math.pi))
    assert metrics["elbo"]["mean"] == pytest.approx(metrics["constant"] - metrics["loss"]["mean"])
    assert metrics["log_likelihood"]["mean"] > metrics["elbo"]["mean"]
    expected = 8 - metrics["elbo"]["mean"] / pixels / math.log(2)
    assert metrics["bits_per_dimension"] == pytest.approx(expected)
    shown = {name: (value, meaning) for name, value, meaning in words.rows(metrics)}
    assert "Gaussian of variance 0.13534" in shown["ELBO"][1] and "Bits per dimension" in shown


def test_bits_per_dimension_of_a_known_density():
    """A Gaussian of 10 grey levels around the truth: log2(10 √(2πe)) bits a pixel, as its entropy says."""
    likelihood = made("normal")
    likelihood.log_variance = mx.array(2 * math.log(10 / 256))
    random = np.random.default_rng(0)
    output = mx.zeros((400, SIZE, SIZE, 1))
    x = mx.array((0.5 + random.normal(0, 10 / 256, output.shape)).astype(np.float32))
    log_p = likelihood.constant - np.array(likelihood.error(x, output), np.float64).mean()
    entropy = math.log2(10 * math.sqrt(2 * math.pi * math.e))
    assert likelihood.bits_per_dimension(log_p) == pytest.approx(entropy, abs=0.02)


@pytest.mark.parametrize(
    "name, binarize, distribution, bits",
    [
        ("mse", "none", True, False),
        ("mse", "threshold", True, False),
        ("bce", "none", False, False),
        ("bce", "dynamic", True, True),
        ("normal", "none", True, True),
        ("normal", "threshold", True, False),
    ],
)
def test_what_each_is_good_for(name, binarize, distribution, bits):
    likelihood = made(name, binarize=binarize)
    assert likelihood.is_distribution == distribution
    assert (likelihood.bits_per_dimension(-100.0) is not None) == bits


def test_a_new_likelihood_is_one_class(monkeypatch, run, tmp_path):
    """The recipe of docs/contributing.md, tried: one class and its row, and every command knows it."""

    class Laplace(likelihoods.Likelihood):
        name, words, title = "laplace", "absolute error", "Laplace of scale 1"

        def error(self, x, output):
            return mx.abs(self.mean(output) - x).sum(axis=(1, 2, 3))

        @property
        def constant(self):
            return -self._pixels * math.log(2)

    monkeypatch.setitem(LIKELIHOODS, "laplace", Laplace)
    flags = "--dataset synthetic --limit 40 --epochs 1 --image_size 16 --max_filters 8 --likelihood laplace".split()
    status, out, _ = run("train", *flags, "--outdir", tmp_path)
    assert status == 0 and "absolute error + 1 KL" in out
    model = tmp_path / "vae_synthetic_filters_0008_dims_0008.npz"
    status, out, _ = run("evaluate", "--model", model, "--limit", 20, "--importance_samples", 2)
    assert status == 0 and "Laplace of scale 1" in out and "log p(x)" in out
    assert "laplace" in run("train", "-h")[1] and "(laplace)" in run("generate", "--model", model, "--info")[1]


def test_the_bound_with_one_sample_is_the_negative_loss_on_average():
    """Burda et al.: with K = 1 the importance-weighted bound is the ELBO, for every likelihood."""
    split = datasets.load("synthetic", "test", None, 30)
    for name in LIKELIHOODS:
        model = make_model(likelihood=name)
        single = np.mean(
            [bounds.importance_bound(model, model.prior, split, 1, s, 30, lambda _: None).mean() for s in range(40)]
        )
        elbos = [
            measure.measure(model, model.prior, split, None, 0, s, 30, lambda *_: None)["elbo"]["mean"]
            for s in range(40)
        ]
        assert single == pytest.approx(np.mean(elbos), rel=2e-3)
