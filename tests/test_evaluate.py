"""The metrics against what is known exactly: a linear Gaussian model, NumPy in float64, cases with one answer."""

import hashlib
import json
import math
import re

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from sample_models import LinearGaussian, make_model, save

from toolkit import datasets
from toolkit.datasets import Split
from toolkit.errors import UserError
from toolkit.files import progress
from toolkit.metrics import latents, measure, similarity, words
from toolkit.model import inference, priors

SIZE, DIMS = LinearGaussian.SIZE, LinearGaussian.DIMS


@pytest.fixture
def grey():
    images = np.random.default_rng(3).integers(90, 166, (40, SIZE, SIZE, 1), dtype=np.uint8)
    return Split(images, None, 40)


def bound(model, split, samples, seed=0, batch_size=240):
    return inference.importance_bound(model, split, samples, seed, batch_size)


def test_with_the_true_posterior_every_bound_is_the_likelihood(grey):
    model = LinearGaussian(width=1)
    exact = model.log_likelihood(grey.images)
    for samples in (1, 20, 33):
        np.testing.assert_allclose(bound(model, grey, samples), exact, atol=2e-4)
    metrics = measure.measure(model, grey, None, 1, 0, 250)
    assert metrics["log_likelihood"]["mean"] == pytest.approx(exact.mean(), abs=1e-4)
    assert metrics["constant"] == pytest.approx(-0.5 * SIZE**2 * math.log(math.pi))
    # Of one draw the bound is noisy, of all images together it must lie within a few of its errors.
    assert abs(metrics["elbo"]["mean"] - exact.mean()) < 5 * metrics["elbo"]["standard_error"]


@pytest.mark.slow
def test_with_another_posterior_the_bound_grows_with_the_samples_towards_the_likelihood(grey):
    model = LinearGaussian(width=2)
    exact = model.log_likelihood(grey.images).mean()
    means = [np.mean([bound(model, grey, samples, seed).mean() for seed in range(3)]) for samples in (1, 5, 50, 1000)]
    assert means == sorted(means) and means[0] < exact - 0.5
    error = bound(model, grey, 1000).std() / math.sqrt(40)
    assert abs(means[-1] - exact) < min(3 * error, 0.02)
    kl = np.mean([np.log(4) * -0.5 * DIMS + 0.5 * DIMS * (4 - 1)])  # of the wider Gaussian from the true posterior
    assert means[0] == pytest.approx(exact - kl, abs=0.4)


def test_streamed_sum_agrees_with_float64():
    values = np.random.default_rng(0).normal(-3000, 15, (7, 5000)).astype(np.float32)
    total = inference.LogSum(7)
    for start in range(0, 5000, 20):
        total.add(mx.array(values[:, start : start + 20]))
    exact = np.logaddexp.reduce(values.astype(np.float64), axis=1)
    np.testing.assert_allclose(total.value(), exact, atol=1e-3)


@pytest.mark.slow
def test_no_metric_depends_on_the_batch_and_all_on_the_seed():
    model = make_model(likelihood="bce", binarize="dynamic")
    split = datasets.load("synthetic", "test", None, 60)
    train = datasets.load("synthetic", "train", None, 90)

    def metrics(batch_size, seed):
        found = measure.measure(model, split, train, 45, seed, batch_size)
        flat = {k: v["mean"] if isinstance(v, dict) else v for k, v in found.items()}
        return {k: v for k, v in flat.items() if isinstance(v, float)}

    one, other, again, reseeded = metrics(250, 0), metrics(7, 0), metrics(250, 0), metrics(250, 1)
    assert one == again and {"bits_per_dimension", "log_likelihood", "linear_probe"} <= one.keys()
    for name, value in one.items():
        assert other[name] == pytest.approx(value, abs=1e-4, rel=1e-5), name
    for name in ("elbo", "log_likelihood", "mutual_information"):
        assert one[name] != reseeded[name]


def test_memory_does_not_grow_with_the_samples():
    model, split = make_model(), datasets.load("synthetic", "test", None, 24)
    peaks = []
    for samples in (40, 1000):
        mx.reset_peak_memory()
        bound(model, split, samples)
        peaks.append(mx.get_peak_memory())
    assert peaks[1] < 2 * peaks[0]  # of 25 times as many


