"""The layers of all architectures. On a CPU `h` is a list of parts of the batch, one for each core: cpu.py says why."""

import mlx.core as mx
import mlx.nn as nn

import cpu
from device import on_cpu


def split(x):
    return cpu.split(x) if on_cpu() else x


def join(h):
    return cpu.join(h) if on_cpu() else h


def sigmoid(logits):
    """Logits → pixels."""
    return cpu.sigmoid(logits) if on_cpu() else mx.sigmoid(logits)


def down(h, conv, norm):
    """A convolution that halves the image, batch norm, leaky ReLU: (N, H, W, C) → (N, H/2, W/2, O)."""
    if on_cpu():
        return cpu.down(h, conv, norm)
    return nn.leaky_relu(norm(conv(h)))


def dense(h, linear, activation=None):
    """A linear layer: (N, C) → (N, O)."""

    def layer(x):
        return activation(linear(x)) if activation else linear(x)

    return cpu.each(layer, h) if on_cpu() else layer(h)


class UpsampleConv(nn.Module):
    """Nearest ×2 upsampling and a convolution: (N, H, W, C) → (N, 2H, 2W, O); with `norm` as above."""

    def __init__(self, channels, filters):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)

    def __call__(self, h, norm=None):
        if on_cpu():
            return cpu.up(h, self.conv, norm)
        h = self.conv(mx.repeat(mx.repeat(h, 2, axis=1), 2, axis=2))
        return h if norm is None else nn.leaky_relu(norm(h))


class TransposedConv(nn.ConvTranspose2d):
    """A transposed convolution that doubles the image: (N, H, W, C) → (N, 2H, 2W, O); with `norm` as above."""

    def __init__(self, channels, filters):
        super().__init__(channels, filters, 3, stride=2, padding=1, output_padding=1)

    def __call__(self, h, norm=None):
        if on_cpu():
            return cpu.transposed(h, self, norm)
        h = super().__call__(h)
        return h if norm is None else nn.leaky_relu(norm(h))


def with_labels(h, labels, classes):
    """Features (N, C) with the label of each image behind them, as 0 and 1; as they are if a model has no classes."""
    if not classes:
        return h
    return mx.concatenate([h, (labels[:, None] == mx.arange(classes)).astype(h.dtype)], axis=1)
