"""The bounds that training minimises: against what is known exactly, and from the flags."""

import json

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten
from sample_models import LinearGaussian, make_model, split_keys

import vae
from toolkit.architectures import ARCHITECTURES
from toolkit.layers import forms
from toolkit.model.inputs import to_floats
from toolkit.model.objectives import Elbo, ImportanceWeighted
from toolkit.model.priors import log_normal

TINY = "--dataset synthetic --limit 40 --image_size 16 --max_filters 8 --latent_dims 2".split()


def tiny_images(count=19, size=8):
    return mx.array(np.random.default_rng(7).integers(0, 256, (count, size, size, 1), dtype=np.uint8))


def iwae(samples):
    return ImportanceWeighted(samples)


def flat(gradients):
    return {name: np.array(array) for name, array in tree_flatten(gradients)}


@pytest.mark.parametrize("samples", [1, 5, 8])
def test_with_the_true_posterior_the_bound_of_every_sample_is_the_likelihood(samples):
    model, images = LinearGaussian(width=1), tiny_images(30, 5)
    _, (loss, error, kl) = iwae(samples)(model, to_floats(images, model.config), None, split_keys(30), 1)
    exact = model.log_likelihood(np.array(images))
    np.testing.assert_allclose(model.likelihood.constant - np.array(loss), exact, atol=2e-4)
    assert (np.array(kl) > 0).all() and np.array(error).shape == (30,)


def test_with_another_posterior_it_lies_between_the_elbo_and_the_likelihood():
    model, images = LinearGaussian(width=2), mx.repeat(tiny_images(30, 5), 20, axis=0)
    x, exact = to_floats(images, model.config), model.log_likelihood(np.array(images)).mean()
    losses = [Elbo()(model, x, None, split_keys(len(x)), 1)[1][0].mean().item()]
    losses += [iwae(k)(model, x, None, split_keys(len(x)), 1)[1][0].mean().item() for k in (2, 5, 8)]
    bounds = [model.likelihood.constant - loss for loss in losses]
    assert bounds == sorted(bounds) and bounds[0] < exact - 0.5 and exact - 0.3 < bounds[-1] < exact + 0.01


def test_the_doubly_reparametrised_gradients_have_the_right_mean():
    """Those of the decoder are the usual ones draw by draw; those of the encoder on average, with less noise."""
    model = make_model(arch="mlp", image_size=4)
    x, labels = to_floats(mx.repeat(tiny_images(1, 4), 20_000, axis=0), model.config), None

    def doubly(key):
        return iwae(4)(model, x, labels, key, 1)[0]

    def usual(key):
        mean, log_var = model.posterior(x)
        mean, log_var = (mx.broadcast_to(a[:, None], (len(x), 4, 3)) for a in (mean, log_var))
        z = vae.sample(mean, log_var, key)
        log_w = model.prior.log_density(z) - log_normal(z, mean, log_var) - model.errors(x, labels, z)
        return -mx.logsumexp(log_w, axis=1).mean()

    ours, theirs = (flat(nn.value_and_grad(model, cost)(mx.random.key(1))[1]) for cost in (doubly, usual))
    for name, gradient in theirs.items():
        if name.startswith("decoder"):
            np.testing.assert_allclose(ours[name], gradient, atol=1e-5)
    name = "encoder.proj_mu.bias"
    np.testing.assert_allclose(ours[name], theirs[name], atol=0.03)
    assert np.abs(theirs[name]).max() > 0.2  # else nothing is shown


def test_samples_that_do_not_count_have_no_subnormal_gradients():
    """CPUs compute with numbers below 1.2e-38 many times more slowly."""
    model, gradients = make_model(likelihood="normal"), []
    model.likelihood.log_variance = mx.full(model.likelihood.log_variance.shape, -6.0)
    decoder = model.decoder

    def watched(z, labels):
        @mx.custom_function
        def same(y):
            return y

        @same.vjp
        def seen(_, gradient, __):
            gradients.append(gradient)
            return gradient

        return same(decoder(z, labels))

    model.decoder = watched
    x = to_floats(tiny_images(40, 16), model.config)
    mx.eval(mx.grad(lambda x: iwae(8)(model, x, None, split_keys(40), 1)[0])(x))
    values = np.abs(np.array(gradients[0])).reshape(320, -1)
    assert 40 <= (values.max(axis=1) > 0).sum() < 320  # some samples have no weight
    assert values[values > 0].min() > 1e-30


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_both_forms_of_the_layers_take_the_same_step(arch):
    results = []
    for form in (forms.plain, forms.cpu):
        forms.choose(form)
        model = make_model(arch=arch, likelihood="bce", binarize="dynamic", num_classes=3)
        optimizer = optim.SGD(learning_rate=1e-3)
        optimizer.init(model.trainable_parameters())
        model.train()
        labels = mx.arange(19, dtype=mx.int32) % 3
        step = vae.training_step(model, optimizer, iwae(5))
        sums = step(to_floats(tiny_images(19, 16), model.config, split_keys(19)), labels, split_keys(19), mx.array(1.0))
        results.append([np.array(sums), *flat(model.trainable_parameters()).values()])
    forms.choose()
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("samples", [3, 10])
def test_training(run, tmp_path, samples):
    flags = [*TINY, "--objective", "iwae", "--iw_samples", samples, "--outdir", tmp_path, "--keep_best"]
    status, out, _ = run("train", *flags, "--epochs", 1)
    assert status == 0 and f"importance-weighted bound of {samples} samples, with squared error" in out
    status, out, _ = run("train", *flags, "--epochs", 2, "--resume")
    assert status == 0 and "Resuming after epoch 1" in out
    log = (tmp_path / "vae_synthetic_filters_0008_dims_0002" / "log.jsonl").read_text().splitlines()
    for entry in map(json.loads, log):
        for terms in (entry, entry["test"], entry["held_out"]):
            elbo = terms["reconstruction"] + terms["kl"]
            assert terms["kl"] > 0 and terms["loss"] != elbo and terms["loss"] == pytest.approx(elbo, rel=0.1)


def test_options_without_a_meaning_are_refused(fails):
    for name, value in (("beta", 2), ("beta_warmup", 1), ("free_bits", 1)):
        line = fails("train", *TINY, "--objective", "iwae", f"--{name}", value)
        assert f"--{name} is an option of --objective elbo — leave it out, or add --objective elbo" in line
    for flag in ("--iw_samples", "--iw_warmup"):
        assert f"{flag} is an option of --objective iwae" in fails("train", *TINY, flag, 3)
    flags = ["--objective", "iwae", "--iw_warmup", 5, "--epochs", 5]
    assert "leaves no epochs for iwae" in fails("train", *TINY, *flags)


def test_the_first_epochs_may_use_the_elbo(run, tmp_path):
    flags = [*TINY, "--objective", "iwae", "--iw_warmup", 1, "--outdir", tmp_path, "--epochs", 2]
    status, out, _ = run("train", *flags)
    assert status == 0 and "after 1 epoch of the ELBO" in out
    log = (tmp_path / "vae_synthetic_filters_0008_dims_0002" / "log.jsonl").read_text().splitlines()
    tests = [json.loads(line)["test"] for line in log]
    gaps = [terms["reconstruction"] + terms["kl"] - terms["loss"] for terms in tests]
    assert gaps[0] == pytest.approx(0, abs=1e-3) and gaps[1] > 0.01
