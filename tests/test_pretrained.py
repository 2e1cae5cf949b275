"""The included models: each loads, has its prior, and keeps its score on a slice of its test split (slices.npz)."""

import mlx.core as mx
import numpy as np
import pytest

from toolkit.formats import checkpoint
from toolkit.model.inputs import to_floats
from toolkit.random import pixel_keys
from toolkit.shell.opening import ROOT

# Reconstruction from the mean + KL per image, on the first 64 test images of MNIST or 24 of CIFAR-10.
SCORES = {
    "vae_mnist_filters_0064_dims_0008": 55.585,
    "vae_mnist_filters_0064_dims_0002": 126.790,
    "conditional/vae_mnist_filters_0064_dims_0008": 48.437,
    "vae_cifar-10_filters_0128_dims_0128": -6067.005,
    "likelihood/vae_mnist_filters_0032_dims_0032": 73.759,
    "likelihood/vae_cifar-10_filters_0128_dims_0224": 12591.269,
}


def loss_on_its_slice(model, dataset):
    slices = np.load(ROOT / "tests" / "slices.npz")
    numbers = mx.arange(len(slices[dataset]), dtype=mx.uint32)
    x = to_floats(mx.array(slices[dataset]), model.config, pixel_keys(numbers))
    labels = mx.array(slices[f"{dataset}_labels"].astype(np.int32)) if model.config.num_classes else None
    mean, log_var = model.encode(x, labels)
    error = model.likelihood.error(x, model.decoder(mean, labels))
    return (error + model.prior.kl(mean, log_var).sum(axis=1)).mean().item()


@pytest.mark.parametrize("name", SCORES)
def test_an_included_model_keeps_its_score(name):
    loaded = checkpoint.load(ROOT / "pretrained" / f"{name}.npz")
    model = loaded.model
    assert f"filters_{model.config.max_filters:04d}_dims_{model.config.latent_dims:04d}" in name
    assert loaded.dataset in name and loaded.sampler is not None
    assert loss_on_its_slice(model, loaded.dataset) == pytest.approx(SCORES[name], rel=1e-3)


def test_all_included_models_are_tested_and_small():
    files = [*(ROOT / "pretrained").rglob("*.npz")]
    assert {path.relative_to(ROOT / "pretrained").with_suffix("").as_posix() for path in files} == SCORES.keys()
    assert sum(path.stat().st_size for path in files) <= 20e6
