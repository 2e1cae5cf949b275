"""Each likelihood against NumPy in float64, and what training, checkpoints and metrics make of a new one."""

import math

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from sample_files import read_pixels
from sample_models import make_model, save

import vae
from toolkit import datasets
from toolkit.formats import checkpoint
from toolkit.metrics import measure, words
from toolkit.model import inference, likelihoods
from toolkit.model import inputs as model_inputs
from toolkit.model.likelihoods import LIKELIHOODS
from toolkit.random import uniform

SIZE = 8


def inputs(seed=0, count=4):
    random = np.random.default_rng(seed)
    x, output = random.random((count, SIZE, SIZE, 1)), random.normal(0, 2, (count, SIZE, SIZE, 1))
    return x, output, *(mx.array(a.astype(np.float32)) for a in (x, output))


def make_likelihood(name, **config):
    return LIKELIHOODS[name](
        SIZE**2 * config.get("channels", 1), config.get("channels", 1), config.get("binarize", "none")
    )


def gaussian(x, mean, variance):
    """log N(x; mean, variance), summed over the pixels."""
    return (-0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance)).sum(axis=(1, 2, 3))


@pytest.mark.parametrize("log_variance", [-5.0, -2.0, math.log(0.5), 1.0])
def test_the_densities_are_gaussians(form, log_variance):
    x, output, *arrays = inputs()
    pixels = 1 / (1 + np.exp(-output))
    fixed, learned = make_likelihood("mse"), make_likelihood("normal")
    learned.log_variance = mx.array(log_variance)
    for likelihood, variance in ((fixed, 0.5), (learned, math.exp(log_variance))):
        log_p = likelihood.constant - np.array(likelihood.error(*arrays), np.float64)
        np.testing.assert_allclose(log_p, gaussian(x, pixels, variance), rtol=1e-5)
        np.testing.assert_allclose(np.array(likelihood.mean(arrays[1])), pixels, atol=1e-6)


def test_with_variance_one_half_both_gaussians_are_the_same(form):
    _, _, *arrays = inputs()
    learned = make_likelihood("normal")
    learned.log_variance = mx.array(math.log(0.5))
    values = [
        likelihood.constant - np.array(likelihood.error(*arrays)) for likelihood in (make_likelihood("mse"), learned)
    ]
    np.testing.assert_allclose(*values, rtol=1e-5)


def test_gradients_of_the_learned_variance_agree_with_differences(form):
    _, _, *arrays = inputs()
    likelihood = make_likelihood("normal")

    def error(log_variance):
        likelihood.log_variance = log_variance
        return likelihood.error(*arrays).sum()

    at, step = mx.array(-1.3), 1e-2
    slope = mx.grad(error)(at).item()
    assert slope == pytest.approx((error(at + step) - error(at - step)).item() / (2 * step), rel=2e-3)


@pytest.mark.slow
def test_the_variance_is_learned_with_the_model_and_saved_with_it(tmp_path):
    """On images of pure noise nothing is left to learn but how much noise there is."""
    random = np.random.default_rng(0)
    images = random.normal(127, 0.2 * 255, (512, 16, 16, 1)).clip(0, 255).astype(np.uint8)
    model = make_model(likelihood="normal")
    optimizer = optim.Adam(learning_rate=0.05)
    optimizer.init(model.trainable_parameters())
    model.train()
    step = vae.training_step(model, optimizer)
    for i in range(120):
        x = model_inputs.to_floats(mx.array(images[i % 4 * 128 :][:128]), model.config)
        step(x, None, mx.random.split(mx.random.key(i), 128), mx.array(1.0))
        mx.eval(model.state, optimizer.state)
    assert math.exp(model.likelihood.log_variance.item()) == pytest.approx((images / 255).var(), rel=0.1)
    save(tmp_path / "a.npz", model)
    loaded = checkpoint.load(tmp_path / "a.npz").model
    assert loaded.likelihood.log_variance.item() == model.likelihood.log_variance.item()
    assert "variance 0.0" in loaded.likelihood.title


