"""Similarity of images and their reconstructions, for pixels in [0, 1]."""

import math

import mlx.core as mx
import numpy as np


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in decibels."""
    return 10 * math.log10(1 / mean_squared_error) if mean_squared_error else math.inf


def ssim(x: mx.array, y: mx.array) -> mx.array:
    """Structural similarity of each image, as defined by Wang et al. (2004): 11×11 Gaussian windows with σ = 1.5."""
    size = min(11, x.shape[1])
    window = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / 1.5) ** 2)
    side = x.shape[1] - size + 1
    band = np.zeros((side, x.shape[1]), np.float32)
    for i in range(side):
        band[i, i : i + size] = window / window.sum()
    band = mx.array(band)

    def smooth(a):
        return band @ a.transpose(0, 3, 1, 2) @ band.T  # (N, C, side, side)

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x * mean_x, smooth(y * y) - mean_y * mean_y
    both = smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return (similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean(axis=(1, 2, 3))
