"""The model's layers in the forms that a CPU runs fast: same weights, same results, same gradients.

On a GPU MLX's own convolutions do this work. On a CPU they spend most of their time outside the matrix product, and
all that is not a matrix product runs on one core. So here

- a batch is cut into *parts*, one for each core, and every part is computed on a stream of its own (a thread of MLX);
  only the sums of batch norm meet, so the parts together are exactly the batch;
- a convolution is one gather of pixels and one matrix product, with its gradient written out the same way;
- batch norm and leaky ReLU are one step with one gradient, which reads its input three times instead of a dozen.

Same: 3×3, stride 1, padding 1. To gather all nine pixels of a window would take longer than to multiply them. So a row
of T is a pixel between its left and right neighbours, and a row of Y what it gives to three rows of the image, added up
where they meet. Backwards rows and columns change roles: a row of U is a pixel of dy between those above and below, and
W' is the kernel turned around.

    Y = T W        y[i] = Y0[i-1] + Y1[i] + Y2[i+1]
    X = U W'       dx[j] = X0[j-1] + X1[j] + X2[j+1]        dW = Tᵀ U

The pixels of a batch lie in memory without gaps, so each neighbour is at a fixed distance. Past the edge of an image
that distance leads to a pixel of another row or image, and a factor of 0 removes it. So zeros are needed at the two
ends of a batch only.

Down: 3×3, stride 2, padding 1. Output pixel i looks at the input pixels 2i-1, 2i, 2i+1 with w0, w1, w2:

    y = P Wᵀ        P: the 3×3 windows of x, one a row
    dW = dyᵀ P
    dx:             input pixel 2i is seen by output i alone, through w1; input pixel 2i+1 by output i through w2 and by
                    output i+1 through w0. So a 2×2 window of dy gives the 2×2 input pixels of cell i.

Up: a transposed 4×4 convolution, stride 2, padding 1. Input pixel i touches the outputs 2i-1 … 2i+2 with w0 … w3, so

    2i-1 looks at  i-1 with w2,  i with w0
    2i   looks at  i-1 with w3,  i with w1

and a 2×2 window of x gives 2×2 pixels of y. Nearest ×2 and then 3×3, padding 1, is one of these: through the doubling
input pixel i touches the same four outputs, with w2, w1+w2, w0+w1 and w0. That takes 2.25 times fewer operations than
convolving the doubled image.

Backwards the doubling is a sum over 2×2 pixels, which may as well come first. With D the sums of dy over all its 2×2
windows, and Q the 3×3 windows of D, two pixels apart, what is left is W':

    D = dy[p] + dy[p+1], in both directions        dx[i] = D[2i+1] w0 + D[2i] w1 + D[2i-1] w2 = Q W'        dW = Qᵀ x
"""

import functools
from collections.abc import Callable, Iterable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from toolkit.layers import plain
from toolkit.machine import process, ranks

LEAST_IMAGES = 8  # in a part: smaller ones cost more than they save
SLOPE = 0.01  # of leaky ReLU below zero

# UP[u, k]: entry k of the kernel leads from an input pixel to the u-th of the four outputs that it touches.
UP = ((0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0))
# DOWN_BACK[phase, tap, k]: entry k leads from output i + tap to the input pixel 2i (phase 0) or 2i+1 (phase 1).
DOWN_BACK = (((0, 1, 0), (0, 0, 0)), ((0, 0, 1), (1, 0, 0)))

# Of `logistic`, from the constant term up.
LOGISTIC_P = (0.249999995, 0.00840860252, 5.59833236e-05, 8.63228175e-08, 1.51953226e-11)
LOGISTIC_Q = (1.0, 0.11696772, 0.00163791721, 5.36017717e-06, 3.37752635e-09)


# Parts


@functools.cache
def streams() -> list[mx.Stream]:
    """Where independent work may go on side by side: one stream for each core, the first the default one."""
    return [mx.default_stream(mx.cpu), *(mx.new_stream(mx.cpu) for _ in range(process.cores() - 1))]


class Parts(list):
    """The features of a batch, cut into one array for each core; `flatten` and `reshape` make one array of them."""


