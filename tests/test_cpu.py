"""The CPU forms of the layers agree with MLX's own, in values and in gradients, in one part and in several."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import cpu

SHAPES = [
    (1, 8, 8, 1, 4),
    (5, 16, 8, 3, 2),
    (17, 4, 6, 4, 5),
    (33, 2, 2, 8, 3),
    (9, 4, 4, 8, 2),
]  # N, H, W, channels in, out


@pytest.fixture(params=[1, 2, 3], autouse=True)
def cores(request, monkeypatch):
    """Every test runs with one, two and three parts, whatever machine it runs on."""
    monkeypatch.setattr(cpu.device, "cores", lambda: request.param)
    cpu.streams.cache_clear()
    yield request.param
    cpu.streams.cache_clear()


def native_down(x, conv, norm):
    return nn.leaky_relu(norm(mx.conv2d(x, conv.weight, stride=2, padding=1) + conv.bias))


def native_up(x, conv, norm=None):
    y = mx.conv2d(mx.repeat(mx.repeat(x, 2, axis=1), 2, axis=2), conv.weight, padding=1) + conv.bias
    return y if norm is None else nn.leaky_relu(norm(y))


def our_down(x, conv, norm):
    return cpu.join(cpu.down(cpu.split(x), conv, norm))


def our_up(x, conv, norm=None):
    return cpu.join(cpu.up(cpu.split(x), conv, norm))


class Layer(nn.Module):
    """A convolution and its norm with weights that are nowhere trivial."""

    def __init__(self, channels, out, training):
        super().__init__()
        random = np.random.default_rng(0)

        def array(*shape, least=-1.0):
            return mx.array(random.uniform(least, 1.5, shape).astype(np.float32))

        self.conv, self.norm = nn.Conv2d(channels, out, 3), nn.BatchNorm(out)
        self.conv.weight, self.conv.bias = array(out, 3, 3, channels), array(out)
        self.norm.weight, self.norm.bias = array(out, least=0.5), array(out)
        self.norm.running_mean, self.norm.running_var = array(out), array(out, least=0.5)
        self.train(training)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ours, native", [(our_down, native_down), (our_up, native_up)])
def test_layer_with_norm(ours, native, training, shape):
    compare(ours, native, shape, training, lambda layer: (layer.conv, layer.norm))


@pytest.mark.parametrize("shape", SHAPES)
def test_last_layer(shape):
    compare(our_up, native_up, shape, True, lambda layer: (layer.conv,))


def compare(ours, native, shape, training, arguments):
    n, height, width, channels, out = shape
    x = mx.random.normal((n, height, width, channels), key=mx.random.key(1))
    results = []
    for function in (ours, native):
        layer = Layer(channels, out, training)
        y = function(x, *arguments(layer))
        statistics = tree_flatten(layer.norm.parameters())
        towards = mx.random.normal(y.shape, key=mx.random.key(2))

        def loss(parameters, x, layer=layer, function=function, towards=towards):
            layer.update(parameters)
            return (function(x, *arguments(layer)) * towards).sum()

        dlayer, dx = mx.grad(loss, argnums=(0, 1))(Layer(channels, out, training).trainable_parameters(), x)
        gradients = dict(tree_flatten(dlayer))
        if training and "norm" in dlayer and len(arguments(layer)) == 2:
            gradients.pop("conv.bias")  # batch norm takes the bias away: what is left of its gradient is rounding
        results.append({"y": y, "dx": dx} | gradients | {f"then {k}": a for k, a in statistics})
    for key, theirs in results[1].items():
        mine, theirs = np.array(results[0][key]), np.array(theirs)
        assert mine.shape == theirs.shape, key
        assert np.abs(mine - theirs).max() <= 1e-4 * max(np.abs(theirs).max(), 1e-3), key


def test_sigmoid(cores):
    x = mx.linspace(-100, 100, 1001).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(np.array(cpu.sigmoid(x)), np.array(mx.sigmoid(x)), atol=2e-7)
    ours, theirs = (mx.grad(lambda x, f=f: (f(x) * x).sum())(x) for f in (cpu.sigmoid, mx.sigmoid))
    np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=1e-4)


def test_a_batch_is_cut_into_parts_that_are_worth_it(cores):
    for count in (1, 7, 8, 16, 17, 100):
        parts = cpu.split(mx.arange(count).reshape(-1, 1))
        assert len(parts) == max(1, min(cores, count // cpu.LEAST_IMAGES))
        assert cpu.join(parts).flatten().tolist() == list(range(count))
