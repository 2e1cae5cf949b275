"""The CPU forms of the layers agree with MLX's own, in values and in gradients, in one part and in several."""

import inspect

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from toolkit.layers import cpu, forms, plain

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
    monkeypatch.setattr(cpu.process, "cores", lambda: request.param)
    cpu.streams.cache_clear()
    yield request.param
    cpu.streams.cache_clear()


def native_down(x, conv, norm):
    return nn.leaky_relu(norm(mx.conv2d(x, conv.weight, stride=2, padding=1) + conv.bias))


def native_up(x, conv, norm=None):
    y = mx.conv2d(mx.repeat(mx.repeat(x, 2, axis=1), 2, axis=2), conv.weight, padding=1) + conv.bias
    return y if norm is None else nn.leaky_relu(norm(y))


def native_transposed(x, conv, norm=None):
    missing = 4 - conv.weight.shape[1]
    y = mx.conv_transpose2d(x, conv.weight, stride=2, padding=1, output_padding=missing) + conv.bias
    return y if norm is None else nn.leaky_relu(norm(y))


def whole(h):
    return cpu.join(h) if isinstance(h, cpu.Parts) else h


def our_transposed(x, conv, norm=None):
    return whole(cpu.conv_transpose(x, conv, norm))


def our_down(x, conv, norm):
    return whole(cpu.down(x, conv, norm))


def our_up(x, conv, norm=None):
    return whole(cpu.up(x, conv, norm))


def our_conv(x, conv, stride):
    conv.stride = (stride, stride)
    return whole(cpu.conv(x, conv))


def native_conv(x, conv, stride):
    return mx.conv2d(x, conv.weight, stride=stride, padding=1) + conv.bias


def our_residual(x, conv, other):
    return whole(cpu.residual(x, conv, other))


def native_residual(x, conv, other):
    h = mx.conv2d(nn.leaky_relu(x), conv.weight, padding=1) + conv.bias
    return x + mx.conv2d(nn.leaky_relu(h), other.weight, padding=1) + other.bias


UPWARDS = [(our_up, native_up), (plain.up_in_phases, native_up), (our_transposed, native_transposed)]


class Layer(nn.Module):
    """A convolution and its norm with weights that are nowhere trivial."""

    def __init__(self, channels, out, training, size=3):
        super().__init__()
        random = np.random.default_rng(0)

        def array(*shape, least=-1.0):
            return mx.array(random.uniform(least, 1.5, shape).astype(np.float32))

        self.conv, self.norm = nn.Conv2d(channels, out, size), nn.BatchNorm(out)
        self.conv.weight, self.conv.bias = array(out, size, size, channels), array(out)
        self.norm.weight, self.norm.bias = array(out, least=0.5), array(out)
        self.norm.running_mean, self.norm.running_var = array(out), array(out, least=0.5)
        self.train(training)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_without_a_norm(shape, stride):
    compare(our_conv, native_conv, shape, False, lambda layer: (layer.conv, stride))


@pytest.mark.parametrize("shape", [(3, 1, 1, 2, 4), (17, 1, 3, 4, 2), (9, 2, 1, 3, 3)])
def test_convolution_of_maps_that_are_all_border(shape):
    compare(our_conv, native_conv, shape, False, lambda layer: (layer.conv, 1))


@pytest.mark.parametrize("images", [5, 40])
@pytest.mark.parametrize("activation", [None, nn.relu])
def test_dense_layer(images, activation):
    random = np.random.default_rng(0)
    x, towards = (mx.array(random.normal(size=(images, n)).astype(np.float32)) for n in (6, 4))
    linear = nn.Linear(6, 4)

    def gradients(layer):
        def loss(x, weights):
            linear.update(weights)
            return (whole(layer(x, linear, activation)) * towards).sum()

        return mx.grad(loss, argnums=(0, 1))(x, linear.parameters())

    ours, native = gradients(cpu.dense), gradients(plain.dense)
    for (name, a), (_, b) in zip(tree_flatten(ours), tree_flatten(native), strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-4, err_msg=name)


