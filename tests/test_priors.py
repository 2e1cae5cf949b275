"""Priors against what is known of them, and the flow in training, in files and in commands."""

import math

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image
from sample_models import arrays_of, make_flow, make_model, save

from toolkit import datasets
from toolkit.architectures import ARCHITECTURES
from toolkit.formats import checkpoint
from toolkit.model import fitting, inference
from toolkit.model.mixture import Mixture
from toolkit.model.priors import PRIORS, Flow, FlowOptions, Prior, StandardNormal
from toolkit.random import noise


def test_samples_have_the_moments_of_the_prior():
    for temperature in (1.0, 0.5):
        z = np.array(StandardNormal(3).sample(40_000, mx.random.key(0), temperature))
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.02)
        np.testing.assert_allclose(z.std(axis=0), temperature, atol=0.02)


def test_density_and_divergence_agree_with_samples():
    """KL is the mean of log q - log p over samples of q."""
    prior, random = StandardNormal(2), np.random.default_rng(0)
    mean, log_var = np.array([[0.7, -1.2]]), np.array([[-1.0, 0.4]])
    z = mean + np.exp(0.5 * log_var) * random.normal(size=(200_000, 2))
    mean, log_var, z = (mx.array(a.astype(np.float32)) for a in (mean, log_var, z))
    exact = prior.kl(mean, log_var)
    assert exact.shape == (1, 2)
    sampled = Prior.kl(prior, mx.broadcast_to(mean, z.shape), mx.broadcast_to(log_var, z.shape), z)
    assert sampled.shape == (200_000, 1) and abs(sampled.mean().item() - exact.sum().item()) < 0.02
    np.testing.assert_allclose(
        np.array(exact), [[0.5 * (0.49 + math.exp(-1)), 0.5 * (1.44 + math.exp(0.4) - 1.4)]], rtol=1e-5
    )
    assert prior.log_density(mx.zeros((1, 2))).item() == pytest.approx(-math.log(2 * math.pi))


def test_noise_of_an_image_does_not_depend_on_its_batch():
    keys = mx.array(np.arange(10).reshape(5, 2).astype(np.uint32))
    together = np.array(noise(keys, (5, 4, 3)))
    np.testing.assert_array_equal(np.array(noise(keys[2:3], (1, 4, 3)))[0], together[2])
    assert (together[0] != together[1]).any()


def test_a_model_has_a_prior_without_arrays():
    assert isinstance(make_model().prior, PRIORS["normal"]) and not make_model().prior.parameters()


# The flow


def test_a_flow_begins_as_the_standard_normal():
    flow, z = Flow(5), mx.random.normal((20, 5), key=mx.random.key(0))
    np.testing.assert_array_equal(np.array(flow.from_noise(z)), np.array(z))
    np.testing.assert_array_equal(np.array(flow.log_density(z)), np.array(StandardNormal(5).log_density(z)))


@pytest.mark.parametrize("classes", [0, 3])
def test_the_density_of_a_flow_is_that_of_its_samples(classes):
    """By the change of variables: log N(u) minus the log-determinant of dz/du, from differences in float64."""
    dims, step = 4, 1e-2
    flow, label = make_flow(dims, classes), [classes - 1] if classes else None
    u = np.random.default_rng(0).normal(size=(1, dims))

    def z_of(noise):
        return np.array(flow.from_noise(mx.array(noise.astype(np.float32)), label), np.float64)

    ends = [(z_of(u + step * e) - z_of(u - step * e))[0] / (2 * step) for e in np.eye(dims)]
    log_p = -0.5 * (u**2).sum() - dims / 2 * math.log(2 * math.pi) - np.linalg.slogdet(np.array(ends))[1]
    assert flow.log_density(mx.array(z_of(u).astype(np.float32)), label).item() == pytest.approx(log_p, abs=0.01)
    assert abs(log_p + 0.5 * (z_of(u) ** 2).sum() + dims / 2 * math.log(2 * math.pi)) > 0.1  # is no standard normal


def test_the_density_of_a_flow_adds_up_to_one():
    flow, side = make_flow(2), np.linspace(-12, 12, 600)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = np.exp(np.array(flow.log_density(mx.array(grid.astype(np.float32))), np.float64))
    assert density.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)


