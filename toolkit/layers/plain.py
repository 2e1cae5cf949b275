"""The layers as in a textbook, on MLX's own convolutions: the form for a GPU.

`conv` and `norm` are modules of mlx.nn; `norm` is a batch norm. Images are (N, H, W, C).
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from toolkit.machine import ranks

# UP[u, k]: through nearest ×2 upsampling, entry k of a kernel leads from an input pixel to the u-th of the four outputs
# that it adds to.
UP = ((0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0))


def streams() -> list[mx.Stream]:
    """Streams for independent work: on a GPU a single one."""
    return [mx.default_stream(mx.default_device())]


def down(x: mx.array, conv: nn.Conv2d, norm: nn.BatchNorm) -> mx.array:
    """A convolution with stride 2, batch norm, leaky ReLU: (N, H, W, C) → (N, H/2, W/2, O)."""
    return add_bias_and_norm(mx.conv2d(x, conv.weight, stride=2, padding=1), conv.bias, norm)


def up(x: mx.array, conv: nn.Conv2d, norm: nn.BatchNorm | None = None) -> mx.array:
    """Nearest ×2 upsampling and a convolution; with `norm`, batch norm and leaky ReLU follow → (N, 2H, 2W, O)."""
    x = mx.repeat(mx.repeat(x, 2, axis=1), 2, axis=2)
    return add_bias_and_norm(mx.conv2d(x, conv.weight, padding=1), conv.bias, norm)


def up_in_phases(x: mx.array, conv: nn.Conv2d, norm: nn.BatchNorm | None = None) -> mx.array:
    """The same as `up`, with 2.25 times fewer operations and an eighth of the memory for the gradient of the kernel.

    A 2×2 window of x determines 2×2 pixels of the result, so one convolution at the low resolution gives all four, as
    channels. Its kernel sums the entries of `conv` that meet the same pixel. doctor.py times both ways.
    """
    out, *_, channels = conv.weight.shape
    kernel = of_windows(kernel_of_up(conv.weight)).transpose(1, 3, 4, 0, 2, 5).reshape(4 * out, 2, 2, channels)
    cells = mx.conv2d(x, kernel, padding=1)  # (N, H+1, W+1, 4·O); the first cell begins at pixel -1
    n, height, width, _ = cells.shape
    pixels = cells.reshape(n, height, width, 2, 2, out).transpose(0, 1, 3, 2, 4, 5)
    return add_bias_and_norm(pixels.reshape(n, 2 * height, 2 * width, out)[:, 1:-1, 1:-1], conv.bias, norm)


def kernel_of_up(weight: mx.array) -> mx.array:
    """The kernel of a transposed convolution that doubles and then convolves: (O, 3, 3, C) → (4, 4, O, C)."""
    fold = mx.array(UP, dtype=mx.float32)
    return mx.einsum("uk,vm,okmc->uvoc", fold, fold, weight)


def of_windows(kernel: mx.array) -> mx.array:
    """A kernel (4, 4, O, C) as what 2×2 pixels add to the 2×2 outputs between them.

    Its axes are row and row of the output, column and column of the output, O, C: entry u leads to the output u % 2,
    from the second pixel if u < 2.
    """
    return kernel.reshape(2, 2, 2, 2, *kernel.shape[2:])[::-1, :, ::-1]


def conv_transpose(x: mx.array, conv: nn.ConvTranspose2d, norm: nn.BatchNorm | None = None) -> mx.array:
    """A 3×3 or 4×4 transposed convolution; with `norm`, batch norm and leaky ReLU follow → (N, 2H, 2W, O)."""
    missing = 4 - conv.weight.shape[1]  # rows and columns at the end
    x = mx.conv_transpose2d(x, conv.weight, stride=2, padding=1, output_padding=missing)
    return add_bias_and_norm(x, conv.bias, norm)


def add_bias_and_norm(x: mx.array, bias: mx.array, norm: nn.BatchNorm | None) -> mx.array:
    """Add a convolution's bias; with `norm`, apply batch norm and leaky ReLU.

    In training the statistics are over all ranks, and the bias is left out, as batch norm would subtract it again.
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
    """Mean, variance and number of the pixels in each channel, from their sum, sum of squares and number."""
    first, second, count = sums
    mean = first / count
    return mean, mx.maximum(second / count - mean * mean, 0), count


