"""The layers as a textbook has them, on MLX's own convolutions: the form for a GPU.

`conv` and `norm` are modules of mlx.nn, `norm` a batch norm. Images are (N, H, W, C).
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from toolkit.machine import ranks


def streams() -> list[mx.Stream]:
    """Where independent work may go on side by side: on a GPU all is one stream."""
    return [mx.default_stream(mx.default_device())]


def down(x: mx.array, conv: nn.Conv2d, norm: nn.BatchNorm) -> mx.array:
    """A convolution of stride 2, batch norm, leaky ReLU: (N, H, W, C) → (N, H/2, W/2, O)."""
    return finished(mx.conv2d(x, conv.weight, stride=2, padding=1), conv.bias, norm)


def up(x: mx.array, conv: nn.Conv2d, norm: nn.BatchNorm | None = None) -> mx.array:
    """Nearest ×2 upsampling and a convolution, then with `norm` batch norm and leaky ReLU → (N, 2H, 2W, O)."""
    x = mx.repeat(mx.repeat(x, 2, axis=1), 2, axis=2)
    return finished(mx.conv2d(x, conv.weight, padding=1), conv.bias, norm)


def transposed(x: mx.array, conv: nn.ConvTranspose2d, norm: nn.BatchNorm | None = None) -> mx.array:
    """A transposed convolution, 3×3 or 4×4, then with `norm` batch norm and leaky ReLU → (N, 2H, 2W, O)."""
    missing = 4 - conv.weight.shape[1]  # of the last row and column
    x = mx.conv_transpose2d(x, conv.weight, stride=2, padding=1, output_padding=missing)
    return finished(x, conv.bias, norm)


def finished(x: mx.array, bias: mx.array, norm: nn.BatchNorm | None) -> mx.array:
    """What follows a convolution: its bias, and with `norm` batch norm and leaky ReLU.

    In training the statistics are those of all ranks, and the bias is left out, as batch norm would take it away again.
    """
    if norm is None:
        return x + bias
    if not norm.training:
        return nn.leaky_relu(norm(x + bias))
    pixels = x.reshape(-1, x.shape[-1])
    ones = mx.full(bias.shape, len(pixels), dtype=mx.float32)
    sums = ranks.differentiable_sum(mx.stack([pixels.sum(axis=0), (pixels * pixels).sum(axis=0), ones]))
    mean, variance, count = statistics(sums)
    track(norm, mean + bias, variance, count)
    return nn.leaky_relu(norm.weight * (x - mean) * mx.rsqrt(variance + norm.eps) + norm.bias)


def statistics(sums: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Mean, variance and count of the pixels of each channel, from their sum, that of their squares, and the count."""
    first, second, count = sums
    mean = first / count
    return mean, mx.maximum(second / count - mean * mean, 0), count


def track(norm: nn.BatchNorm, mean: mx.array, variance: mx.array, count: mx.array) -> None:
    """Let the running statistics follow those of a batch, whose variance is made unbiased."""
    keep, unbiased = 1 - norm.momentum, variance * (count / mx.maximum(1, count - 1))
    norm.running_mean = keep * norm.running_mean + norm.momentum * mean
    norm.running_var = keep * norm.running_var + norm.momentum * unbiased


def conv(x: mx.array, conv: nn.Conv2d) -> mx.array:
    """A 3×3 convolution of padding 1, with a stride of 1 or 2."""
    return conv(x)


def residual(x: mx.array, first: nn.Conv2d, second: nn.Conv2d) -> mx.array:
    """A residual block: x and what two 3×3 convolutions add to it, each after a leaky ReLU; same shape."""
    return x + second(rectified(first(rectified(x))))


def rectified(x: mx.array, slope: float = 0.01) -> mx.array:
    """Leaky ReLU of each number; with a slope of 0, ReLU."""
    return nn.leaky_relu(x, slope) if slope else nn.relu(x)


def dense(x: mx.array, linear: nn.Linear, activation: Callable[[mx.array], mx.array] | None = None) -> mx.array:
    """A linear layer and an activation: (N, C) → (N, O)."""
    return activation(linear(x)) if activation else linear(x)


def linear(x: mx.array, linear: nn.Linear) -> mx.array:
    """A linear layer: (N, C) → (N, O)."""
    return linear(x)


def heads(x: mx.array, mean: nn.Linear, log_var: nn.Linear) -> tuple[mx.array, mx.array]:
    """The two linear layers at the end of an encoder: (N, C) → (N, D) each."""
    return mean(x), log_var(x)


def flatten(x: mx.array) -> mx.array:
    """(N, H, W, C) → (N, H·W·C)."""
    return x.flatten(1)


def reshape(x: mx.array, side: int) -> mx.array:
    """Numbers of each image as a square map: (N, …) → (N, side, side, C)."""
    return x.reshape(len(x), side, side, -1)


def labelled(x: mx.array, labels: mx.array | None, num_classes: int) -> mx.array:
    """Features (N, C) followed by the label of each image as 0s and a 1; without classes as they are."""
    return mx.concatenate([x, one_hot(labels, num_classes)], axis=1) if num_classes else x


def one_hot(labels: mx.array | None, num_classes: int) -> mx.array:
    """The label of each image as 0s and a 1: (N,) → (N, classes)."""
    if labels is None:
        raise ValueError(f"the model is class-conditional: give a label from 0 to {num_classes - 1} for each image")
    return (labels[:, None] == mx.arange(num_classes)).astype(mx.float32)


def sigmoid(logits: mx.array) -> mx.array:
    """The logistic function of each number."""
    return mx.sigmoid(logits)


def squared_error(x: mx.array, logits: mx.array) -> mx.array:
    """Σ (σ(logits) - x)² over the pixels: (N, H, W, C) twice → (N,)."""
    return mx.square(mx.sigmoid(logits) - x).sum(axis=(1, 2, 3))


def cross_entropy(x: mx.array, logits: mx.array) -> mx.array:
    """-Σ x log σ(logits) + (1 - x) log(1 - σ(logits)) over the pixels, exact at any logit → (N,)."""
    return (mx.logaddexp(0, logits) - x * logits).sum(axis=(1, 2, 3))


def level_error(x: mx.array, middle: mx.array, log_scale: mx.array, levels: int) -> mx.array:
    """-Σ log of what a logistic distribution has between the borders of each pixel's level → (N,).

    With a and b the upper and the lower border in scales from the middle, and σ the logistic function, that is
    σ(a) - σ(b) = σ(a) σ(-b) (1 - exp(b - a)), whose logarithm is exact far out, too. Black has no lower border, white
    no upper one.
    """
    top = levels - 1
    level = mx.round(top * x)
    precision = mx.exp(-log_scale)
    width = precision / top  # a - b
    b = ((level - 0.5) / top - middle) * precision
    not_white, not_black = level < top, level > 0
    error = mx.where(not_white, mx.logaddexp(0, -b - width), 0) + mx.where(not_black, mx.logaddexp(0, b), 0)
    error = error - mx.where(not_white & not_black, mx.log(-mx.expm1(-width)), 0)
    return error.sum(axis=(1, 2, 3))