def test_metrics_of_a_real_density():
    model, split = make_model(likelihood="normal"), datasets.load("synthetic", "test", None, 40)
    metrics = measure.measure(model, split, None, 25, 0, 250)
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
    likelihood = make_likelihood("normal")
    likelihood.log_variance = mx.array(2 * math.log(10 / 256))
    random = np.random.default_rng(0)
    output = mx.zeros((400, SIZE, SIZE, 1))
    x = mx.array((0.5 + random.normal(0, 10 / 256, output.shape)).astype(np.float32))
    log_p = likelihood.constant - np.array(likelihood.error(x, output), np.float64).mean()
    entropy = math.log2(10 * math.sqrt(2 * math.pi * math.e))
    assert likelihood.bits_per_dimension(log_p) == pytest.approx(entropy, abs=0.02)


def level_probabilities(middle, scale):
    """Of the 256 levels of a pixel, (256,), in float64: differences of the distribution function, in its lower tail."""
    borders = np.concatenate([[-np.inf], (np.arange(1, 256) - 0.5) / 255, [np.inf]])
    lower, upper = (borders[:-1] - middle) / scale, (borders[1:] - middle) / scale
    mirrored = lower > 0
    lower, upper = np.where(mirrored, -upper, lower), np.where(mirrored, -lower, upper)
    below, above = (1 / (1 + np.exp(-np.clip(x, -700, 700))) for x in (lower, upper))
    return above - below


@pytest.mark.parametrize("middle", [-2.0, 0.1, 5.0])  # as decoders say it; far below black, within, above white
@pytest.mark.parametrize("log_scale", [-3.0, 0.0, 4.0])
def test_the_probabilities_of_the_256_levels(form, middle, log_scale):
    likelihood = make_likelihood("logistic")
    levels = mx.arange(256).reshape(256, 1, 1, 1) / 255
    output = mx.broadcast_to(mx.array([middle, log_scale]), (256, 1, 1, 2))
    errors = np.array(likelihood.error(levels, output), np.float64)
    exact = level_probabilities(0.5 + middle / 4, math.exp(log_scale - 2))
    assert np.exp(-errors).sum() == pytest.approx(1, abs=2e-5)
    np.testing.assert_allclose(errors, -np.log(exact), rtol=1e-4, atol=1e-5)


def test_levels_of_an_image_add_up_and_grey_between_two_levels_is_rounded(form):
    likelihood, random = make_likelihood("logistic", channels=3), np.random.default_rng(0)
    levels = random.integers(0, 256, (5, SIZE, SIZE, 3))
    levels[0], levels[1] = 0, 255
    output = random.normal(0, 1.5, (5, SIZE, SIZE, 6)).astype(np.float32)
    near = (levels + random.uniform(-0.4, 0.4, levels.shape)).clip(0, 255) / 255
    errors = likelihood.error(mx.array(near.astype(np.float32)), mx.array(output))
    expected = np.zeros(5)
    for i, *where in np.ndindex(5, SIZE, SIZE, 3):
        middle, log_scale = output[i, where[0], where[1], where[2]], output[i, where[0], where[1], where[2] + 3]
        expected[i] -= np.log(level_probabilities(0.5 + middle / 4, np.exp(log_scale - 2.0))[levels[(i, *where)]])
    np.testing.assert_allclose(np.array(errors), expected, rtol=1e-4)
    assert likelihood.constant == 0 and likelihood.is_distribution
    bits = likelihood.bits_per_dimension(-expected[2])
    assert bits == pytest.approx(expected[2] / (SIZE * SIZE * 3) / math.log(2))


def test_gradients_of_the_levels_agree_with_differences(form):
    likelihood, random = make_likelihood("logistic"), np.random.default_rng(1)
    x = mx.array((random.integers(0, 256, (3, SIZE, SIZE, 1)) / 255).astype(np.float32))
    x[0] = 0.0
    output = mx.array(random.normal(0, 1, (3, SIZE, SIZE, 2)).astype(np.float32))
    towards = mx.array(random.normal(0, 1, output.shape).astype(np.float32))
    along = lambda t: likelihood.error(x, output + t * towards).sum()  # noqa: E731
    step = 1e-2
    assert mx.grad(along)(mx.array(0.0)).item() == pytest.approx(
        (along(step) - along(-step)).item() / (2 * step), rel=5e-3
    )


