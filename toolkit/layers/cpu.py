"""The layers in the form that runs fast on a CPU: same weights, same results, same gradients.

On a CPU, MLX's own convolutions spend most of their time outside the matrix product, and everything but matrix products
runs on one core. So here

- a batch is split into *parts*, one per core, each computed on its own stream (a thread of MLX); batch norm adds up the
  sums of all parts, so the results are those of the whole batch;
- a convolution is one gather of pixels and one matrix product, and its gradient is written out the same way;
- batch norm and leaky ReLU are one step with one gradient, which reads its input three times instead of a dozen;
- inference, which needs no gradients, copies less: columns.py.

Same: 3×3, stride 1, padding 1. Gathering all nine pixels of a window would take longer than multiplying them. Instead
a row of T holds a pixel and its left and right neighbours, a row of Y what they contribute to three rows of the image,
and the contributions are added. Backwards, rows and columns swap roles: a row of U holds a pixel of dy and those above
and below it, and W' is the kernel rotated by 180°.

    Y = T W        y[i] = Y0[i-1] + Y1[i] + Y2[i+1]
    X = U W'       dx[j] = X0[j-1] + X1[j] + X2[j+1]        dW = Tᵀ U

The pixels of a batch are contiguous in memory, so each neighbour is at a fixed offset. Past the edge of an image that
offset leads to a pixel of another row or image, and a factor of 0 removes it. So only the two ends of a batch need
padding.

Down: 3×3, stride 2, padding 1. Output pixel i reads the input pixels 2i-1, 2i, 2i+1 with w0, w1, w2:

    y = P Wᵀ        P: the 3×3 windows of x, one per row
    dW = dyᵀ P
    dx:             input pixel 2i is read by output i alone, through w1; input pixel 2i+1 by output i through w2 and by
                    output i+1 through w0. So a 2×2 window of dy gives the 2×2 input pixels of cell i.

Up: a transposed 4×4 convolution, stride 2, padding 1. Input pixel i adds to the outputs 2i-1 … 2i+2 with w0 … w3, so

    2i-1 reads  i-1 with w2,  i with w0
    2i   reads  i-1 with w3,  i with w1

and a 2×2 window of x gives 2×2 pixels of y. Nearest ×2 upsampling with a 3×3 convolution is a special case: through the
doubling, input pixel i adds to the same four outputs, with w2, w1+w2, w0+w1 and w0. That takes 2.25 times fewer
operations than convolving the doubled image.

Backwards, the doubling is a sum over 2×2 pixels, which may as well come first. Let D be the sums of dy over all its 2×2
windows, and Q the 3×3 windows of D with stride 2; the kernel is W' again:

    D = dy[p] + dy[p+1], in both directions        dx[i] = D[2i+1] w0 + D[2i] w1 + D[2i-1] w2 = Q W'        dW = Qᵀ x
"""

import functools
from collections.abc import Callable, Iterable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from toolkit.layers import columns, plain
from toolkit.machine import process, ranks

LEAST_IMAGES = 8  # in a part: smaller parts cost more than they save
LONG_RUN = 32  # numbers
SLOPE = 0.01  # of leaky ReLU below zero

# DOWN_BACK[phase, tap, k]: entry k leads from output i + tap to the input pixel 2i (phase 0) or 2i+1 (phase 1).
DOWN_BACK = (((0, 1, 0), (0, 0, 0)), ((0, 0, 1), (1, 0, 0)))

# Coefficients of `logistic`, lowest order first.
LOGISTIC_P = (0.249999995, 0.00840860252, 5.59833236e-05, 8.63228175e-08, 1.51953226e-11)
LOGISTIC_Q = (1.0, 0.11696772, 0.00163791721, 5.36017717e-06, 3.37752635e-09)


# Parts


@functools.cache
def streams() -> list[mx.Stream]:
    """One stream per core for independent work; the first is the default stream."""
    return [mx.default_stream(mx.cpu), *(mx.new_stream(mx.cpu) for _ in range(process.cores() - 1))]


class Parts(list):
    """The features of a batch as one array per core; `join` makes one array of them."""


class Columns(Parts):
    """The same for inference, as maps of columns.py, before a leaky ReLU of this slope."""

    def __init__(self, maps: Iterable[mx.array], slope: float = 1):
        super().__init__(maps)
        self.slope = slope