def test_classes_of_a_flow_differ_and_several_samples_have_their_label():
    flow, z = make_flow(3, 2), mx.random.normal((4, 5, 3), key=mx.random.key(0))
    labels = np.array([0, 1, 1, 0])
    together = np.array(flow.log_density(z, labels))
    assert together.shape == (4, 5)
    for i, label in enumerate(labels):
        np.testing.assert_allclose(together[i], np.array(flow.log_density(z[i], np.full(5, label))), rtol=1e-5)
    assert np.abs(np.array(flow.log_density(z, labels) - flow.log_density(z, 1 - labels))).max() > 0.1
    with pytest.raises(ValueError, match="label"):
        flow.sample(3, mx.random.key(0))


def test_the_kl_from_a_flow_is_one_number_per_image():
    flow, mean, log_var = make_flow(3), mx.zeros((2, 3)), mx.zeros((2, 3))
    z = mx.random.normal((2, 3), key=mx.random.key(0))
    kl = flow.kl(mean, log_var, z)
    assert kl.shape == (2, 1)
    expected = np.array(StandardNormal(3).log_density(z)) - np.array(flow.log_density(z))
    np.testing.assert_allclose(np.array(kl)[:, 0], expected, rtol=1e-5)


def test_a_flow_of_many_dimensions_is_exact_in_float32():
    flow = make_flow(128, layers=10)
    for layer in flow.layers:
        layer.lin3.bias = mx.where(mx.arange(256) < 128, 6, 1) * layer.lin3.bias  # larger log-scales
    u = z = mx.random.normal((50, 128), key=mx.random.key(0))
    log_det = mx.zeros(50)
    for layer in flow.layers:
        log_det = log_det + layer.scale_and_shift(z, None)[0].sum(axis=1)
        z = layer.forward(z, None)
    assert mx.abs(log_det).max() > 50
    expected = np.array(StandardNormal(128).log_density(u) - log_det)
    np.testing.assert_allclose(np.array(flow.log_density(z)), expected, rtol=1e-3)


@pytest.fixture
def quick_fit(monkeypatch):
    monkeypatch.setattr(fitting, "SHAPE", FlowOptions(4, 24))
    monkeypatch.setattr(fitting, "STEPS", 250)


def test_a_fitted_flow_is_better_than_a_gaussian_and_knows_classes(quick_fit):
    """Two parabolas, one for each class, that open to opposite sides."""
    random = np.random.default_rng(0)
    labels, x = random.integers(0, 2, 2000), random.normal(size=2000)
    means = np.stack([x, (1 - 2 * labels) * x**2], axis=1)
    flow = fitting.fit_flow(means, np.full(means.shape, 2 * math.log(0.2)), labels, 2)
    z = means + 0.2 * random.normal(size=means.shape)
    found = flow.log_density(mx.array(z.astype(np.float32)), labels).mean().item()
    gaussians = [-0.5 * np.linalg.slogdet(2 * math.pi * math.e * np.cov(z[labels == c].T))[1] for c in (0, 1)]
    assert found > np.mean(gaussians) + 0.5
    heights = [np.array(flow.sample(500, mx.random.key(0), 1.0, np.full(500, c)))[:, 1].mean() for c in (0, 1)]
    assert heights[0] > 0.6 and heights[1] < -0.6


FLOW = ["--prior", "flow", "--flow_layers", 3, "--flow_units", 8]
TINY = "--dataset synthetic --limit 40 --image_size 16 --batchsize 20".split()


@pytest.mark.parametrize(
    "flags",
    [*(f"--arch {arch}" for arch in ARCHITECTURES), "--arch mlp --objective iwae --iw_samples 2", "--conditional"],
)
def test_every_architecture_trains_with_a_flow(run, tmp_path, flags):
    status, out, err = run("train", *TINY, *FLOW, *flags.split(), "--epochs", 1, "--outdir", tmp_path)
    assert (status, err) == (0, "") and "Prior: a flow of 3 coupling layers" in out
    (path,) = tmp_path.glob("*.npz")
    kept = checkpoint.load(path)
    assert isinstance(kept.sampler, Mixture) and isinstance(kept.model.prior, Flow)
    moved = [
        np.abs(array).max()
        for key, array in arrays_of(kept.model).items()
        if key.startswith("prior.") and "lin3.w" in key
    ]
    assert len(moved) == 3 and min(moved) > 0


