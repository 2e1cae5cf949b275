"""The prior against what is known of the standard normal."""

import math

import mlx.core as mx
import numpy as np
import pytest
from sample_models import make_model

from toolkit.model.priors import PRIORS, Prior, StandardNormal
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