@pytest.mark.parametrize(
    "name, spread", [("mse", math.sqrt(0.5)), ("bce", 0.5), ("normal", math.exp(-1)), ("logistic", 0.226)]
)
def test_drawn_pixels_are_distributed_as_the_likelihood_says(name, spread):
    likelihood, count = make_likelihood(name), 400
    output = mx.zeros((count, SIZE, SIZE, likelihood.outputs))
    pixels = np.array(likelihood.draw(output, mx.random.split(mx.random.key(3), count)), np.float64)
    assert pixels.shape == (count, SIZE, SIZE, 1)
    assert pixels.mean() == pytest.approx(0.5, abs=0.02)
    assert pixels.std() == pytest.approx(spread, abs=0.01)
    if name == "logistic":
        levels = np.rint(255 * pixels).astype(int)
        found = np.bincount(levels.ravel(), minlength=256) / levels.size
        assert np.abs(found - level_probabilities(0.5, math.exp(-2))).max() < 0.004
    assert len(np.unique(pixels[:, 0, 0])) > 1 and (pixels[0] != pixels[1]).any()


def test_samples_with_the_noise_of_their_pixels(run, tmp_path):
    save(tmp_path / "a.npz", make_model(likelihood="bce"))
    flags = ["--model", tmp_path / "a.npz", "--nsamples", 4]
    sheets = []
    for name, more in (("a", []), ("b", ["--pixels", "mean"]), ("c", ["--pixels", "sample"])):
        assert run("generate", *flags, *more, "--outfile", tmp_path / f"{name}.png")[0] == 0
        sheets.append(read_pixels(tmp_path / f"{name}.png").tobytes())
    assert sheets[0] == sheets[1] != sheets[2]


@pytest.mark.parametrize(
    "name, binarize, distribution, bits",
    [
        ("mse", "none", True, False),
        ("mse", "threshold", True, False),
        ("bce", "none", False, False),
        ("bce", "dynamic", True, True),
        ("normal", "none", True, True),
        ("normal", "threshold", True, False),
        ("logistic", "none", True, True),
        ("logistic", "threshold", True, False),
    ],
)
def test_what_each_is_good_for(name, binarize, distribution, bits):
    likelihood = make_likelihood(name, binarize=binarize)
    assert likelihood.is_distribution == distribution
    assert (likelihood.bits_per_dimension(-100.0) is not None) == bits


def test_a_new_likelihood_is_one_class(monkeypatch, run, tmp_path):
    """The recipe of docs/contributing.md, tried: one class and its row, and every command knows it."""

    class Laplace(likelihoods.Likelihood):
        name, words, title = "laplace", "absolute error", "Laplace of scale 1"

        def error(self, x, output):
            return mx.abs(self.mean(output) - x).sum(axis=(1, 2, 3))

        def draw(self, output, keys):
            u = uniform(keys, output.shape) - 0.5
            return self.mean(output) - mx.sign(u) * mx.log1p(-2 * mx.abs(u))

        @property
        def constant(self):
            return -self.pixels * math.log(2)

    monkeypatch.setitem(LIKELIHOODS, "laplace", Laplace)
    flags = "--dataset synthetic --limit 40 --epochs 1 --image_size 16 --max_filters 8 --likelihood laplace".split()
    status, out, _ = run("train", *flags, "--outdir", tmp_path)
    assert status == 0 and "absolute error + 1 KL" in out
    model = tmp_path / "vae_synthetic_filters_0008_dims_0008.npz"
    status, out, _ = run("evaluate", "--model", model, "--limit", 20, "--importance_samples", 2)
    assert status == 0 and "Laplace of scale 1" in out and "log p(x)" in out
    sheet = tmp_path / "a.png"
    assert run("generate", "--model", model, "--pixels", "sample", "--nsamples", 2, "--outfile", sheet)[0] == 0
    assert "laplace" in run("train", "--help-all")[1] and "(laplace)" in run("generate", "--model", model, "--info")[1]


@pytest.mark.slow
def test_the_bound_with_one_sample_is_the_negative_loss_on_average():
    """Burda et al.: with K = 1 the importance-weighted bound is the ELBO, for every likelihood."""
    split = datasets.load("synthetic", "test", None, 30)
    for name in LIKELIHOODS:
        model = make_model(likelihood=name, image_size=8, max_filters=4)
        single = np.mean([inference.importance_bound(model, split, 1, s, 30).mean() for s in range(20)])
        elbos = [measure.measure(model, split, None, 0, s, 30)["elbo"]["mean"] for s in range(20)]
        assert single == pytest.approx(np.mean(elbos), rel=3e-3)
