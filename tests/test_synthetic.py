"""The synthetic digits: seeded, any number of them, in classes that can be told apart."""

import numpy as np
import pytest

from toolkit import datasets
from toolkit.datasets import synthetic


def test_same_seed_same_digits_and_a_longer_set_begins_like_a_shorter():
    images, labels = synthetic.digits(1500, seed=7)
    again, _ = synthetic.digits(300, seed=7)
    other, _ = synthetic.digits(300, seed=8)
    np.testing.assert_array_equal(images[:300], again)
    assert (images[:300] != other).any()
    assert images.shape == (1500, 28, 28, 1) and images.dtype == np.uint8
    assert np.bincount(labels).min() > 100


@pytest.mark.slow
def test_splits_have_the_size_of_mnist_and_share_no_picture():
    train, test = (datasets.load("synthetic", split, None, limit=500).images for split in ("train", "test"))
    assert len(datasets.load("synthetic", "test", None).images) == 10_000
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_no_two_alike_and_ink_stays_inside():
    images, _ = synthetic.digits(1000, seed=0)
    assert len({image.tobytes() for image in images}) == 1000
    ink = images.astype(float)
    assert 0.08 < ink.mean() / 255 < 0.25
    border = np.concatenate([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]]).mean() / 255
    assert border < 0.005


def test_classes_can_be_told_apart():
    images, labels = synthetic.digits(4000, seed=0)
    tests, truth = synthetic.digits(500, seed=1)
    flat, test_flat = images.reshape(4000, -1) / 255.0, tests.reshape(500, -1) / 255.0
    distances = (test_flat**2).sum(1)[:, None] - 2 * test_flat @ flat.T + (flat**2).sum(1)
    assert (labels[distances.argmin(axis=1)] == truth).mean() > 0.95
