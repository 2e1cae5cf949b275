"""Scores of samples: against their definitions, what they notice, and in commands."""

import json

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from sample_models import make_flow, make_model, save

from toolkit import datasets
from toolkit.architectures import ModelConfig
from toolkit.errors import UserError
from toolkit.formats import checkpoint
from toolkit.metrics import distances, features, samples
from toolkit.metrics.features import network_for
from toolkit.metrics.samples import Judge
from toolkit.model import inference
from toolkit.shell.opening import find_model

COUNT = 300


def sets(count=120, dims=4):
    random = np.random.default_rng(0)
    return random.normal(size=(count, dims)), 0.3 + 0.8 * random.normal(size=(count, dims))


def test_the_four_scores_are_those_of_their_definitions():
    real, made = sets()
    k, apart = 5, lambda a, b: np.linalg.norm(a - b)

    def radius(rows):
        return [sorted(apart(a, b) for j, b in enumerate(rows) if i != j)[k - 1] for i, a in enumerate(rows)]

    around_real, around_made = radius(real), radius(made)
    inside = np.array([[apart(a, b) < r for a, r in zip(real, around_real, strict=True)] for b in made])
    expected = {
        "precision": inside.any(axis=1).mean(),
        "recall": np.mean([any(apart(a, b) < r for b, r in zip(made, around_made, strict=True)) for a in real]),
        "density": inside.sum() / (k * len(made)),
        "coverage": inside.any(axis=0).mean(),
    }
    assert distances.manifold(real, made, distances.radii(real)) == pytest.approx(expected, abs=1e-6)


def test_the_frechet_distance_is_that_of_gaussians():
    """By the square root of the product of covariances, from the eigenvectors of a matrix that is not symmetric."""
    a, b = sets()
    product = np.cov(a.T) @ np.cov(b.T)
    cross = np.sqrt(np.linalg.eigvals(product).astype(complex)).sum().real
    expected = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * cross
    assert distances.frechet(a, b) == pytest.approx(expected, abs=1e-6)
    assert distances.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert distances.frechet(a, a + 3) == pytest.approx(9 * a.shape[1], abs=1e-6)


def test_the_nearest_row():
    a, b = sets()
    numbers, found = distances.nearest(a, b)
    apart = np.linalg.norm(a[:, None] - b, axis=2)
    np.testing.assert_array_equal(numbers, apart.argmin(axis=1))
    np.testing.assert_allclose(found, apart.min(axis=1), rtol=1e-4)


@pytest.fixture(scope="module")
def world():
    """A world whose pictures are the digits of the included class-conditional model, from its mixture."""
    kept = checkpoint.load(find_model("conditional"))

    def draw(seed, temperature=1.0, labels=None, count=COUNT):
        labels = np.arange(count) % 10 if labels is None else labels
        z = kept.prior.sample(count, mx.random.key(seed), temperature, labels)
        return inference.to_bytes(inference.decode(kept.model, z, labels))

    test, train = (datasets.Split(draw(seed), np.arange(COUNT) % 10, COUNT) for seed in (1, 2))
    judge = Judge(network_for("mnist", 1), ModelConfig(latent_dims=8), test, train, COUNT)
    judge.choose(np.random.default_rng(0))
    return judge, draw, train


def scores(world, pictures):
    judge = world[0]
    return judge.scores(judge.network.of(pictures))


def test_equally_good_samples(world):
    found = scores(world, world[1](3))
    assert min(found["precision"], found["recall"], found["coverage"]) > 0.8
    assert 0.7 < found["density"] < 1.4 and 0.8 < found["novelty"] < 1.2


def test_a_class_that_is_left_out_is_noticed(world):
    whole, part = (scores(world, world[1](3, labels=np.arange(COUNT) % classes)) for classes in (10, 8))
    assert part["frechet"] > 1.5 * whole["frechet"]
    assert part["recall"] < whole["recall"] - 0.1 and part["coverage"] < whole["coverage"] - 0.05


def test_a_low_temperature_is_noticed(world):
    usual, cool = (scores(world, world[1](3, temperature=t)) for t in (1.0, 0.6))
    assert cool["density"] > usual["density"] + 0.2  # better, but less varied
    assert cool["recall"] < usual["recall"] - 0.1 and cool["frechet"] > usual["frechet"]


def test_copies_of_training_pictures_are_noticed(world):
    assert scores(world, world[2].images[:])["novelty"] < 0.1
    noisy = np.random.default_rng(0).normal(world[2].images, 5)
    assert scores(world, np.clip(noisy, 0, 255).astype(np.uint8))["novelty"] < 0.6


def test_random_features_tell_pictures_apart():
    """Of pictures in colour: other ones of the same kind are nearer than blurred ones."""
    random = np.random.default_rng(0)

    def draw():
        corners = random.integers(0, 256, (COUNT, 4, 4, 3)).astype(np.uint8)
        return corners.repeat(8, axis=1).repeat(8, axis=2)

    network, real, same = network_for("folder:x", 3), draw(), draw()
    blurred = np.stack([np.roll(same, i, axis=1) / 4 for i in range(4)]).sum(axis=0).astype(np.uint8)
    of = [network.of(pictures) for pictures in (real, same, blurred)]
    assert distances.frechet(of[2], of[0]) > 1.4 * distances.frechet(of[1], of[0])
    np.testing.assert_array_equal(of[0], network_for("folder:y", 3).of(real))