def track(norm: nn.BatchNorm, mean: mx.array, variance: mx.array, count: mx.array) -> None:
    """Update the running statistics with those of a batch, using the unbiased variance."""
    keep, unbiased = 1 - norm.momentum, variance * (count / mx.maximum(1, count - 1))
    norm.running_mean = keep * norm.running_mean + norm.momentum * mean
    norm.running_var = keep * norm.running_var + norm.momentum * unbiased


def conv(x: mx.array, conv: nn.Conv2d) -> mx.array:
    """A 3×3 convolution with padding 1 and stride 1 or 2."""
    return conv(x)


def residual(x: mx.array, first: nn.Conv2d, second: nn.Conv2d) -> mx.array:
    """A residual block: x plus two 3×3 convolutions, each after a leaky ReLU; same shape."""
    return x + second(rectify(first(rectify(x))))


def rectify(x: mx.array, slope: float = 0.01) -> mx.array:
    """Leaky ReLU, elementwise; with a slope of 0, ReLU."""
    return nn.leaky_relu(x, slope) if slope else nn.relu(x)


def dense(x: mx.array, linear: nn.Linear, activation: Callable[[mx.array], mx.array] | None = None) -> mx.array:
    """A linear layer and an activation, if any: (N, C) → (N, O)."""
    return activation(linear(x)) if activation else linear(x)


def heads(x: mx.array, mean: nn.Linear, log_var: nn.Linear) -> tuple[mx.array, mx.array]:
    """The two linear layers at the end of an encoder: (N, C) → (N, D) each."""
    return mean(x), log_var(x)


def flatten(x: mx.array) -> mx.array:
    """(N, H, W, C) → (N, H·W·C)."""
    return x.flatten(1)


def reshape(x: mx.array, side: int) -> mx.array:
    """The values of each image as a square feature map: (N, …) → (N, side, side, C)."""
    return x.reshape(len(x), side, side, -1)


def join(x: mx.array) -> mx.array:
    """The whole batch as one array; only on a CPU is it anything else."""
    return x


def append_labels(x: mx.array, labels: mx.array | None, num_classes: int) -> mx.array:
    """Features (N, C) followed by one-hot labels; unchanged if there are no classes."""
    return mx.concatenate([x, one_hot(labels, num_classes)], axis=1) if num_classes else x


def one_hot(labels: mx.array | None, num_classes: int) -> mx.array:
    """One-hot labels: (N,) → (N, classes)."""
    if labels is None:
        raise ValueError(f"the model is class-conditional: give a label from 0 to {num_classes - 1} for each image")
    return (labels[:, None] == mx.arange(num_classes)).astype(mx.float32)


def sigmoid(logits: mx.array) -> mx.array:
    """The logistic function, elementwise."""
    return mx.sigmoid(logits)


def squared_error(x: mx.array, logits: mx.array) -> mx.array:
    """Σ (σ(logits) - x)² over the pixels: (N, H, W, C) twice → (N,)."""
    return mx.square(mx.sigmoid(logits) - x).sum(axis=(1, 2, 3))


def cross_entropy(x: mx.array, logits: mx.array) -> mx.array:
    """-Σ x log σ(logits) + (1 - x) log(1 - σ(logits)) over the pixels, accurate for any logit → (N,)."""
    return (mx.logaddexp(0, logits) - x * logits).sum(axis=(1, 2, 3))


def level_error(x: mx.array, middle: mx.array, log_scale: mx.array, levels: int) -> mx.array:
    """-Σ log P(level) over the pixels → (N,), with the probability of a level from a logistic distribution.

    P is the difference of the logistic CDF σ at the level's borders a and b, in scales from the middle. Written as
    σ(a) - σ(b) = σ(a) σ(-b) (1 - exp(b - a)), its logarithm is accurate far from the middle, too. Black has no lower
    border, white no upper one.
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
