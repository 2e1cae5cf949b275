"""The prior against what is known of the standard normal."""

import math

import mlx.core as mx
import numpy as np
from conftest import make_model

from toolkit.model import gaussians
from toolkit.model.priors import PRIORS, StandardNormal


def test_samples_have_the_moments_of_the_prior():
    for temperature in (1.0, 0.5):
        z = np.array(StandardNormal(3).sample(40_000, mx.random.key(0), temperature))
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.02)
        np.testing.assert_allclose(z.std(axis=0), temperature, atol=0.02)


def test_density_and_divergence_agree_with_samples():
    """KL is the mean of log q - log p over samples of q, for MLX arrays and for NumPy's."""
    prior, random = StandardNormal(2), np.random.default_rng(0)
    mean, log_var = np.array([[0.7, -1.2]]), np.array([[-1.0, 0.4]])
    z = gaussians.reparametrise(mean, log_var, random.normal(size=(200_000, 2)))
    sampled = (gaussians.log_density(z, mean, log_var) - prior.log_density(z)).mean()
    exact = gaussians.kl_from_standard(mean, log_var).sum()
    assert abs(sampled - exact) < 0.02
    in_mlx = prior.kl(mx.array(mean.astype(np.float32)), mx.array(log_var.astype(np.float32)))
    np.testing.assert_allclose(np.array(in_mlx), gaussians.kl_from_standard(mean, log_var), rtol=1e-5)
    assert abs(prior.log_density(np.zeros(2)) + math.log(2 * math.pi)) < 1e-12


def test_quantiles_hold_their_shares():
    z = np.array(StandardNormal(1).sample(40_000, mx.random.key(1)))
    for share, place in zip((0.1, 0.5, 0.9), StandardNormal(1).quantiles(np.array([0.1, 0.5, 0.9]))[:, 0], strict=True):
        assert abs((z < place).mean() - share) < 0.01


def test_noise_of_an_image_does_not_depend_on_its_batch():
    keys = mx.array(np.arange(10).reshape(5, 2).astype(np.uint32))
    together = np.array(gaussians.noise(keys, (5, 4, 3)))
    np.testing.assert_array_equal(np.array(gaussians.noise(keys[2:3], (1, 4, 3)))[0], together[2])
    assert (together[0] != together[1]).any()


def test_a_model_has_a_prior_without_arrays():
    assert isinstance(make_model().prior, PRIORS["normal"]) and not make_model().prior.parameters()