@pytest.mark.parametrize("shape", [(n, height, width, c, c) for n, height, width, _, c in SHAPES])
def test_residual_block(shape):
    def convs(layer):
        layer.other = nn.Conv2d(shape[4], shape[4], 3)
        layer.other.weight, layer.other.bias = 0.5 * layer.conv.weight[:, ::-1], -layer.conv.bias
        return layer.conv, layer.other

    compare(our_residual, native_residual, shape, False, convs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ours, native", [(our_down, native_down), *UPWARDS])
def test_layer_with_norm(ours, native, training, shape):
    compare(ours, native, shape, training, lambda layer: (layer.conv, layer.norm))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ours, native", UPWARDS)
def test_last_layer(ours, native, shape):
    compare(ours, native, shape, True, lambda layer: (layer.conv,))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_transposed_four_by_four(shape, training):
    compare(our_transposed, native_transposed, shape, True, lambda layer: (layer.conv,), size=4)
    compare(our_transposed, native_transposed, shape, training, lambda layer: (layer.conv, layer.norm), size=4)


def compare(ours, native, shape, training, arguments, size=3):
    n, height, width, channels, out = shape
    x = mx.random.normal((n, height, width, channels), key=mx.random.key(1))
    results = []
    for function in (ours, native):
        layer = Layer(channels, out, training, size)
        y = function(x, *arguments(layer))
        statistics = tree_flatten(layer.norm.parameters())
        towards = mx.random.normal(y.shape, key=mx.random.key(2))

        def loss(parameters, x, layer=layer, function=function, towards=towards):
            layer.update(parameters)
            return (function(x, *arguments(layer)) * towards).sum()

        dlayer, dx = mx.grad(loss, argnums=(0, 1))(Layer(channels, out, training, size).trainable_parameters(), x)
        gradients = dict(tree_flatten(dlayer))
        if training and "norm" in dlayer and len(arguments(layer)) == 2:
            gradients.pop("conv.bias")  # batch norm takes the bias away: what is left of its gradient is rounding
        results.append({"y": y, "dx": dx} | gradients | {f"then {k}": a for k, a in statistics})
    for key, theirs in results[1].items():
        mine, theirs = np.array(results[0][key]), np.array(theirs)
        assert mine.shape == theirs.shape, key
        assert np.abs(mine - theirs).max() <= 1e-5 * max(np.abs(theirs).max(), 1e-2), key


@pytest.mark.parametrize("slope", [0, 0.01])
def test_rectified(cores, slope):
    x = mx.random.normal((19, 4, 4, 3), key=mx.random.key(0))
    x = x if slope else mx.maximum(x, -0.5) + 0.5  # where ReLU gets 0, its slope is 0
    for ours, theirs in zip(*(rectify(form, x, slope) for form in (cpu, plain)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def rectify(form, x, slope):
    def loss(x):
        return whole(form.rectify(x, slope)).sum()

    return np.array(whole(form.rectify(x, slope))), np.array(mx.grad(loss)(x))


def test_sigmoid(cores):
    x = mx.linspace(-100, 100, 100_001).reshape(-1, 1, 1, 1)
    ours = np.array(cpu.sigmoid(x))
    np.testing.assert_allclose(ours, np.array(mx.sigmoid(x)), atol=3e-7)
    assert ours.min() > 0 and ours.max() < 1


@pytest.mark.parametrize("name", ["squared_error", "cross_entropy"])
def test_errors(cores, name):
    random = np.random.default_rng(0)
    x, logits = random.random((19, 4, 4, 3)), random.normal(0, 3, (19, 4, 4, 3))
    logits[:4] = np.array([100, -100, 90, -90])[:, None, None, None]
    x[0], x[1] = 0, 1  # as wrong as can be: 100 nats a pixel
    x, logits = mx.array(x.astype(np.float32)), mx.array(logits.astype(np.float32))
    towards = mx.random.normal((19,), key=mx.random.key(0))

    def results(error):
        slope = mx.grad(lambda logits: (error(x, logits) * towards).sum())(logits)
        return np.array(error(x, logits)), np.array(slope)

    (value, slope), (plain_value, plain_slope) = (results(getattr(form, name)) for form in (cpu, plain))
    np.testing.assert_allclose(value, plain_value, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(slope, plain_slope, rtol=1e-4, atol=2e-6)
    if name == "cross_entropy":
        assert value[0] == value[1] == 4800


def test_level_error(cores):
    random = np.random.default_rng(0)
    x = mx.array((random.integers(0, 256, (19, 4, 4, 3)) / 255).astype(np.float32))
    middle, log_scale = (mx.array(random.normal(0, 2, x.shape).astype(np.float32)) for _ in range(2))

    def results(error):
        of_sum = mx.value_and_grad(lambda middle, log_scale: error(x, middle, log_scale, 256).sum(), argnums=(0, 1))
        value, slopes = of_sum(middle, log_scale)
        return [np.array(value), *map(np.array, slopes)]

    for ours, theirs in zip(results(cpu.level_error), results(plain.level_error), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_both_forms_have_the_same_functions():
    for name in forms.NAMES:
        ours, theirs = (inspect.signature(getattr(form, name)).parameters for form in (cpu, plain))
        assert list(ours) == list(theirs), name
        assert getattr(forms, name) in (getattr(cpu, name), getattr(plain, name))


def test_an_unsplit_batch_is_rejected(cores):
    linear = nn.Linear(4, 5)
    assert whole(cpu.dense(mx.ones((19, 4)), linear)).shape == (19, 5)
    with pytest.raises(TypeError):
        cpu.each(linear, mx.ones((19, 4)))  # its rows would pass for parts
    with pytest.raises(ValueError):
        cpu.each(lambda a, b: a, [mx.ones(3)], [])


def test_a_batch_is_cut_into_parts_that_are_worth_it(cores):
    for count in (1, 7, 8, 16, 17, 100):
        parts = cpu.split(mx.arange(count).reshape(-1, 1))
        assert len(parts) == max(1, min(cores, count // cpu.LEAST_IMAGES))
        assert cpu.join(parts).flatten().tolist() == list(range(count))