def split(x: mx.array | Parts) -> Parts:
    """A batch as parts of about equal size, one for each core."""
    if isinstance(x, Parts):
        return x
    count = max(1, min(len(streams()), len(x) // LEAST_IMAGES))
    ends = [len(x) * i // count for i in range(count + 1)]
    return Parts(x[a:b] for a, b in zip(ends, ends[1:], strict=False))


def join(parts: mx.array | Parts) -> mx.array:
    """The parts of a batch put together again."""
    if not isinstance(parts, Parts):
        return parts
    return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def each(function: Callable, *batches: list | tuple) -> Parts:
    """Apply a function to every part, each on its own stream; an array that nobody has cut is refused."""
    if not all(isinstance(parts, (list, tuple)) and len(parts) <= len(streams()) for parts in batches):
        raise TypeError("not a batch in parts")
    results = Parts()
    for stream, parts in zip(streams(), zip(*batches, strict=True), strict=False):
        with mx.stream(stream):
            results.append(function(*parts))
    return results


def total(arrays: Iterable[mx.array]) -> mx.array:
    """The sum of one array of every part."""
    return functools.reduce(mx.add, arrays)


# Layers


def down(x: mx.array | Parts, conv: nn.Conv2d, norm: nn.BatchNorm) -> Parts:
    """Convolution of stride 2, batch norm, leaky ReLU: (N, H, W, C) → (N, H/2, W/2, O)."""
    return convolve_and_norm(conv_down, split(x), conv, norm)


def up(x: mx.array | Parts, conv: nn.Conv2d, norm: nn.BatchNorm | None = None) -> Parts:
    """Nearest ×2 upsampling and a convolution, then with `norm` batch norm and leaky ReLU → (N, 2H, 2W, O)."""
    return convolve(conv_up, split(x), conv, norm)


def transposed(x: mx.array | Parts, conv: nn.ConvTranspose2d, norm: nn.BatchNorm | None = None) -> Parts:
    """A transposed convolution, 3×3 or 4×4, then with `norm` batch norm and leaky ReLU → (N, 2H, 2W, O)."""
    return convolve(conv_transposed, split(x), conv, norm)


def dense(x: mx.array | Parts, linear: nn.Linear, activation: Callable | None = None) -> Parts:
    """A linear layer and an activation: (N, C) → (N, O)."""

    def of_part(x):
        y = affine(x, linear.weight, linear.bias)
        return activation(y) if activation else y

    return each(of_part, split(x))


linear, heads, labelled = plain.linear, plain.heads, plain.labelled  # small: not worth cutting


def flatten(x: mx.array | Parts) -> mx.array:
    """(N, H, W, C) → (N, H·W·C)."""
    return plain.flatten(join(x))


def reshape(x: mx.array | Parts, side: int) -> mx.array:
    """Numbers of each image as a square map: (N, …) → (N, side, side, C)."""
    return plain.reshape(join(x), side)


def conv(x: mx.array | Parts, conv: nn.Conv2d) -> Parts:
    """A 3×3 convolution of padding 1, with a stride of 1 or 2."""
    return convolve(conv_same if conv.stride == (1, 1) else conv_down, split(x), conv)


def residual(x: mx.array | Parts, first: nn.Conv2d, second: nn.Conv2d) -> Parts:
    """A residual block: x and what two 3×3 convolutions add to it, each after a leaky ReLU; same shape."""
    x = split(x)
    added = convolve(conv_same, rectified(convolve(conv_same, rectified(x), first)), second)
    return each(mx.add, x, added)


def rectified(x: mx.array | Parts, slope: float = SLOPE) -> Parts:
    """Leaky ReLU of each number; with a slope of 0, ReLU."""
    return each(lambda part: rectify(part, slope), split(x))


def convolve(convolution, parts, conv, norm=None):
    """A convolution, and with `norm` batch norm and leaky ReLU."""
    if norm is None:
        return each(lambda x: convolution(x, conv.weight) + conv.bias, parts)
    return convolve_and_norm(convolution, parts, conv, norm)


def convolve_and_norm(convolution, parts, conv, norm):
    if norm.training:
        # The convolution's bias is left out: batch norm would take it away again.
        parts, mean, variance, count = norm_in_training(each(lambda x: convolution(x, conv.weight), parts), norm)
        plain.track(norm, mean + conv.bias, variance, count)
        return parts
    # With fixed statistics batch norm is linear, and part of the kernel.
    scale = norm.weight * mx.rsqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale[:, None, None, None]
    shift = norm.bias + (conv.bias - norm.running_mean) * scale
    return each(lambda x: leaky_relu(convolution(x, weight) + shift), parts)


def leaky_relu(y, slope=SLOPE):
    return mx.maximum(y, slope * y if slope else 0)


def rectify(x, slope):
    """Leaky ReLU with its gradient from the sign of what comes out, in two passes instead of six."""
    stream = mx.default_stream(mx.cpu)

    @mx.custom_function
    def forward(x):
        return leaky_relu(x, slope)

    @forward.vjp
    def backward(_, gradient, out):
        with mx.stream(stream):
            return through_relu(out, gradient, slope)

    return forward(x)


def through_relu(out, gradient, slope=SLOPE):
    """The gradient before a leaky ReLU, from what came out of it and the gradient there."""
    return gradient * mx.maximum(mx.sign(out), slope)


def logistic(x):
    """The logistic function to 2e-7, as 1/2 + x P(x²)/Q(x²), which costs a fourth of MLX's own on a CPU.

    P and Q were fitted to it by weighted least squares; beyond ±15.5 it is as good as 0 or 1.
    """
    x = mx.clip(x, -15.5, 15.5)
    s = x * x
    p = (((LOGISTIC_P[4] * s + LOGISTIC_P[3]) * s + LOGISTIC_P[2]) * s + LOGISTIC_P[1]) * s + LOGISTIC_P[0]
    q = (((LOGISTIC_Q[4] * s + LOGISTIC_Q[3]) * s + LOGISTIC_Q[2]) * s + LOGISTIC_Q[1]) * s + LOGISTIC_Q[0]
    return 0.5 + x * p / q


def sigmoid(logits: mx.array) -> mx.array:
    """The logistic function of each number, on all cores; the errors below have the gradients."""
    return join(each(logistic, split(logits)))


def squared_error(x: mx.array, logits: mx.array) -> mx.array:
    """Σ (σ(logits) - x)² over the pixels: (N, H, W, C) twice → (N,)."""

    def value(x, logits, y):
        return mx.square(y - x)

    def slope(x, y, gradient):
        return 2 * gradient * (y - x) * y * (1 - y)

    return pixel_error(x, logits, value, slope)


def cross_entropy(x: mx.array, logits: mx.array) -> mx.array:
    """-Σ x log y + (1 - x) log(1 - y) over the pixels, with y = σ(logits) → (N,).

    As max(logit, 0) - x logit - log max(y, 1 - y), which is exact at any logit.
    """

    def value(x, logits, y):
        return mx.maximum(logits, 0) - x * logits - mx.log(mx.maximum(y, 1 - y))

    def slope(x, y, gradient):
        return gradient * (y - x)

    return pixel_error(x, logits, value, slope)


def level_error(x: mx.array, middle: mx.array, log_scale: mx.array, levels: int) -> mx.array:
    """-Σ log of what a logistic distribution has between the borders of each pixel's level, on all cores → (N,)."""
    parts = map(split, (x, middle, log_scale))
    return join(each(lambda x, middle, log_scale: plain.level_error(x, middle, log_scale, levels), *parts))


def pixel_error(x, logits, value, slope):
    """An error summed over the pixels of each image, with its gradient by the logits, on all cores.

    With y = σ(logits), `value(x, logits, y)` is the error of every pixel, and `slope(x, y, gradient)` its derivative by
    the logit times `gradient`.
    """
    xs = split(x)

    @mx.custom_function
    def forward(logits):
        parts = split(logits)
        ys = each(logistic, parts)
        errors = each(lambda x, logits, y: value(x, logits, y).flatten(1).sum(axis=1), xs, parts, ys)
        return join(errors), *ys

    @forward.vjp
    def backward(_, gradients, outputs):
        def part(x, y, gradient):
            return slope(x, y, gradient[:, None, None, None])

        return join(each(part, xs, outputs[1:], split(gradients[0])))

    return forward(logits)[0]


def norm_in_training(parts, norm):
    """Batch norm and leaky ReLU over all parts of all ranks; returns the parts, mean, variance and count.

    With r = 1/σ, per channel: z = γ r (y - μ) + β and out = leaky(z). Backwards, with dz the gradient at z,

        dβ = Σ dz      dγ = r (Σ dz·y - μ Σ dz)      dy = γ r (dz - dβ/M - r (y - μ) dγ/M)

    where M counts the pixels of the batch. Both directions need one scale and one shift a channel for each term. The
    sums are those of all ranks; only the gradients of γ and β are what a rank's own images give, as of all parameters.
    """
    pixels = mx.full(norm.weight.shape, sum(y.size for y in parts) // norm.weight.size, dtype=mx.float32)
    flat = [y.reshape(-1, y.shape[-1]) for y in parts]

    @mx.custom_function
    def forward(gamma, beta, *ys):
        sums = each(lambda y: (y.sum(axis=0), (y * y).sum(axis=0)), ys)
        sums = ranks.all_sum(mx.stack([total(s for s, _ in sums), total(q for _, q in sums), pixels]))
        mean, variance, count = plain.statistics(sums)
        scale = gamma * mx.rsqrt(variance + norm.eps)
        shift = beta - mean * scale
        return *each(lambda y: leaky_relu(y * scale + shift), ys), mean, variance, count

    @forward.vjp
    def backward(inputs, gradients, outputs):
        gamma, _, *ys = inputs
        *outs, mean, variance, count = outputs

        def back_to_z(y, out, gradient):
            dz = through_relu(out, gradient)
            return dz, dz.sum(axis=0), (dz * y).sum(axis=0)

        dzs, sums, products = zip(*each(back_to_z, ys, outs, gradients[: len(ys)]), strict=True)
        r = mx.rsqrt(variance + norm.eps)

        def slopes(sums):
            """dβ and dγ from Σ dz and Σ dz·y."""
            return sums[0], r * (sums[1] - mean * sums[0])

        own = mx.stack([total(sums), total(products)])
        dbeta, dgamma = slopes(ranks.all_sum(own))
        of_dz = gamma * r
        of_y = -of_dz * r * dgamma / count
        constant = -of_dz * dbeta / count - of_y * mean
        return *slopes(own)[::-1], *each(lambda dz, y: dz * of_dz + (y * of_y + constant), dzs, ys)

    *outs, mean, variance, count = forward(norm.weight, norm.bias, *flat)
    outs = Parts(out.reshape(y.shape) for out, y in zip(outs, parts, strict=True))
    return outs, mean, variance, count


# Products and convolutions of one part


def affine(x, weight, bias):
    """x Wᵀ + b. The gradient of W lies in memory row by row, as W does; MLX's own by columns, which slows AdamW."""
    stream = mx.default_stream(mx.cpu)

    @mx.custom_function
    def forward(x, weight, bias):
        return mx.addmm(bias, x, weight.T)

    @forward.vjp
    def backward(inputs, dy, _):
        with mx.stream(stream):
            x, weight, _ = inputs
            return dy @ weight, dy.T @ x, dy.sum(axis=0)

    return forward(x, weight, bias)


def conv_same(x, weight):
    """3×3 convolution, stride 1, padding 1; x (n, H, W, C), weight (O, 3, 3, C)."""
    stream = mx.default_stream(mx.cpu)
    n, height, width, channels = x.shape
    out = len(weight)
    in_row, in_column = has_neighbours(n, height, width)

    @mx.custom_function
    def forward(x, weight):
        t = with_neighbours(x, 1, in_row, margin=width)
        kernel = weight.transpose(2, 3, 1, 0).reshape(3 * channels, 3 * out)
        return add_neighbours(t @ kernel, width, in_column).reshape(n, height, width, out), t

    @forward.vjp
    def backward(inputs, gradients, outputs):
        with mx.stream(stream):  # else it would run on the default one
            weight, t = inputs[1], outputs[1]
            u = with_neighbours(gradients[0], width, in_column, margin=1)
            kernel = weight[:, ::-1, ::-1].transpose(1, 0, 2, 3).reshape(3 * out, 3 * channels)
            dx = add_neighbours(u @ kernel, 1, in_row).reshape(n, height, width, channels)
            dweight = (t[width:-width].T @ u[1:-1]).reshape(3, channels, 3, out)[:, :, ::-1]
            return dx, dweight.transpose(3, 2, 0, 1)

    return forward(x, weight)[0]


@functools.lru_cache(8)
def has_neighbours(n, height, width):
    """1 or 0 for every pixel, (n·H·W, 3): has it a left neighbour, itself, a right one; and above, below.

    What the cache holds is small beside what `with_neighbours` returns, which has C times as many numbers.
    """
    in_row, in_column = (np.ones((n, height, width, 3), np.float32) for _ in range(2))
    in_row[:, :, 0, 0] = in_row[:, :, -1, 2] = 0
    in_column[:, 0, :, 0] = in_column[:, -1, :, 2] = 0
    return [mx.array(has.reshape(-1, 3)) for has in (in_row, in_column)]


def with_neighbours(x, step, has, margin):
    """Each pixel of x (n, H, W, C) between those `step` before and after it, zeros where it `has` none: rows of 3·C.

    There are `margin` rows of zeros at both ends, as `add_neighbours` needs them.
    """
    channels = x.shape[-1]
    zeros = mx.zeros((margin + step, channels))
    x = mx.concatenate([zeros, x.reshape(-1, channels), zeros])
    threes = mx.as_strided(x, (len(x) - 2 * step, 3, channels), (channels, step * channels, 1))
    has = mx.pad(has, [(margin, margin), (0, 0)])
    return (threes * has[:, :, None]).reshape(-1, 3 * channels)


def add_neighbours(y, step, has):
    """For each pixel the sum of Y0 of the one `step` before it, its own Y1, and Y2 of the one `step` after it.

    The rows of y are Y0, Y1 and Y2 of all pixels, with a margin of `step` rows at both ends → (n·H·W, C).
    """
    count = len(has)
    y0, y1, y2 = y.reshape(len(y), 3, -1).swapaxes(0, 1)
    return y0[:count] * has[:, :1] + y1[step:-step] + y2[2 * step :] * has[:, 2:]


def conv_down(x, weight):
    """3×3 convolution, stride 2, padding 1; x (n, H, W, C) with even sides, weight (O, 3, 3, C)."""
    stream = mx.default_stream(mx.cpu)
    n, height, width, channels = x.shape
    out = len(weight)

    @mx.custom_function
    def forward(x, weight):
        p = windows(x, 3, stride=2, before=1)
        return (p @ weight.reshape(out, -1).T).reshape(n, height // 2, width // 2, out), p

    @forward.vjp
    def backward(inputs, gradients, outputs):
        with mx.stream(stream):
            dy, weight, p = gradients[0], inputs[1], outputs[1]
            fold = mx.array(DOWN_BACK, dtype=mx.float32)
            kernel = mx.einsum("pik,qjm,okmc->ijopqc", fold, fold, weight).reshape(4 * out, 4 * channels)
            dx = cells_to_pixels(windows(dy, 2, after=1) @ kernel, n, height // 2, width // 2)
            dweight = (p.T @ dy.reshape(-1, out)).T  # faster than the transposed product
            return dx, dweight.reshape(weight.shape)

    return forward(x, weight)[0]


def turned(weight):
    """W': the kernel turned around, (9·O, C)."""
    return weight[:, ::-1, ::-1].transpose(1, 2, 0, 3).reshape(-1, weight.shape[3])


def conv_up(x, weight):
    """Nearest ×2 upsampling, then a 3×3 convolution of padding 1; x (n, H, W, C), weight (O, 3, 3, C)."""
    stream = mx.default_stream(mx.cpu)
    n, height, width, channels = x.shape
    out = len(weight)

    @mx.custom_function
    def forward(x, weight):
        fold = mx.array(UP, dtype=mx.float32)
        return spread(x, mx.einsum("uk,vm,okmc->uvoc", fold, fold, weight))

    @forward.vjp
    def backward(inputs, dy, _):
        with mx.stream(stream):
            x, weight = inputs
            q = windows(sums_of_windows(dy), 3, stride=2)  # (n·H·W, 9·O)
            dweight = (q.T @ x.reshape(-1, channels)).reshape(3, 3, out, channels)
            return (q @ turned(weight)).reshape(x.shape), dweight[::-1, ::-1].transpose(2, 0, 1, 3)

    return forward(x, weight)


def conv_transposed(x, weight):
    """3×3 or 4×4 transposed convolution, stride 2, padding 1, to twice the size; x (n, H, W, C), weight (O, k, k, C).

    With 3×3 it is what `conv_down` does backwards: input pixel i touches the outputs 2i-1, 2i, 2i+1 with w0, w1, w2.
    The gradient of both is a convolution of stride 2.
    """
    stream = mx.default_stream(mx.cpu)
    n, height, width, channels = x.shape
    out, size = weight.shape[:2]

    @mx.custom_function
    def forward(x, weight):
        if size == 4:
            return spread(x, weight.transpose(1, 2, 0, 3))
        fold = mx.array(DOWN_BACK, dtype=mx.float32)
        kernel = mx.einsum("pik,qjm,okmc->ijcpqo", fold, fold, weight).reshape(4 * channels, 4 * out)
        return cells_to_pixels(windows(x, 2, after=1) @ kernel, n, height, width)

    @forward.vjp
    def backward(inputs, dy, _):
        with mx.stream(stream):
            x, weight = inputs
            q = windows(dy, size, stride=2, before=1, after=size - 3)  # (n·H·W, k·k·O)
            dx = (q @ weight.transpose(1, 2, 0, 3).reshape(-1, channels)).reshape(x.shape)
            dweight = (x.reshape(-1, channels).T @ q).reshape(channels, size, size, out)
            return dx, dweight.transpose(3, 1, 2, 0)

    return forward(x, weight)


def spread(x, kernel):
    """Every pixel of x (n, H, W, C) onto the 4×4 outputs that it touches, by a kernel (4, 4, O, C) → (n, 2H, 2W, O)."""
    n, height, width, channels = x.shape
    out = kernel.shape[2]
    if 4 * out > channels:  # entry u leads to the output of phase u % 2 in a window, from its second pixel if u < 2
        halves = kernel.reshape(2, 2, 2, 2, out, channels)[::-1, :, ::-1]
        of_windows = halves.transpose(0, 2, 5, 1, 3, 4).reshape(4 * channels, 4 * out)
        cells = windows(x, 2, before=1, after=1) @ of_windows
    else:  # to few channels it is cheaper to compute what each pixel spreads, and to add where that overlaps
        parts = (x.reshape(-1, channels) @ kernel.reshape(-1, channels).T).reshape(n, height, width, 2, 2, 2, 2, out)
        rows = overlap(parts[:, :, :, 0], parts[:, :, :, 1], axis=1)  # (n, H+1, W, 2, 2, 2, O)
        cells = overlap(rows[:, :, :, :, 0], rows[:, :, :, :, 1], axis=2)  # (n, H+1, W+1, 2, 2, O)
    y = cells_to_pixels(cells, n, height + 1, width + 1)
    return y[:, 1:-1, 1:-1]  # the first cell begins at pixel -1


def overlap(first, second, axis):
    """The first halves of cells plus the second halves of the cells before them; one cell more than each has."""
    return padded(first, 0, 1, axis) + padded(second, 1, 0, axis)


def padded(x, before, after, axis):
    """x with zeros at both ends of an axis."""
    return mx.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)])


def windows(x, size, stride=1, before=0, after=0):
    """All windows of size×size pixels of x (n, H, W, C) with zeros around it, as rows (n·H'·W', size²·C)."""
    x = mx.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
    n, height, width, channels = x.shape
    row, image = width * channels, height * width * channels
    shape = (n, (height - size) // stride + 1, (width - size) // stride + 1, size, size * channels)
    view = mx.as_strided(x, shape, (image, stride * row, stride * channels, row, 1))
    return view.reshape(-1, size * size * channels)


def sums_of_windows(x):
    """D: the sums of x (n, H, W, C) over all 2×2 windows, with zeros around it, (n, H+1, W+1, C)."""
    x = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    x = x[:, 1:] + x[:, :-1]
    return x[:, :, 1:] + x[:, :, :-1]


def cells_to_pixels(cells, n, height, width):
    """Rows of 2×2 pixels (n·H·W, 4·C) → the image (n, 2H, 2W, C)."""
    cells = cells.reshape(n, height, width, 2, 2, -1)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, 2 * width, -1)