MODEL = ["--dataset", "synthetic", "--importance_samples", 0]


def test_evaluate_prints_and_writes_the_scores(run, tmp_path):
    path, out = tmp_path / "a.npz", tmp_path / "a.json"
    save(path, make_model(prior="flow"), dataset="synthetic")
    status, printed, err = run(
        "evaluate", "--model", path, *MODEL, "--limit", 150, "--score_samples", 140, "--seed", 3, "--json", out
    )
    assert (status, err) == (0, "") and all(len(line) <= 80 for line in printed.splitlines() if "Metrics" not in line)
    found = json.loads(out.read_text())["samples"]
    assert found["count"] == 140 and found["seed"] == 3 and found["features"] == "a network with fixed random weights"
    rows = found["scores"]
    assert list(rows) == ["training pictures", "reconstructions", "a flow of 10 coupling layers"]
    assert rows["training pictures"]["frechet"]["mean"] < rows["reconstructions"]["frechet"]["mean"]
    for scored in rows.values():
        for name, digits in (("frechet", 2), ("coverage", 3)):
            assert (
                f"{scored[name]['mean']:.{digits}f}" in printed
                and f"±{scored[name]['deviation']:.{digits}f}" in printed
            )


def test_scores_by_class(world):
    kept = checkpoint.load(find_model("conditional"))
    split = world[2]._replace(images=world[2].images, class_names=kept.class_names)
    labels = np.array([0] * 3 + [1] * (COUNT - 3))  # a class with too few images, and eight without any
    made = samples.measure_samples(
        kept.model, [kept.prior], split._replace(labels=labels), split, network_for("mnist", 1), COUNT
    )
    assert made["by_class"]["0"] is None and made["by_class"]["5"] is None
    assert made["by_class"]["1"]["frechet"]["mean"] > 0


def test_two_flows_have_a_row_each(run, tmp_path):
    """One in training, another fitted afterwards; evaluate.py measures the bound under the first."""
    model, path = make_model(prior="flow"), tmp_path / "a.npz"
    split = datasets.load("synthetic", "test", None, 40)
    scores = samples.measure_samples(
        model, [make_flow(3, layers=10), model.prior], split, split, network_for("x", 1), 30
    )
    assert list(scores["scores"])[2:] == [
        "a flow of 10 coupling layers, fitted",
        "a flow of 10 coupling layers, of training",
    ]
    losses = []
    for sampler in (None, make_flow(3, layers=10)):
        save(path, model, dataset="synthetic", sampler=sampler)
        run("evaluate", "--model", path, *MODEL, "--limit", 20, "--json", tmp_path / "a.json", "--overwrite")
        losses.append(json.loads((tmp_path / "a.json").read_text())["kl"]["mean"])
    assert losses[0] == losses[1]


def test_too_few_samples_are_told(run, fails, tmp_path):
    path = tmp_path / "a.npz"
    save(path, make_model(), dataset="synthetic")
    few = ["--model", path, *MODEL, "--limit", 50]
    assert "there are 50 — lower it" in fails("evaluate", *few, "--score_samples", 51)
    assert "must be 6 or more" in fails("evaluate", *few, "--score_samples", 5)
    status, printed, _ = run("evaluate", *few, "--score_samples", 40)
    assert status == 0 and "The Fréchet distance needs more than 128 samples." in printed and "nan" not in printed
    assert "has no effect without --score_samples" in fails("evaluate", *few, "--temperature", 0.5)


def test_a_flow_that_overflows_is_one_line(fails, tmp_path):
    model, path = make_model(prior="flow"), tmp_path / "a.npz"
    for layer in model.prior.layers:
        layer.lin3.bias = mx.full(layer.lin3.bias.shape, 3e38)
    save(path, model, dataset="synthetic")
    assert "NaN" in fails("evaluate", "--model", path, *MODEL, "--limit", 50, "--score_samples", 40)


def test_features_of_another_size_are_one_line(tmp_path, monkeypatch):
    arrays = dict(np.load(features.FILE))
    np.savez(tmp_path / "f.npz", **(arrays | {"encoder.conv1.bias": np.zeros(5)}))
    monkeypatch.setattr(features, "FILE", tmp_path / "f.npz")
    with pytest.raises(UserError, match="encoder.conv1.bias of shape"):
        features.trained()


def test_samples_beside_the_nearest_training_pictures(run, tmp_path):
    path, out = tmp_path / "a.npz", tmp_path / "a.png"
    save(path, make_model(), dataset="synthetic")
    flags = ["--model", path, "--limit", 60, "--nsamples", 4, "--scale", 1, "--outfile", out]
    assert run("visualize", "nearest", *flags)[0] == 0
    with Image.open(out) as picture:
        assert "the training picture most like it" in " ".join(picture.text.values())
        assert picture.width > 4 * 2 * 16
