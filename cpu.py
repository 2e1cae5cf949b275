"""The model's layers in the forms that a CPU runs fast: same weights, same results, same gradients.

On a GPU MLX's own convolutions do this work. On a CPU they spend most of their time outside the matrix product, and
all that is not a matrix product runs on one core. So here

- a batch is cut into *parts*, one for each core, and every part is computed on a stream of its own (a thread of MLX);
  only the sums of batch norm meet, so the parts together are exactly the batch;
- a convolution is one gather of *windows* and one matrix product, with its gradient written out the same way;
- batch norm and leaky ReLU are one step with one gradient, which reads its input three times instead of a dozen.

Down: 3×3, stride 2, padding 1. Output pixel i looks at the input pixels 2i-1, 2i, 2i+1 with w0, w1, w2:

    y = P Wᵀ        P: the 3×3 windows of x, one a row
    dW = dyᵀ P
    dx:             input pixel 2i is seen by output i alone, through w1; input pixel 2i+1 by output i through w2 and by
                    output i+1 through w0. So a 2×2 window of dy gives the 2×2 input pixels of cell i.

Up: nearest ×2, then 3×3, padding 1. Through the doubling, an output pixel looks at two input pixels only:

    2i-1 looks at  i-1, i-1, i    with  w0, w1, w2:   w0+w1 on i-1 and w2 on i
    2i   looks at  i-1, i, i      with  w0, w1, w2:   w0 on i-1 and w1+w2 on i

So a 2×2 window of x gives 2×2 pixels of y, with 2.25 times fewer operations than convolving the doubled image. The
other way round, input pixel i touches the four outputs 2i-1 … 2i+2, so with Q the 4×4 windows of dy, two pixels apart,
and V the weights summed in the same manner,

    dx = Q V        dV = Qᵀ x, which folds back to dW.
"""

import functools

import mlx.core as mx

import device

LEAST_IMAGES = 8  # in a part: smaller ones cost more than they save
SLOPE = 0.01  # of leaky ReLU below zero

# UP[phase, tap, k]: entry k of the kernel acts on pixel `tap` of a window, for output 2i-1 (phase 0) or 2i (phase 1).
UP = (((1, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 1, 1)))
# UP_BACK[u, k]: entry k of the kernel leads from an input pixel to the u-th of the four outputs that it touches.
UP_BACK = ((0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0))
# DOWN_BACK[phase, tap, k]: entry k leads from output i + tap to the input pixel 2i (phase 0) or 2i+1 (phase 1).
DOWN_BACK = (((0, 1, 0), (0, 0, 0)), ((0, 0, 1), (1, 0, 0)))

# Of `logistic`, from the constant term up.
LOGISTIC_P = (0.249999995, 0.00840860252, 5.59833236e-05, 8.63228175e-08, 1.51953226e-11)
LOGISTIC_Q = (1.0, 0.11696772, 0.00163791721, 5.36017717e-06, 3.37752635e-09)


# Parts


@functools.cache
def streams():
    """One stream for each core; the first is the default one."""
    return [mx.default_stream(mx.cpu), *(mx.new_stream(mx.cpu) for _ in range(device.cores() - 1))]