def split(x: mx.array | Parts) -> Parts:
    """A batch in parts of about equal size, one per core."""
    if isinstance(x, Parts):
        return x
    count = max(1, min(len(streams()), len(x) // LEAST_IMAGES))
    ends = [len(x) * i // count for i in range(count + 1)]
    return Parts(x[a:b] for a, b in zip(ends, ends[1:], strict=False))


def arrange(x: mx.array | Parts, layer: nn.Module) -> Parts:
    """A batch in the parts that a layer takes: as columns in inference."""
    if layer.training or isinstance(x, Columns):
        return split(x)
    return each(columns.from_images, Columns(split(x)))


def join(x: mx.array | Parts) -> mx.array:
    """The parts of a batch as one array."""
    if not isinstance(x, Parts):
        return x
    parts = images(x)
    return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def images(x: mx.array | Parts) -> Parts:
    """A batch in parts that begin with the axis of images."""
    return Parts(each(columns.to_images, x)) if isinstance(x, Columns) else split(x)


def each(function: Callable, *batches: list | tuple) -> Parts:
    """Apply a function to every part, each on its own stream; raises TypeError for an unsplit array."""
    if not all(isinstance(parts, (list, tuple)) and len(parts) <= len(streams()) for parts in batches):
        raise TypeError("not a batch in parts")
    results = []
    for stream, parts in zip(streams(), zip(*map(activated, batches), strict=True), strict=False):
        with mx.stream(stream):
            results.append(function(*parts))
    return (Columns if isinstance(batches[0], Columns) else Parts)(results)


def activated(parts: list | tuple) -> list | tuple:
    """Parts with their leaky ReLU applied."""
    slope = getattr(parts, "slope", 1)
    return parts if slope == 1 else each(lambda x: leaky_relu(x, slope), Columns(parts))


def differentiable(forward: Callable, backward: Callable, *inputs: mx.array) -> mx.array:
    """forward(*inputs); gradients come from backward(inputs, gradients, outputs), on the stream that is current now."""
    stream = mx.default_stream(mx.cpu)

    def on_stream(*arguments):
        with mx.stream(stream):  # otherwise gradients run on the default stream
            return backward(*arguments)

    function = mx.custom_function(forward)
    function.vjp(on_stream)
    return function(*inputs)


# Layers, as plain.py describes them


def down(x: mx.array | Parts, conv: nn.Conv2d, norm: nn.BatchNorm) -> Parts:
    return convolve(conv_down, x, conv, norm)


def up(x: mx.array | Parts, conv: nn.Conv2d, norm: nn.BatchNorm | None = None) -> Parts:
    return convolve(conv_up, x, conv, norm)


def conv_transpose(x: mx.array | Parts, conv: nn.ConvTranspose2d, norm: nn.BatchNorm | None = None) -> Parts:
    return convolve(conv_transposed, x, conv, norm)


def conv(x: mx.array | Parts, conv: nn.Conv2d) -> Parts:
    return convolve(conv_same if conv.stride == (1, 1) else conv_down, x, conv)


def residual(x: mx.array | Parts, first: nn.Conv2d, second: nn.Conv2d) -> Parts:
    x = arrange(x, first)
    return each(mx.add, x, convolve(conv_same, rectify(convolve(conv_same, rectify(x), first)), second))


def rectify(x: mx.array | Parts, slope: float = SLOPE) -> Parts:
    if isinstance(x, Columns):
        return Columns(activated(x), slope)

    # The gradient takes its sign from the output: two passes instead of six.
    def forward(x):
        return leaky_relu(x, slope)

    def backward(_, gradient, out):
        return relu_gradient(out, gradient, slope)

    return each(functools.partial(differentiable, forward, backward), split(x))


def dense(x: mx.array | Parts, linear: nn.Linear, activation: Callable | None = None) -> Parts:
    def one(x):
        y = affine(x, linear.weight, linear.bias)
        return activation(y) if activation else y

    return each(one, split(x))


def heads(x: mx.array | Parts, mean: nn.Linear, log_var: nn.Linear) -> tuple[mx.array, mx.array]:
    return join(dense(x, mean)), join(dense(x, log_var))


def flatten(x: mx.array | Parts) -> Parts:
    return each(plain.flatten, images(x))


def reshape(x: mx.array | Parts, side: int) -> Parts:
    return each(lambda x: plain.reshape(x, side), images(x))


def append_labels(x: mx.array | Parts, labels: mx.array | None, num_classes: int) -> mx.array | Parts:
    return plain.append_labels(join(x), labels, num_classes) if num_classes else x


def sigmoid(logits: mx.array) -> mx.array:
    return join(each(logistic, split(logits)))


def squared_error(x: mx.array, logits: mx.array) -> mx.array:
    def value(x, logits, y):
        return mx.square(y - x)

    def slope(x, y, gradient):
        return 2 * gradient * (y - x) * y * (1 - y)

    return pixel_error(x, logits, value, slope)


def cross_entropy(x: mx.array, logits: mx.array) -> mx.array:
    # As max(logit, 0) - x logit - log max(y, 1 - y), which is accurate for any logit.
    def value(x, logits, y):
        return mx.maximum(logits, 0) - x * logits - mx.log(mx.maximum(y, 1 - y))

    def slope(x, y, gradient):
        return gradient * (y - x)

    return pixel_error(x, logits, value, slope)


def level_error(x: mx.array, middle: mx.array, log_scale: mx.array, levels: int) -> mx.array:
    return join(each(functools.partial(plain.level_error, levels=levels), *map(split, (x, middle, log_scale))))


# Activations, errors, batch norm


def leaky_relu(y, slope=SLOPE):
    return mx.maximum(y, slope * y if slope else 0)


def relu_gradient(out, gradient, slope=SLOPE):
    """The gradient at the input of a leaky ReLU, from its output and the gradient there."""
    return gradient * mx.maximum(mx.sign(out), slope)


def logistic(x):
    """The logistic function to 2e-7, as 1/2 + x P(x²)/Q(x²), at a fourth of the cost of MLX's own on a CPU.

    P and Q were fitted by weighted least squares; x is clipped to ±15.5, where the result is within 2e-7 of 0 or 1.
    """
    x = mx.clip(x, -15.5, 15.5)
    s = x * x
    p = (((LOGISTIC_P[4] * s + LOGISTIC_P[3]) * s + LOGISTIC_P[2]) * s + LOGISTIC_P[1]) * s + LOGISTIC_P[0]
    q = (((LOGISTIC_Q[4] * s + LOGISTIC_Q[3]) * s + LOGISTIC_Q[2]) * s + LOGISTIC_Q[1]) * s + LOGISTIC_Q[0]
    return 0.5 + x * p / q


def pixel_error(x, logits, value, slope):
    """An error summed over the pixels of each image, with its gradient with respect to the logits, on all cores.

    With y = σ(logits), `value(x, logits, y)` is the error of each pixel, and `slope(x, y, gradient)` its derivative
    times `gradient`.
    """
    xs = split(x)

    def forward(logits):
        parts = split(logits)
        ys = each(logistic, parts)
        errors = each(lambda x, logits, y: value(x, logits, y).flatten(1).sum(axis=1), xs, parts, ys)
        return join(errors), *ys

    def backward(_, gradients, outputs):
        def one(x, y, gradient):
            return slope(x, y, gradient[:, None, None, None])

        return join(each(one, xs, outputs[1:], split(gradients[0])))

    return differentiable(forward, backward, logits)[0]


def convolve(convolution, x, conv, norm=None):
    """A convolution of every part; with `norm`, batch norm and leaky ReLU follow."""
    parts = arrange(x, conv)
    if isinstance(parts, Columns):
        return convolve_columns(convolution, parts, conv, norm)
    if norm is None:
        return each(lambda x: convolution(x, conv.weight) + conv.bias, parts)
    # The convolution's bias is left out, as batch norm would subtract it again.
    parts, mean, variance, count = norm_in_training(each(lambda x: convolution(x, conv.weight), parts), norm)
    plain.track(norm, mean + conv.bias, variance, count)
    return parts


def convolve_columns(convolution, parts, conv, norm):
    """The same in inference, by the functions of columns.py."""
    weight, shift = conv.weight, conv.bias
    if norm is not None:  # with fixed statistics it is linear and can be folded into the kernel
        scale = norm.weight * mx.rsqrt(norm.running_var + norm.eps)
        weight, shift = weight * scale[:, None, None, None], norm.bias + (shift - norm.running_mean) * scale
    maps = each(lambda x: IN_COLUMNS[convolution](x, weight, shift, parts.slope), Columns(parts))
    return Columns(maps, 1 if norm is None else SLOPE)


def norm_in_training(parts, norm):
    """Batch norm and leaky ReLU over all parts of all ranks → the parts, mean, variance and count.

    With r = 1/σ, per channel: z = γ r (y - μ) + β and out = leaky(z). Backwards, with dz the gradient at z,

        dβ = Σ dz      dγ = r (Σ dz·y - μ Σ dz)      dy = γ r (dz - dβ/M - r (y - μ) dγ/M)

    where M is the number of pixels in the batch. The sums in dy are over all ranks. The gradients of γ and β are those
    of a rank's own images, as for all parameters.
    """
    pixels = mx.full(norm.weight.shape, sum(y.size for y in parts) // norm.weight.size, dtype=mx.float32)
    flat = [y.reshape(-1, y.shape[-1]) for y in parts]

    def add(arrays):
        return functools.reduce(mx.add, arrays)

    def forward(gamma, beta, *ys):
        sums, squares = zip(*each(lambda y: (y.sum(axis=0), (y * y).sum(axis=0)), ys), strict=True)
        sums = ranks.all_sum(mx.stack([add(sums), add(squares), pixels]))
        mean, variance, count = plain.statistics(sums)
        scale = gamma * mx.rsqrt(variance + norm.eps)
        shift = beta - mean * scale
        return *each(lambda y: leaky_relu(y * scale + shift), ys), mean, variance, count

    def backward(inputs, gradients, outputs):
        gamma, _, *ys = inputs
        *outs, mean, variance, count = outputs

        def back_to_z(y, out, gradient):
            dz = relu_gradient(out, gradient)
            return dz, dz.sum(axis=0), (dz * y).sum(axis=0)

        dzs, sums, products = zip(*each(back_to_z, ys, outs, gradients[: len(ys)]), strict=True)
        r = mx.rsqrt(variance + norm.eps)

        def slopes(sums):
            """dβ and dγ from Σ dz and Σ dz·y."""
            return sums[0], r * (sums[1] - mean * sums[0])

        own = mx.stack([add(sums), add(products)])
        dbeta, dgamma = slopes(ranks.all_sum(own))
        of_dz = gamma * r
        of_y = -of_dz * r * dgamma / count
        constant = -of_dz * dbeta / count - of_y * mean
        return *slopes(own)[::-1], *each(lambda dz, y: dz * of_dz + (y * of_y + constant), dzs, ys)

    *outs, mean, variance, count = differentiable(forward, backward, norm.weight, norm.bias, *flat)
    outs = Parts(out.reshape(y.shape) for out, y in zip(outs, parts, strict=True))
    return outs, mean, variance, count


# Products and convolutions of one part


def affine(x, weight, bias):
    """x Wᵀ + b. The gradient of W is row-major like W; MLX's own is column-major, which slows AdamW down."""

    def backward(inputs, dy, _):
        x, weight, _ = inputs
        return dy @ weight, dy.T @ x, dy.sum(axis=0)

    return differentiable(lambda x, weight, bias: mx.addmm(bias, x, weight.T), backward, x, weight, bias)


def conv_same(x, weight):
    """3×3 convolution, stride 1, padding 1; x (n, H, W, C), weight (O, 3, 3, C)."""
    n, height, width, channels = x.shape
    out = len(weight)
    in_row, in_column = neighbour_masks(n, height, width)

    def forward(x, weight):
        t = gather_neighbours(x, 1, in_row, margin=width)
        kernel = weight.transpose(2, 3, 1, 0).reshape(3 * channels, 3 * out)
        return add_neighbours(t @ kernel, width, in_column).reshape(n, height, width, out), t

    def backward(inputs, gradients, outputs):
        weight, t = inputs[1], outputs[1]
        u = gather_neighbours(gradients[0], width, in_column, margin=1)
        kernel = weight[:, ::-1, ::-1].transpose(1, 0, 2, 3).reshape(3 * out, 3 * channels)
        dx = add_neighbours(u @ kernel, 1, in_row).reshape(n, height, width, channels)
        dweight = (t[width:-width].T @ u[1:-1]).reshape(3, channels, 3, out)[:, :, ::-1]
        return dx, dweight.transpose(3, 2, 0, 1)

    return differentiable(forward, backward, x, weight)[0]


@functools.lru_cache(8)
def neighbour_masks(n, height, width):
    """Two masks (n·H·W, 3) of 1 and 0: whether a pixel has a left neighbour, itself, a right one; and above, below.

    Small compared with the result of `gather_neighbours`, which is C times as large, so the cache costs little.
    """
    in_row, in_column = (np.ones((n, height, width, 3), np.float32) for _ in range(2))
    in_row[:, :, 0, 0] = in_row[:, :, -1, 2] = 0
    in_column[:, 0, :, 0] = in_column[:, -1, :, 2] = 0
    return [mx.array(mask.reshape(-1, 3)) for mask in (in_row, in_column)]


def gather_neighbours(x, step, mask, margin):
    """Each pixel of x (n, H, W, C) between those `step` before and after it, zeros where `mask` is 0: rows of 3·C.

    `margin` rows of zeros are added at both ends for `add_neighbours`.
    """
    channels = x.shape[-1]
    zeros = mx.zeros((margin + step, channels))
    x = mx.concatenate([zeros, x.reshape(-1, channels), zeros])
    threes = mx.as_strided(x, (len(x) - 2 * step, 3, channels), (channels, step * channels, 1))
    mask = mx.pad(mask, [(margin, margin), (0, 0)])
    return (threes * mask[:, :, None]).reshape(-1, 3 * channels)


def add_neighbours(y, step, mask):
    """For each pixel the sum of Y0 of the pixel `step` before it, its own Y1, and Y2 of the pixel `step` after it.

    The rows of y are Y0, Y1 and Y2 of all pixels, with a margin of `step` rows at both ends → (n·H·W, C).
    """
    count = len(mask)
    y0, y1, y2 = y.reshape(len(y), 3, -1).swapaxes(0, 1)
    return y0[:count] * mask[:, :1] + y1[step:-step] + y2[2 * step :] * mask[:, 2:]


def conv_down(x, weight):
    """3×3 convolution, stride 2, padding 1; x (n, H, W, C) with even sides, weight (O, 3, 3, C)."""
    n, height, width, channels = x.shape
    out = len(weight)

    def forward(x, weight):
        p = windows(x, 3, stride=2, before=1)
        return (p @ weight.reshape(out, -1).T).reshape(n, height // 2, width // 2, out), p

    def backward(inputs, gradients, outputs):
        dy, weight, p = gradients[0], inputs[1], outputs[1]
        fold = mx.array(DOWN_BACK, dtype=mx.float32)
        kernel = mx.einsum("pik,qjm,okmc->ijopqc", fold, fold, weight).reshape(4 * out, 4 * channels)
        dx = cells_to_pixels(windows(dy, 2, after=1) @ kernel, n, height // 2, width // 2)
        dweight = (p.T @ dy.reshape(-1, out)).T  # faster than the transposed product
        return dx, dweight.reshape(weight.shape)

    return differentiable(forward, backward, x, weight)[0]


def conv_up(x, weight):
    """Nearest ×2 upsampling, then a 3×3 convolution with padding 1; x (n, H, W, C), weight (O, 3, 3, C)."""
    out, *_, channels = weight.shape

    def forward(x, weight):
        return spread(x, plain.kernel_of_up(weight))

    def backward(inputs, dy, _):
        x, weight = inputs
        q = windows(sums_of_windows(dy), 3, stride=2)  # (n·H·W, 9·O)
        rotated = weight[:, ::-1, ::-1].transpose(1, 2, 0, 3).reshape(-1, channels)  # W', (9·O, C)
        dweight = (q.T @ x.reshape(-1, channels)).reshape(3, 3, out, channels)
        return (q @ rotated).reshape(x.shape), dweight[::-1, ::-1].transpose(2, 0, 1, 3)

    return differentiable(forward, backward, x, weight)


def conv_transposed(x, weight):
    """3×3 or 4×4 transposed convolution, stride 2, padding 1, to twice the size; x (n, H, W, C), weight (O, k, k, C).

    With 3×3 it is the gradient of `conv_down`: input pixel i adds to the outputs 2i-1, 2i, 2i+1 with w0, w1, w2. The
    gradient of either is a convolution of stride 2.
    """
    n, height, width, channels = x.shape
    out, size = weight.shape[:2]

    def forward(x, weight):
        if size == 4:
            return spread(x, weight.transpose(1, 2, 0, 3))
        fold = mx.array(DOWN_BACK, dtype=mx.float32)
        kernel = mx.einsum("pik,qjm,okmc->ijcpqo", fold, fold, weight).reshape(4 * channels, 4 * out)
        return cells_to_pixels(windows(x, 2, after=1) @ kernel, n, height, width)

    def backward(inputs, dy, _):
        x, weight = inputs
        q = windows(dy, size, stride=2, before=1, after=size - 3)  # (n·H·W, k·k·O)
        dx = (q @ weight.transpose(1, 2, 0, 3).reshape(-1, channels)).reshape(x.shape)
        dweight = (x.reshape(-1, channels).T @ q).reshape(channels, size, size, out)
        return dx, dweight.transpose(3, 1, 2, 0)

    return differentiable(forward, backward, x, weight)


IN_COLUMNS = {
    conv_same: columns.same,
    conv_down: columns.down,
    conv_up: columns.up,
    conv_transposed: columns.transposed,
}


def spread(x, kernel):
    """Add every pixel of x (n, H, W, C) to its 4×4 outputs, with a kernel (4, 4, O, C) → (n, 2H, 2W, O)."""
    n, height, width, channels = x.shape
    out = kernel.shape[2]
    if 4 * out > channels:
        weight = plain.of_windows(kernel).transpose(0, 2, 5, 1, 3, 4).reshape(4 * channels, 4 * out)
        cells = windows(x, 2, before=1, after=1) @ weight
    else:  # for few channels it is cheaper to compute what each pixel adds, and to sum where that overlaps
        parts = (x.reshape(-1, channels) @ kernel.reshape(-1, channels).T).reshape(n, height, width, 2, 2, 2, 2, out)
        rows = overlap_add(parts[:, :, :, 0], parts[:, :, :, 1], axis=1)  # (n, H+1, W, 2, 2, 2, O)
        cells = overlap_add(rows[:, :, :, :, 0], rows[:, :, :, :, 1], axis=2)  # (n, H+1, W+1, 2, 2, O)
    y = cells_to_pixels(cells, n, height + 1, width + 1)
    return y[:, 1:-1, 1:-1] * 1.0  # the first cell begins at pixel -1


def overlap_add(first, second, axis):
    """The first halves of cells plus the second halves of the cells before them; one cell more along the axis."""

    def pad(x, before, after):
        return mx.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)])

    return pad(first, 0, 1) + pad(second, 1, 0)


def windows(x, size, stride=1, before=0, after=0):
    """All windows of size×size pixels of x (n, H, W, C), padded with zeros, as rows (n·H'·W', size²·C)."""
    x = mx.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
    n, height, width, channels = x.shape
    row, image = width * channels, height * width * channels
    shape = (n, (height - size) // stride + 1, (width - size) // stride + 1, size, size * channels)
    view = mx.as_strided(x, shape, (image, stride * row, stride * channels, row, 1))
    return copied(view).reshape(-1, size * size * channels)


def copied(view):
    """A view in row-major order. MLX copies long runs faster where it multiplies."""
    return view * 1.0 if view.shape[-1] >= LONG_RUN else view


def sums_of_windows(x):
    """D: the sums of x (n, H, W, C) over all 2×2 windows, padded with zeros, (n, H+1, W+1, C)."""
    x = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    x = x[:, 1:] + x[:, :-1]
    return x[:, :, 1:] + x[:, :, :-1]


def cells_to_pixels(cells, n, height, width):
    """Rows of 2×2 pixels (n·H·W, 4·C) → the image (n, 2H, 2W, C)."""
    cells = cells.reshape(n, height, width, 2, -1)
    return copied(cells.swapaxes(2, 3)).reshape(n, 2 * height, 2 * width, -1)
