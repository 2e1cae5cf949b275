"""The CPU forms of the convolutions agree with MLX's own, in values and in gradients."""

import mlx.core as mx
import numpy as np
import pytest

import cpu

SHAPES = [(1, 8, 8, 1, 4), (5, 16, 8, 3, 2), (3, 2, 6, 4, 5)]  # N, H, W, channels in and out


def native_down(x, weight):
    return mx.conv2d(x, weight, stride=2, padding=1)


def native_up(x, weight):
    return mx.conv2d(mx.repeat(mx.repeat(x, 2, axis=1), 2, axis=2), weight, padding=1)


@pytest.mark.parametrize("form, native", [(cpu.conv_down, native_down), (cpu.conv_up, native_up)])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_native_convolution(form, native, shape):
    n, height, width, channels, out = shape
    keys = mx.random.split(mx.random.key(1), 3)
    x = mx.random.normal((n, height, width, channels), key=keys[0])
    weight = mx.random.normal((out, 3, 3, channels), key=keys[1])
    expected = native(x, weight)
    towards = mx.random.normal(expected.shape, key=keys[2])

    def gradients(function):
        return mx.grad(lambda x, w: (function(x, w) * towards).sum(), argnums=(0, 1))(x, weight)

    close(form(x, weight), expected)
    for ours, theirs in zip(gradients(form), gradients(native), strict=True):
        close(ours, theirs)


def close(ours, theirs):
    ours, theirs = np.array(ours), np.array(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
