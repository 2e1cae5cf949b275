"""The two convolutions of the model in the forms that a CPU runs fast: same weights, same results.

On a CPU, MLX computes a plain convolution of stride 1 as one matrix product, but takes a naive loop for the
gradient of a strided one, and upsampling first makes it convolve four copies of every pixel. Both layers of the
model can be written with stride 1 on small cells of 2×2 pixels, exactly:

Down (3×3, stride 2, padding 1). Cut the image into cells of 2×2 pixels. Output pixel i looks at the pixels 2i-1, 2i
and 2i+1: the second half of cell i-1 and both halves of cell i. So it is a 2×2 convolution over cells, whose kernel
is the 3×3 one with a zero row above and a zero column to the left.

Up (nearest ×2, then 3×3, padding 1). Output pixels 2i and 2i+1 see, through the doubling, only two input pixels each:

    2i   looks at  i-1, i, i      with  w0, w1, w2:   w0 on i-1 and w1+w2 on i
    2i+1 looks at  i, i, i+1      with  w0, w1, w2:   w0+w1 on i and w2 on i+1

So it is a 2×2 convolution of the small image that yields the four pixels of a cell: 2.25 times fewer operations.
"""

import mlx.core as mx

# FOLD[phase, tap, k]: which of the three kernel entries k act on which of the two input pixels (tap), per phase.
FOLD = (((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1)))


def conv_down(x, weight):
    """3×3 convolution, stride 2, padding 1; x (N, H, W, C) with even sides, weight (O, 3, 3, C)."""
    n, height, width, channels = x.shape
    cells = x.reshape(n, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    cells = cells.reshape(n, height // 2, width // 2, 4 * channels)
    cells = mx.pad(cells, [(0, 0), (1, 0), (1, 0), (0, 0)])
    kernel = mx.pad(weight, [(0, 0), (1, 0), (1, 0), (0, 0)])  # (O, 4, 4, C)
    kernel = kernel.reshape(-1, 2, 2, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return mx.conv2d(cells, kernel.reshape(-1, 2, 2, 4 * channels))


def conv_up(x, weight):
    """Nearest ×2 upsampling, then a 3×3 convolution of padding 1; x (N, H, W, C), weight (O, 3, 3, C)."""
    n, height, width, channels = x.shape
    out = weight.shape[0]
    fold = mx.array(FOLD, dtype=x.dtype)
    kernel = mx.einsum("pik,okmc->poimc", fold, weight)
    kernel = mx.einsum("qjm,poimc->pqoijc", fold, kernel)  # phases p, q; taps i, j
    y = mx.conv2d(x, kernel.reshape(4 * out, 2, 2, channels), padding=1)
    y = y.reshape(n, height + 1, width + 1, 2, 2, out)  # window i covers the pixels i-1 and i
    y = mx.stack([y[:, :-1, :, 0], y[:, 1:, :, 1]], axis=2)  # phase 1 of pixel i is seen by window i+1
    y = mx.stack([y[:, :, :, :-1, 0], y[:, :, :, 1:, 1]], axis=4)
    return y.reshape(n, 2 * height, 2 * width, out)