def test_a_run_with_a_flow_resumes_exactly(run, tmp_path):
    for name, parts in (("whole", [3]), ("parts", [1, 3])):
        for epochs in parts:
            flags = ["--epochs", epochs, "--lr_schedule", "constant", *(["--resume"] if epochs != parts[0] else [])]
            assert run("train", *TINY, *FLOW, *flags, "--outdir", tmp_path / name)[0] == 0
    whole, parts = (checkpoint.load(next((tmp_path / name).glob("*.npz"))).model for name in ("whole", "parts"))
    for (key, a), (_, b) in zip(arrays_of(whole).items(), arrays_of(parts).items(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=key)


@pytest.mark.parametrize("ending", [".npz", ".safetensors", "/"])
def test_commands_know_the_flow_of_a_model(run, fails, tmp_path, ending):
    model, path, out = make_model(prior="flow", flow_units=8), tmp_path / "a.npz", tmp_path / "a.png"
    save(path, model, dataset="synthetic")
    moved = f"{tmp_path}/b{ending}"
    assert run("convert", path, moved)[0] == 0
    assert "cannot sample from this model" in fails("convert", path, tmp_path / "c.npz", "--plain")
    flags = ["--model", moved, "--nsamples", 4, "--outfile", out, "--overwrite"]
    status, printed, _ = run("generate", *flags)
    assert status == 0 and "Sheet of 4 samples" in printed
    assert "no prior named mixture" in fails("generate", *flags, "--prior", "mixture")
    assert "choose flow" in fails("generate", *flags, "--prior", "normal")
    measuring = ["--limit", 20, "--importance_samples", 3]
    status, printed, _ = run("evaluate", "--model", moved, *measuring)
    assert status == 0 and "prior: a flow of 10 coupling layers" in printed


def test_a_flow_fitted_by_conversion(run, fails, tmp_path, mnist_folder, quick_fit):
    path, new = tmp_path / "a.npz", tmp_path / "b.npz"
    save(path, make_model(), dataset="synthetic")
    status, out, _ = run(
        "convert", path, new, "--fit_prior", "flow", "--dataset", "mnist", "--data_dir", mnist_folder.parent
    )
    assert status == 0 and "Prior: a flow of 4 coupling layers, fitted to" in out
    loaded = checkpoint.load(new)
    assert isinstance(loaded.sampler, Flow) and not loaded.model.prior.parameters()
    for asked in ([], ["--prior", "flow"], ["--prior", "normal"]):
        picture = tmp_path / f"{len(asked)}{asked[-1:]}.png"
        assert run("generate", "--model", new, "--nsamples", 4, *asked, "--outfile", picture)[0] == 0
    names = dict(tree_flatten(loaded.sampler.parameters())).keys()
    stored = mx.load(str(new))
    assert {f"sampler.{name}" for name in names} <= stored.keys()
    for name, value in (("lin2.weight", math.nan), ("lin2.bias", math.inf)):
        broken = dict(stored) | {f"sampler.layers.0.{name}": mx.full(stored[f"sampler.layers.0.{name}"].shape, value)}
        loaded.sampler.load_weights([(k.removeprefix("sampler."), v) for k, v in broken.items() if k[:8] == "sampler."])
        save(tmp_path / "bad.npz", loaded.model, dataset="synthetic", sampler=loaded.sampler)
        assert "impossible values" in fails(
            "generate", "--model", tmp_path / "bad.npz", "--outfile", tmp_path / "x.png"
        )
    save(tmp_path / "bad.npz", loaded.model, dataset="synthetic", sampler=make_flow(5))
    assert "wrong shapes" in fails("generate", "--model", tmp_path / "bad.npz", "--outfile", tmp_path / "x.png")


def test_a_prior_is_fitted_to_a_folder_that_is_named(run, fails, tmp_path, quick_fit):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        Image.new("L", (20, 20), 12 * i).save(pictures / f"{i}.png")
    save(tmp_path / "a.npz", make_model(), dataset="folder:pictures")
    flags = [tmp_path / "a.npz", tmp_path / "b.npz", "--fit_prior", "--cache_dir", tmp_path / "cache"]
    assert "add --dataset folder:PATH" in fails("convert", *flags)
    assert run("convert", *flags, "--dataset", f"folder:{pictures}")[0] == 0
    loaded = checkpoint.load(tmp_path / "b.npz")
    assert isinstance(loaded.sampler, Mixture) and loaded.dataset == "folder:pictures"


def test_importance_sampling_under_a_flow_agrees_with_another_way(tmp_path):
    """A mixture of one standard normal and the flow at its start are the same prior."""
    split = datasets.load("synthetic", "test", None, 10)
    same = Mixture(np.ones((1, 1)), np.zeros((1, 3)), np.eye(3)[np.tril_indices(3)][None])
    found = []
    for prior in (same, Flow(3)):
        model = make_model()
        model.prior = prior
        found.append(inference.importance_bound(model, split, 20, 0, 10))
    np.testing.assert_allclose(*found, atol=1e-3)
