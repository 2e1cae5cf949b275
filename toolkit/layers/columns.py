"""Convolutions for inference on a CPU, with the batch as the innermost axis: maps of features are (H+2, W+2, C, n).

The convolutions of cpu.py copy every window of pixels in short runs and keep them for the gradient. In this layout a
pixel and its right neighbours are contiguous, C·n numbers each. So `windows` copies only rows, one below the other as
if they were channels, in long runs, and applies the leaky ReLU of the layer before (a `slope` of 1 is none). Then the
windows of a row are matrices in place, which overlap:

    y[i, j] = W P[i, j]        P[i, j]: the k×k·C values of a window for n images, (k·k·C, n)

Every map has a border of zeros, the padding of the next convolution. Elementwise functions with f(0) = 0 keep it.
"""

import mlx.core as mx

from toolkit.layers.plain import kernel_of_up, of_windows

BORDER = [(1, 1), (1, 1), (0, 0), (0, 0)]


def from_images(x: mx.array) -> mx.array:
    """(n, H, W, C) → (H+2, W+2, C, n)."""
    return mx.pad(x.transpose(1, 2, 3, 0), BORDER)


def to_images(x: mx.array) -> mx.array:
    """(H+2, W+2, C, n) → (n, H, W, C)."""
    return x[1:-1, 1:-1].transpose(3, 0, 1, 2)


def down(x: mx.array, weight: mx.array, shift: mx.array, slope: float) -> mx.array:
    """3×3 convolution, stride 2, plus `shift`; even sides, weight (O, 3, 3, C) → (H/2+2, W/2+2, O, n)."""
    return mx.pad(by_columns(weight) @ windows(x, 3, slope, stride=2) + shift[:, None], BORDER)


def same(x: mx.array, weight: mx.array, shift: mx.array, slope: float) -> mx.array:
    """3×3 convolution, stride 1, plus `shift`; weight (O, 3, 3, C) → (H+2, W+2, O, n)."""
    return mx.pad(by_columns(weight) @ windows(x, 3, slope) + shift[:, None], BORDER)


def up(x: mx.array, weight: mx.array, shift: mx.array, slope: float) -> mx.array:
    """Nearest ×2 upsampling, a 3×3 convolution, plus `shift`; weight (O, 3, 3, C) → (2H+2, 2W+2, O, n)."""
    return spread(x, kernel_of_up(weight), shift, slope)


def transposed(x: mx.array, weight: mx.array, shift: mx.array, slope: float) -> mx.array:
    """3×3 or 4×4 transposed convolution, stride 2, plus `shift`; weight (O, k, k, C) → (2H+2, 2W+2, O, n)."""
    missing = 4 - weight.shape[1]  # entries of zero at the end
    kernel = mx.pad(weight.transpose(1, 2, 0, 3), [(0, missing), (0, missing), (0, 0), (0, 0)])
    return spread(x, kernel, shift, slope)


def spread(x: mx.array, kernel: mx.array, shift: mx.array, slope: float) -> mx.array:
    """Add every pixel to its 4×4 outputs, as in cpu.py, plus `shift`; kernel (4, 4, O, C) → (2H+2, 2W+2, O, n)."""
    channels, n = x.shape[2:]
    out = kernel.shape[2]
    weight = of_windows(kernel).transpose(1, 3, 4, 2, 0, 5).reshape(4 * out, 4 * channels)
    cells = weight @ windows(x, 2, slope)
    height, width = cells.shape[:2]
    cells = cells.reshape(height, width, 2, 2, out, n).transpose(0, 2, 1, 3, 4, 5) + shift[:, None]
    y = cells.reshape(2 * height, 2 * width, out, n)
    y[0] = y[-1] = y[:, 0] = y[:, -1] = 0  # the first cell begins at pixel -1: in the border
    return y


def by_columns(weight: mx.array) -> mx.array:
    """The rows (k·k·C) that multiply windows: column, row, channel."""
    return weight.transpose(0, 2, 1, 3).reshape(len(weight), -1)


def windows(x: mx.array, size: int, slope: float, stride: int = 1) -> mx.array:
    """All windows of size×size pixels of the leaky ReLU of a map: (H', W', size·size·C, n), by column, row, channel."""
    height, width, channels, n = x.shape
    rows, columns = ((side - size) // stride + 1 for side in (height, width))
    pixel, row = channels * n, width * channels * n

    def view(x):
        return mx.as_strided(x, (rows, width, size, pixel), (stride * row, pixel, row, 1))

    # Without a ReLU, the product is a copy, faster than that of a reshape.
    stacked = view(x) * 1.0 if slope == 1 else mx.maximum(view(x), view(slope * x) if slope else 0)
    pixel = size * pixel
    return mx.as_strided(stacked, (rows, columns, size * size * channels, n), (width * pixel, stride * pixel, n, 1))