def split(x):
    """Cut a batch into parts of about equal size, one for each core."""
    count = max(1, min(len(streams()), len(x) // LEAST_IMAGES))
    ends = [len(x) * i // count for i in range(count + 1)]
    return [x[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def join(parts):
    """Put the parts of a batch together."""
    return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def each(function, *batches):
    """Apply a function to every part, each on its own stream."""
    results = []
    for stream, *parts in zip(streams(), *batches, strict=False):
        with mx.stream(stream):
            results.append(function(*parts))
    return results


def total(arrays):
    """The sum of one array of every part."""
    return functools.reduce(mx.add, arrays)


# Layers


def down(parts, conv, norm):
    """Convolution of stride 2, batch norm, leaky ReLU: parts (n, H, W, C) → (n, H/2, W/2, O)."""
    return convolve_and_norm(conv_down, parts, conv, norm)


def up(parts, conv, norm=None):
    """Upsampling, convolution, and with `norm` batch norm and leaky ReLU: parts (n, H, W, C) → (n, 2H, 2W, O)."""
    if norm is None:
        return each(lambda x: conv_up(x, conv.weight) + conv.bias, parts)
    return convolve_and_norm(conv_up, parts, conv, norm)


def transposed(parts, conv, norm=None):
    """Transposed convolution of stride 2; parts and `norm` as in `up`."""
    if norm is None:
        return each(lambda x: conv_transposed(x, conv.weight) + conv.bias, parts)
    return convolve_and_norm(conv_transposed, parts, conv, norm)


def convolve_and_norm(convolve, parts, conv, norm):
    if norm.training:
        # The convolution's bias is left out: batch norm would take it away again.
        parts, mean, variance = norm_in_training(each(lambda x: convolve(x, conv.weight), parts), norm)
        keep = 1 - norm.momentum
        norm.running_mean = keep * norm.running_mean + norm.momentum * (mean + conv.bias)
        norm.running_var = keep * norm.running_var + norm.momentum * variance
        return parts
    # With fixed statistics batch norm is linear, and part of the kernel.
    scale = norm.weight * mx.rsqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale[:, None, None, None]
    shift = norm.bias + (conv.bias - norm.running_mean) * scale
    return each(lambda x: leaky_relu(convolve(x, weight) + shift), parts)


def leaky_relu(y):
    return mx.maximum(y, SLOPE * y)


def logistic(x):
    """The logistic function to 2e-7, as 1/2 + x P(x²)/Q(x²), which costs a fourth of MLX's own on a CPU.

    P and Q were fitted to it by weighted least squares; beyond ±15.5 it is as good as 0 or 1.
    """
    x = mx.clip(x, -15.5, 15.5)
    s = x * x
    p = (((LOGISTIC_P[4] * s + LOGISTIC_P[3]) * s + LOGISTIC_P[2]) * s + LOGISTIC_P[1]) * s + LOGISTIC_P[0]
    q = (((LOGISTIC_Q[4] * s + LOGISTIC_Q[3]) * s + LOGISTIC_Q[2]) * s + LOGISTIC_Q[1]) * s + LOGISTIC_Q[0]
    return 0.5 + x * p / q


def sigmoid(logits):
    """Logits → pixels, on all cores; for gradients there is `pixel_error`."""
    return join(each(logistic, split(logits)))


def pixel_error(x, logits, likelihood):
    """Reconstruction error per image, with its gradient by the logits; y are the pixels, σ(logits).

    mse: (y - x)²                                     2 (y - x) y (1 - y)
    bce: -x log y - (1 - x) log(1 - y)                y - x
         = max(logit, 0) - x logit - log max(y, 1 - y), which is exact for any logit
    """
    xs = split(x)

    def value(x, logits, y):
        if likelihood == "mse":
            errors = mx.square(y - x)
        else:
            errors = mx.maximum(logits, 0) - x * logits - mx.log(mx.maximum(y, 1 - y))
        return errors.flatten(1).sum(axis=1)

    def slope(x, y, gradient):
        gradient = gradient[:, None, None, None]
        return 2 * gradient * (y - x) * y * (1 - y) if likelihood == "mse" else gradient * (y - x)

    @mx.custom_function
    def forward(logits):
        parts = split(logits)
        ys = each(logistic, parts)
        return join(each(value, xs, parts, ys)), *ys

    @forward.vjp
    def backward(_, gradients, outputs):
        return join(each(slope, xs, outputs[1:], split(gradients[0])))

    return forward(logits)[0]


def norm_in_training(parts, norm):
    """Batch norm and leaky ReLU over all parts; returns the parts, the mean and the unbiased variance.

    With r = 1/σ, per channel: z = γ r (y - μ) + β and out = leaky(z). Backwards, with dz the gradient at z,

        dβ = Σ dz      dγ = r (Σ dz·y - μ Σ dz)      dy = γ r (dz - dβ/M - r (y - μ) dγ/M)

    where M counts the pixels of the batch. Both directions need one scale and one shift a channel for each term.
    """
    count = sum(y.size for y in parts) // norm.weight.size
    flat = [y.reshape(-1, y.shape[-1]) for y in parts]

    @mx.custom_function
    def forward(gamma, beta, *ys):
        sums = each(lambda y: (y.sum(axis=0), (y * y).sum(axis=0)), ys)
        mean = total(s for s, _ in sums) / count
        variance = mx.maximum(total(q for _, q in sums) / count - mean * mean, 0)
        scale = gamma * mx.rsqrt(variance + norm.eps)
        shift = beta - mean * scale
        return *each(lambda y: leaky_relu(y * scale + shift), ys), mean, variance

    @forward.vjp
    def backward(inputs, gradients, outputs):
        gamma, _, *ys = inputs
        *outs, mean, variance = outputs

        def through_relu(y, out, gradient):
            dz = gradient * mx.maximum(mx.sign(out), SLOPE)
            return dz, dz.sum(axis=0), (dz * y).sum(axis=0)

        dzs, sums, products = zip(*each(through_relu, ys, outs, gradients), strict=True)
        r = mx.rsqrt(variance + norm.eps)
        dbeta = total(sums)
        dgamma = r * (total(products) - mean * dbeta)
        of_dz = gamma * r
        of_y = -of_dz * r * dgamma / count
        constant = -of_dz * dbeta / count - of_y * mean
        return dgamma, dbeta, *each(lambda dz, y: dz * of_dz + (y * of_y + constant), dzs, ys)

    *outs, mean, variance = forward(norm.weight, norm.bias, *flat)
    outs = [out.reshape(y.shape) for out, y in zip(outs, parts, strict=True)]
    return outs, mean, variance * (count / max(1, count - 1))


# Convolutions of one part


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
        with mx.stream(stream):  # else it would run on the default one
            _, weight = inputs
            dy, p = gradients[0], outputs[1]
            dweight = dy.reshape(-1, out).T @ p
            fold = mx.array(DOWN_BACK, dtype=mx.float32)
            kernel = mx.einsum("pik,qjm,okmc->ijopqc", fold, fold, weight).reshape(4 * out, 4 * channels)
            dx = cells_to_pixels(windows(dy, 2, after=1) @ kernel, n, height // 2, width // 2)
            return dx, dweight.reshape(weight.shape)

    return forward(x, weight)[0]


def conv_up(x, weight):
    """Nearest ×2 upsampling, then a 3×3 convolution of padding 1; x (n, H, W, C), weight (O, 3, 3, C)."""
    stream = mx.default_stream(mx.cpu)
    n, height, width, channels = x.shape
    out = len(weight)

    @mx.custom_function
    def forward(x, weight):
        if 4 * out > channels:
            fold = mx.array(UP, dtype=mx.float32)
            kernel = mx.einsum("pik,qjm,okmc->ijcpqo", fold, fold, weight).reshape(4 * channels, 4 * out)
            cells = windows(x, 2, before=1, after=1) @ kernel
        else:  # to few channels it is cheaper to spread every pixel over its 4×4 outputs and add where they overlap
            spread = (x.reshape(-1, channels) @ touched(weight).T).reshape(n, height, width, 2, 2, 2, 2, out)
            rows = overlap(spread[:, :, :, 0], spread[:, :, :, 1], axis=1)  # (n, H+1, W, 2, 2, 2, O)
            cells = overlap(rows[:, :, :, :, 0], rows[:, :, :, :, 1], axis=2)  # (n, H+1, W+1, 2, 2, O)
        y = cells_to_pixels(cells, n, height + 1, width + 1)
        return mx.contiguous(y[:, 1:-1, 1:-1])  # the first cell begins at pixel -1

    @forward.vjp
    def backward(inputs, dy, _):
        with mx.stream(stream):
            x, weight = inputs
            q = windows(dy, 4, stride=2, before=1, after=1)
            dv = (x.reshape(-1, channels).T @ q).reshape(channels, 4, 4, out)
            fold = mx.array(UP_BACK, dtype=mx.float32)
            return (q @ touched(weight)).reshape(x.shape), mx.einsum("uk,vm,cuvo->okmc", fold, fold, dv)

    return forward(x, weight)


def conv_transposed(x, weight):
    """3×3 transposed convolution, stride 2, padding 1, output padding 1; x (n, H, W, C), weight (O, 3, 3, C).

    It is what `conv_down` does backwards: input pixel i touches the outputs 2i-1, 2i, 2i+1 with w0, w1, w2. So its own
    gradient is a convolution of stride 2.
    """
    stream = mx.default_stream(mx.cpu)
    n, height, width, channels = x.shape
    out = len(weight)

    @mx.custom_function
    def forward(x, weight):
        fold = mx.array(DOWN_BACK, dtype=mx.float32)
        kernel = mx.einsum("pik,qjm,okmc->ijcpqo", fold, fold, weight).reshape(4 * channels, 4 * out)
        return cells_to_pixels(windows(x, 2, after=1) @ kernel, n, height, width)

    @forward.vjp
    def backward(inputs, dy, _):
        with mx.stream(stream):
            x, weight = inputs
            q = windows(dy, 3, stride=2, before=1)  # (n·H·W, 9·O)
            dx = (q @ weight.transpose(1, 2, 0, 3).reshape(9 * out, channels)).reshape(x.shape)
            dweight = (x.reshape(-1, channels).T @ q).reshape(channels, 3, 3, out)
            return dx, dweight.transpose(3, 1, 2, 0)

    return forward(x, weight)


def touched(weight):
    """V: how the 4×4 outputs that an input pixel touches depend on it, (16·O, C)."""
    fold = mx.array(UP_BACK, dtype=mx.float32)
    return mx.einsum("uk,vm,okmc->uvoc", fold, fold, weight).reshape(-1, weight.shape[3])


def overlap(first, second, axis):
    """The first halves of cells plus the second halves of the cells before them; one cell more than each has."""

    def pad(x, before, after):
        return mx.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)])

    return pad(first, 0, 1) + pad(second, 1, 0)


def windows(x, size, stride=1, before=0, after=0):
    """All size×size windows of x (n, H, W, C), padded with zeros, as rows (n·H'·W', size·size·C)."""
    x = mx.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
    n, height, width, channels = x.shape
    row, image = width * channels, height * width * channels
    shape = (n, (height - size) // stride + 1, (width - size) // stride + 1, size, size * channels)
    view = mx.as_strided(x, shape, (image, stride * row, stride * channels, row, 1))
    return view.reshape(-1, size * size * channels)


def cells_to_pixels(cells, n, height, width):
    """Rows of 2×2 pixels (n·H·W, 4·C) → the image (n, 2H, 2W, C)."""
    cells = cells.reshape(n, height, width, 2, 2, -1)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, 2 * width, -1)
