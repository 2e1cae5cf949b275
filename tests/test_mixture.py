"""The fitted prior: against distributions that are known, in files, and in the commands that draw from it."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image
from sample_models import make_model, save

import vae
from toolkit import datasets
from toolkit.errors import UserError
from toolkit.formats import checkpoint
from toolkit.model import inference, mixture, priors
from toolkit.model.fitting import fit_prior
from toolkit.model.mixture import Mixture
from toolkit.model.priors import log_normal


def density(prior, z, labels=None):
    return np.array(prior.log_density(mx.array(z.astype(np.float32)), labels))


def under(model, prior):
    """The same model under another prior."""
    return vae.VAE(model.config, model.encoder, model.decoder, model.likelihood, prior).eval()


def make_mixture(classes=1, dims=2):
    """Three components a class, their covariances far from diagonal."""
    random = np.random.default_rng(4)
    count = 3 * classes
    weights = np.kron(np.eye(classes), [[0.5, 0.3, 0.2]])
    factors = np.tril(random.normal(0, 0.4, (count, dims, dims))) + 0.3 * np.eye(dims)
    factors[:, range(dims), range(dims)] = np.abs(factors[:, range(dims), range(dims)])
    rows, columns = np.tril_indices(dims)
    return Mixture(weights, random.normal(0, 2, (count, dims)), factors[:, rows, columns])


def test_density_is_that_of_the_gaussians_and_integrates_to_one():
    prior, z = make_mixture(), np.random.default_rng(0).normal(size=(7, 2))
    expected = 0
    for weight, mean, factor in zip(prior.weights[0], prior.means, prior.factors, strict=True):
        covariance, away = factor @ factor.T, z - mean
        exponent = -0.5 * (away @ np.linalg.inv(covariance) * away).sum(axis=1)
        expected += weight * np.exp(exponent) / (2 * math.pi * math.sqrt(np.linalg.det(covariance)))
    np.testing.assert_allclose(density(prior, z), np.log(expected), rtol=1e-5)
    axis = np.linspace(-12, 12, 600)
    grid = np.stack(np.meshgrid(axis, axis), axis=2).reshape(-1, 2)
    assert np.exp(density(prior, grid)).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-3)


def test_the_density_of_a_class_is_that_of_its_own_components():
    prior, z = make_mixture(3, dims=4), np.random.default_rng(0).normal(size=(5, 6, 4))
    labels = np.array([0, 1, 2, 1, 0])
    found = density(prior, z, labels)
    assert found.shape == (5, 6)
    for label in range(3):
        own = slice(3 * label, 3 * label + 3)
        alone = Mixture(np.array([[0.5, 0.3, 0.2]]), prior.means[own], prior.scales[own])
        np.testing.assert_allclose(found[labels == label], density(alone, z[labels == label]), rtol=1e-4)


def test_samples_have_the_moments_of_their_class():
    prior = make_mixture(classes=2)
    for label in (0, 1):
        own = slice(3 * label, 3 * label + 3)
        shares, means, factors = prior.weights[label, own], prior.means[own], prior.factors[own]
        z = np.array(prior.sample(60_000, mx.random.key(1), 1.0, np.full(60_000, label)))
        mean = shares @ means
        second = np.einsum(
            "k,kij->ij", shares, factors @ factors.transpose(0, 2, 1) + means[:, :, None] * means[:, None]
        )
        np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.03)
        np.testing.assert_allclose(np.cov(z.T), second - np.outer(mean, mean), atol=0.1)
        cold = np.array(prior.sample(50, mx.random.key(1), 0.0, np.full(50, label)))
        assert np.abs(cold[:, None] - means).max(axis=2).min(axis=1).max() < 1e-6
    with pytest.raises(ValueError, match="label"):
        prior.sample(3, mx.random.key(0))


@pytest.mark.slow
def test_the_fit_finds_the_mixture_that_latent_vectors_come_from():
    truth = make_mixture()
    z = np.array(truth.sample(6000, mx.random.key(0)), np.float64)
    fitted = mixture.fit(z, np.full(z.shape, -20.0), [np.arange(len(z))])
    test = np.array(truth.sample(4000, mx.random.key(9)), np.float64)
    assert (density(truth, test) - density(fitted, test)).mean() < 0.06
    again = mixture.fit(z, np.full(z.shape, -20.0), [np.arange(len(z))])
    np.testing.assert_array_equal(again.means, fitted.means)


def test_the_fit_counts_the_variance_of_every_posterior():
    """A dimension that no image uses: means of 0 with variance 1, and so the mixture's."""
    random = np.random.default_rng(0)
    means = np.stack([random.normal(0, 0.8, 3000), np.zeros(3000)], axis=1)
    log_vars = np.stack([np.full(3000, math.log(0.36)), np.zeros(3000)], axis=1)
    fitted = mixture.fit(means, log_vars, [np.arange(3000)])
    z = np.array(fitted.sample(20_000, mx.random.key(0)))
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.03)