def test_bits_per_dimension_and_terms_by_hand():
    model = make_model(likelihood="bce", binarize="threshold", image_size=28, arch="mlp")
    split = datasets.load("synthetic", "test", None, 50)
    metrics = measure.measure(model, split, None, 0, 0, 250)
    assert "log_likelihood" not in metrics and metrics["constant"] == 0
    mean, log_var = model.encoder(mx.array((split.images > 128).astype(np.float32)))
    kl = model.prior.kl(mean, log_var).sum(axis=1)
    assert metrics["kl"]["mean"] == pytest.approx(kl.mean().item(), rel=1e-5)
    total = metrics["reconstruction"]["mean"] + metrics["kl"]["mean"]
    assert metrics["elbo"]["mean"] == pytest.approx(-total)
    assert metrics["bits_per_dimension"] == pytest.approx(total / 784 / math.log(2))
    assert metrics["kl"]["standard_error"] == pytest.approx(np.array(kl).std(ddof=1) / math.sqrt(50), rel=1e-4)
    assert sum(metrics["kl_by_dimension"]) == pytest.approx(metrics["kl"]["mean"])
    assert metrics["active_units"] == (np.array(mean).var(axis=0) > 0.01).sum()


def numpy_ssim(x, y):
    size = min(11, len(x))
    window = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / 1.5) ** 2)
    window = np.outer(window, window) / window.sum() ** 2
    values = []
    for i in range(len(x) - size + 1):
        for j in range(len(x) - size + 1):
            a, b = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            both = (window * (a - ma) * (b - mb)).sum()
            c1, c2 = 0.01**2, 0.03**2
            values.append((2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return np.mean(values)


@pytest.mark.parametrize("size", [16, 8, 5])
def test_ssim_agrees_with_its_definition(size):
    random = np.random.default_rng(0)
    x = random.random((2, size, size, 3))
    y = np.clip(x + random.normal(0, 0.2, x.shape), 0, 1)
    found = np.array(similarity.ssim(*(mx.array(a.astype(np.float32)) for a in (x, y))))
    expected = [np.mean([numpy_ssim(x[i, :, :, c], y[i, :, :, c]) for c in range(3)]) for i in range(2)]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(np.array(similarity.ssim(mx.array(x), mx.array(x))), 1, atol=1e-5)


def information(means, log_vars):
    return latents.information(means, log_vars, priors.StandardNormal(means.shape[1]), 0)


def test_information_where_it_is_known():
    nothing = information(np.zeros((300, 3)), np.zeros((300, 3)))
    np.testing.assert_allclose(nothing, 0, atol=1e-6)  # every code is the prior
    apart = information(np.arange(300)[:, None] * 10.0, np.full((300, 1), -8.0))
    assert apart[0] == pytest.approx(math.log(300), abs=1e-6)  # every code tells its image
    random = np.random.default_rng(0)
    means, log_vars = random.normal(0, 0.9, (3000, 1)), np.full((3000, 1), math.log(1 - 0.81))
    found = information(means, log_vars)  # together the prior; I = ½ log(1 / (1 - 0.81))
    assert found[0] == pytest.approx(-0.5 * math.log(0.19), abs=0.03) and found[1] == pytest.approx(0, abs=0.03)
    kl = latents.kl_by_dimension(means, log_vars).mean()
    assert sum(found) == pytest.approx(kl, abs=0.05)


def test_classifiers():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 600)
    codes = np.array([[0, 0], [40, 0], [0, 40]])[labels] + random.normal(0, 5, (600, 2)) + 1000
    known = (codes[:400], labels[:400], codes[400:], labels[400:], 3)
    assert latents.linear_probe(*known) > 0.99 and latents.nearest_neighbours(*known) > 0.99
    rings = np.stack([np.cos(labels * 9.0 + codes[:, 0]), np.sin(codes[:, 1])], 1) * (labels[:, None] + 1)
    known = (rings[:400], labels[:400], rings[400:], labels[400:], 3)
    distances = ((rings[400:, None] - rings[None, :400]) ** 2).sum(-1)
    near = labels[:400][distances.argsort(axis=1)[:, :5]]
    right = []
    for row, truth in zip(near, labels[400:], strict=True):
        votes = np.bincount(row, minlength=3) + 0.5 * (np.arange(3) == row[0])
        right.append(votes.argmax() == truth)
    assert latents.nearest_neighbours(*known) == pytest.approx(np.mean(right))
    shuffled = random.integers(0, 3, 600)
    assert latents.linear_probe(codes[:400], shuffled[:400], codes[400:], shuffled[400:], 3) < 0.5


def test_the_table_and_the_file(run, model_file, tmp_path):
    flags = ["--limit", 40, "--importance_samples", 25, "--json", tmp_path / "metrics" / "a.json"]
    status, out, err = run("evaluate", "--model", model_file, *flags)
    assert (status, err) == (0, "")
    metrics = json.loads((tmp_path / "metrics" / "a.json").read_text())
    assert metrics["evaluation_seed"] == 0 and "seed" not in metrics and str(tmp_path) not in json.dumps(metrics)
    assert metrics["training"] == {"command": "", "epochs": None, "options": {}}  # a file that stores none of it
    assert metrics["command"].endswith(f"--model {model_file.name} --limit 40 --importance_samples 25")
    assert metrics["model_sha256"] == hashlib.sha256(model_file.read_bytes()).hexdigest() and metrics["device"]
    assert metrics["versions"].keys() == {"toolkit", "mlx", "numpy", "python"}
    assert metrics["dataset"] == "synthetic" and metrics["images"] == 40
    for name, key in (
        ("Reconstruction", "reconstruction"),
        ("ELBO", "elbo"),
        ("Loss", "loss"),
        (r"log p\(x\) ≥", "log_likelihood"),
    ):
        mean, error = re.search(rf"{name} +(-?[\d.]+) ± ([\d.]+)", out).groups()
        assert float(mean) == pytest.approx(metrics[key]["mean"], abs=1e-3)
        assert float(error) == pytest.approx(metrics[key]["standard_error"], abs=1e-3)
    assert f"const {metrics['constant']:.2f}" in out and "Linear probe" in out
    names = re.findall(r"^  (\S.{17}) {2,}", out, re.M)
    assert len(names) == len(set(names)) == 13 and names[-1].startswith("log p(x)")
    again = run("evaluate", "--model", model_file, *flags)
    assert again[1] == out
    _, pairs, _ = run("reconstruct", "--model", model_file, "--rec_testdata", "--limit", 40, "--outdir", tmp_path / "r")
    assert f"{metrics['mean_squared_error']:.6f}" in pairs and f"{metrics['psnr']:.2f} dB" in pairs


def test_what_a_model_or_its_data_does_not_have_is_left_out(run, fails, tmp_path):
    for i in range(24):
        (tmp_path / "plain").mkdir(exist_ok=True)
        Image.new("L", (16, 16), 9 * i).save(tmp_path / "plain" / f"{i}.png")
    save(tmp_path / "a.npz", make_model(likelihood="bce"), dataset="synthetic")
    flags = ["--model", tmp_path / "a.npz", "--dataset", f"folder:{tmp_path / 'plain'}", "--data_dir", tmp_path]
    status, out, _ = run("evaluate", *flags)
    assert status == 0 and "Bernoulli" in out
    for left_out in ("log p(x)", "Bits per dimension", "Linear probe"):  # pixels are neither bits nor labelled
        assert left_out not in out
    save(tmp_path / "c.npz", make_model(num_classes=10), dataset="synthetic")
    one = ["--limit", 1, "--importance_samples", 3, "--json", tmp_path / "one.json"]
    status, out, _ = run("evaluate", "--model", tmp_path / "c.npz", *one)
    assert status == 0 and "log p(x)" in out
    assert "NaN" not in (tmp_path / "one.json").read_text() and "nan" not in out
    save(tmp_path / "d.npz", make_model(num_classes=10), dataset="synthetic", class_names=["x"] * 10)
    assert "10 others" in fails("evaluate", "--model", tmp_path / "d.npz", "--limit", 2)
    assert "has none" in fails("evaluate", "--model", tmp_path / "c.npz", *flags[2:])
    fails("evaluate", "--importance_samples", -1)
    fails("evaluate", "--importance_samples", 3 * 10**9)
    assert "is a folder" in fails("evaluate", *flags, "--json", tmp_path)
    (tmp_path / "file").touch()
    fails("evaluate", *flags, "--json", tmp_path / "file" / "a.json")


def test_loss_is_shown_as_training_prints_it_and_the_density_below(run, tmp_path):
    flags = "--dataset synthetic --limit 60 --image_size 16 --max_filters 8 --latent_dims 2 --epochs 3".split()
    _, trained, _ = run("train", *flags, "--outdir", tmp_path)
    test = float(re.findall(r"^ +3/3 .* ([\d.]+) +[\d,]+ +[\d.]+ s$", trained, re.M)[-1])
    model = tmp_path / "vae_synthetic_filters_0008_dims_0002.npz"
    _, out, _ = run("evaluate", "--model", model, "--limit", 60, "--importance_samples", 0)
    loss = float(re.search(r"Loss +([\d.]+) ±", out)[1])
    assert loss == pytest.approx(test, rel=0.02)  # another sample of the noise
    elbo, constant = map(float, re.search(r"ELBO +(-[\d.]+) .*const (-[\d.]+)", out).groups())
    assert elbo == pytest.approx(constant - loss, abs=0.01)
    assert out.index("Loss") < out.index("Reconstruction") < out.index("ELBO")


def test_rows_appear_before_the_slow_one_is_computed(run, model_file, monkeypatch):
    def stopped(*_):
        raise UserError("stopped — here")

    monkeypatch.setattr(inference, "importance_bound", stopped)
    status, out, err = run("evaluate", "--model", model_file, "--limit", 40)
    assert status == 2 and "stopped" in err and "Loss" in out and "Nearest neighbours" in out and "log p" not in out


def test_the_line_for_a_paper_is_named_unless_samples_were_chosen(run, model_file):
    flags = ["evaluate", "--model", model_file, "--limit", 10]
    status, out, _ = run(*flags)
    line = f"  python evaluate.py --model {model_file} --limit 10 --importance_samples 5000"
    assert status == 0 and "20 importance samples each" in out and out.splitlines()[-1] == line
    assert "5000" not in run(*flags, "--importance_samples", 3)[1]


def test_the_bar_of_importance_samples_counts_all_images(monkeypatch):
    made = []
    real = progress.Bar
    monkeypatch.setattr(progress, "Bar", lambda *of: made.append(real(*of)) or made[-1])
    model, split = make_model(), datasets.load("synthetic", "test", None, 30)
    inference.importance_bound(model, split, 33, 0, 7)
    assert [counter.n for counter in made] == [pytest.approx(30)]


def test_one_image_has_no_standard_error():
    model, split = make_model(), datasets.load("synthetic", "test", None, 1)
    metrics = measure.measure(model, split, None, 3, 0, 9)
    assert not any("nan" in value or "±" in value for _, value, _ in words.rows(metrics))


def test_impossible_latent_vectors_are_one_line(fails, tmp_path):
    for name, factor in (("proj_mu", 3e38), ("proj_mu", 1e30), ("proj_log_var", -1e5)):
        model = make_model()
        model.encoder[name].bias = model.encoder[name].bias * 0 + factor
        save(tmp_path / "a.npz", model, dataset="synthetic")
        assert "impossible latent vectors" in fails("evaluate", "--model", tmp_path / "a.npz", "--limit", 4)


def test_a_collapsed_model_is_measured_and_shown_without_a_warning(run, tmp_path):
    model = make_model()
    for name in ("proj_mu", "proj_log_var"):
        model.encoder[name].weight *= 0
        model.encoder[name].bias *= 0
    save(tmp_path / "a.npz", model, dataset="synthetic")
    flags = ["--model", tmp_path / "a.npz", "--limit", 20]
    assert run("evaluate", *flags, "--importance_samples", 0)[0] == 0
    assert run("visualize", "latents", *flags, "--outfile", tmp_path / "a.png")[0] == 0


def test_metrics_name_the_training(run, fails, tmp_path):
    options = {"dataset": "synthetic", "recipe": "classic", "beta": 4.0, "seed": 7, "epochs": 3, "image_size": 16}
    save(tmp_path / "a.npz", make_model(), dataset="synthetic", epoch=3, options=options)
    flags = ["--model", tmp_path / "a.npz", "--limit", 9, "--importance_samples", 0, "--seed", 5]
    assert run("evaluate", *flags, "--json", tmp_path / "a.json")[0] == 0
    metrics = json.loads((tmp_path / "a.json").read_text())
    assert metrics["evaluation_seed"] == 5 and metrics["training"]["options"] == options
    assert metrics["training"]["epochs"] == 3
    for typed in ("--beta 4", "--seed 7", "--dataset synthetic"):
        assert typed in metrics["training"]["command"]
    assert "ends in .csv — name one that ends in .json" in fails("evaluate", *flags, "--json", tmp_path / "a.csv")