def test_the_fit_gets_along_with_little():
    for means in (np.zeros((1, 3)), np.zeros((40, 3)), np.tile(np.eye(3), (20, 1))):
        fitted = mixture.fit(means, np.full(means.shape, -30.0), [np.arange(len(means)), np.arange(0)])
        assert np.isfinite(np.array(fitted.sample(9, mx.random.key(0), 1.0, np.arange(9) % 2))).all()


def test_a_class_with_few_images_does_not_decide_for_the_others():
    truth = make_mixture()
    z = np.array(truth.sample(3000, mx.random.key(0)), np.float64)
    groups = [np.arange(2985), np.arange(2985, 2997), np.arange(2997, 3000)]
    fitted = mixture.fit(z, np.full(z.shape, -20.0), groups)
    counts = (fitted.weights > 0).sum(axis=1)
    assert counts[0] >= 5 and counts[1] == 1
    rare = np.array(fitted.sample(500, mx.random.key(0), 1.0, np.full(500, 2)))  # of all classes, not of three points
    assert (rare.std(axis=0) > 0.5 * z.std(axis=0)).all()


def test_what_cannot_have_a_mixture_says_so(run, tmp_path, monkeypatch):
    split = datasets.load("synthetic", "train", None, 20)
    broken = make_model()
    broken.encoder.proj_mu.bias = mx.full(3, math.inf)
    with pytest.raises(UserError, match="impossible latent vectors"):
        fit_prior("mixture", broken, split)

    def impossible(*_):
        raise UserError("too few — use more")

    monkeypatch.setattr(mixture, "fit", impossible)
    training = ["--dataset", "synthetic", "--limit", 40, "--image_size", 16, "--max_filters", 8, "--epochs", 1]
    status, out, _ = run("train", *training, "--outdir", tmp_path)
    assert status == 0 and "No prior was fitted: too few\n" in out and "Model: " in out


def test_bounds_are_those_of_the_prior_that_is_asked_for():
    """A mixture that is N(0, I) gives its bounds; a narrower one others."""
    model, split = make_model(), datasets.load("synthetic", "test", None, 20)
    dims, rows = 3, np.eye(3)[np.tril_indices(3)]
    same = Mixture(np.ones((1, 1)), np.zeros((1, dims)), rows[None])
    narrow = Mixture(np.ones((1, 1)), np.zeros((1, dims)), 0.5 * rows[None])
    one, two, three = (
        inference.importance_bound(under(model, prior), split, 40, 0, 10) for prior in (model.prior, same, narrow)
    )
    np.testing.assert_allclose(one, two, atol=1e-3)
    assert (np.abs(one - three) > 1e-3).all()
    mean, log_var, z = (mx.random.normal((4, dims), key=mx.random.key(i)) for i in (0, 1, 2))
    expected = log_normal(z, mean, log_var) - model.prior.log_density(z)
    np.testing.assert_allclose(np.array(same.kl(mean, log_var, z)), np.array(expected)[:, None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("classes", [0, 2])
def test_files_keep_it_as_arrays_of_their_own(tmp_path, run, fails, ending, classes):
    model, fitted = make_model(num_classes=classes), make_mixture(max(1, classes), dims=3)
    path, plain = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    save(path, model, dataset="synthetic", sampler=fitted)
    read = checkpoint.load(path).sampler
    for name, array in fitted.arrays().items():
        np.testing.assert_allclose(getattr(read, name), array, rtol=1e-6)
    own = dict(tree_flatten(model.parameters())).keys()
    assert mx.load(str(path)).keys() == own | {"sampler.weights", "sampler.means", "sampler.scales"}
    if classes:
        assert "cannot sample from this model" in fails("convert", path, plain, "--plain")
        return
    assert run("convert", path, plain, "--plain")[0] == 0
    assert checkpoint.load(plain).sampler is None
    other = make_model()
    other.load_weights(str(plain))  # strict, as the MLX example calls it


@pytest.mark.slow
def test_many_latent_dims_are_not_too_many(tmp_path):
    model = make_model(arch="mlp", latent_dims=700, image_size=8)
    fitted = fit_prior("mixture", model, datasets.load("synthetic", "train", None, 60))
    save(tmp_path / "a.npz", model, sampler=fitted)
    read = checkpoint.load(tmp_path / "a.npz").sampler
    assert read.words == "one Gaussian" and read.sample(3, mx.random.key(0)).shape == (3, 700)


def test_a_damaged_prior_is_one_line(tmp_path, fails, model, model_file):
    path = tmp_path / "a.npz"
    for name, value in (("weights", 2.0), ("means", math.nan), ("scales", -1.0)):
        fitted = make_mixture(dims=3)
        getattr(fitted, name)[:] = value
        save(path, model, dataset="synthetic", sampler=fitted)
        assert "its fitted prior" in fails("generate", "--model", path, "--outfile", tmp_path / "a.png")
    save(path, model, dataset="synthetic", sampler=make_mixture(dims=2))
    assert "wrong shapes" in fails("generate", "--model", path, "--outfile", tmp_path / "a.png")
    assert "convert.py --fit_prior" in fails("generate", "--model", model_file, "--prior", "mixture")


@pytest.mark.parametrize("flags", [[], ["--conditional"]])
def test_a_training_ends_with_a_prior_that_samples_are_drawn_from(run, tmp_path, flags):
    training = ["--dataset", "synthetic", "--limit", 300, "--image_size", 16, "--max_filters", 8, "--epochs", 1]
    status, out, _ = run("train", *training, *flags, "--outdir", tmp_path)
    assert status == 0 and "Prior for samples: " in out
    file = tmp_path / "vae_synthetic_filters_0008_dims_0008.npz"
    assert "Fitted prior: " in run("generate", "--model", file, "--info")[1]
    sheets = {}
    for name, chosen in (("default", []), ("mixture", ["--prior", "mixture"]), ("normal", ["--prior", "normal"])):
        path = tmp_path / f"{name}.png"
        assert run("generate", "--model", file, "--nsamples", 6, "--scale", 1, *chosen, "--outfile", path)[0] == 0
        with Image.open(path) as sheet:
            sheets[name] = sheet.tobytes()
    assert sheets["default"] == sheets["mixture"] != sheets["normal"]
    losses = {}
    for prior in ("normal", "mixture"):
        json_file = tmp_path / f"{prior}.json"
        measuring = ["--limit", 50, "--importance_samples", 20, "--prior", prior, "--json", json_file]
        status, out, _ = run("evaluate", "--model", file, *measuring)
        assert status == 0 and ("prior: the standard normal" in out) == (prior == "normal")
        metrics = json.loads(json_file.read_text())
        assert ("kl_by_dimension" in metrics) == (prior == "normal")
        losses[prior] = metrics["log_likelihood"]["mean"]
        assert ("marginal_kl" in metrics) == (prior == "normal" or not flags)
    assert abs(losses["normal"] - losses["mixture"]) > 1e-3


@pytest.mark.slow
def test_the_prior_is_that_of_the_model_that_was_kept(run, tmp_path):
    """With --keep_best that of the best epoch; with --init not that of the model to begin with."""
    training = ["--dataset", "synthetic", "--limit", 300, "--image_size", 16, "--max_filters", 8]
    name = "vae_synthetic_filters_0008_dims_0008.npz"
    flags = [
        "--epochs",
        3,
        "--lr_schedule",
        "constant",
        "--lr",
        0.1,
        "--lr_warmup",
        0,
        "--keep_best",
        "--outdir",
        tmp_path / "a",
    ]
    assert run("train", *training, *flags)[0] == 0
    kept = checkpoint.load(tmp_path / "a" / name)
    assert kept.epoch < 3  # else nothing is shown
    again = fit_prior("mixture", kept.model, datasets.load("synthetic", "train", None, 300))
    np.testing.assert_allclose(kept.sampler.means, again.means, atol=1e-6)
    begin = ["--epochs", 1, "--init", tmp_path / "a" / name, "--outdir", tmp_path / "b"]
    assert run("train", *training, *begin)[0] == 0
    begun = checkpoint.load(tmp_path / "b" / name)
    expected = fit_prior("mixture", begun.model, datasets.load("synthetic", "train", None, 300))
    np.testing.assert_allclose(begun.sampler.means, expected.means, atol=1e-6)


def test_a_prior_of_training_with_another_name_has_that_name(tmp_path, run, monkeypatch):
    """As docs/contributing.md adds one."""

    class Wide(priors.StandardNormal):
        name, words = "wide", "a wide normal"

    monkeypatch.setitem(priors.PRIORS, "wide", Wide)
    model, path = make_model(prior="wide"), tmp_path / "a.npz"
    save(path, model, dataset="synthetic", sampler=make_mixture(dims=3))
    for asked, words in (("", "a wide normal"), ("wide", "a wide normal"), ("mixture", "a mixture of 3 Gaussians")):
        status, out, _ = run(
            "evaluate",
            "--model",
            path,
            "--limit",
            20,
            "--importance_samples",
            0,
            *(["--prior", asked] if asked else []),
        )
        assert status == 0 and f"prior: {words}" in out


def test_a_run_that_ended_without_a_prior_gets_it_by_resume(run, tmp_path, monkeypatch):
    training = ["--dataset", "synthetic", "--limit", 300, "--image_size", 16, "--max_filters", 8, "--epochs", 1]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mixture, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt, match="add --resume to fit it"):
        run("train", *training, "--outdir", tmp_path)
    with pytest.raises(KeyboardInterrupt, match="add --resume to fit it"):
        run("train", *training, "--resume", "--outdir", tmp_path)
    monkeypatch.undo()
    status, out, _ = run("train", *training, "--resume", "--outdir", tmp_path)
    assert status == 0 and "Prior for samples" in out
    file = tmp_path / "vae_synthetic_filters_0008_dims_0008.npz"
    assert checkpoint.load(file).epoch == 1
    file.unlink()
    status, out, _ = run("train", *training, "--resume", "--outdir", tmp_path)
    assert status == 0 and "1 epoch is done" in out


def test_older_files_get_a_prior_by_conversion(run, fails, tmp_path, mnist_folder):
    model, path = make_model(), tmp_path / "old.npz"
    save(path, model)
    data = ["--data_dir", mnist_folder.parent]
    assert "give --dataset" in fails("convert", path, tmp_path / "new.npz", "--fit_prior", *data)
    status, out, _ = run("convert", path, tmp_path / "new.npz", "--fit_prior", "--dataset", "mnist", *data)
    assert status == 0 and "fitted to 30 images of mnist" in out
    loaded = checkpoint.load(tmp_path / "new.npz")
    converted = loaded.model
    assert loaded.sampler and loaded.dataset == "mnist"
    for (key, ours), (_, theirs) in zip(
        tree_flatten(model.parameters()), tree_flatten(converted.parameters()), strict=True
    ):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs), err_msg=key)
    assert "without --fit_prior" in fails("convert", path, tmp_path / "b.npz", *data)
