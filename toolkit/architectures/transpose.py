"""The encoder of vae.py with the decoder of torch-vae: transposed convolutions."""

import mlx.core as mx
import mlx.nn as nn

from toolkit.architectures.convolutional import encoder
from toolkit.architectures.row import Architecture
from toolkit.layers import forms


class Decoder(nn.Module):
    """Latent vector → parameters of the likelihood: three transposed convolutions that each double the resolution."""

    def __init__(self, config):
        super().__init__()
        width = config.max_filters
        a, b, c = width // 4, width // 2, width
        self.lin1 = nn.Linear(config.latent_dims + config.num_classes, (config.image_size // 8) ** 2 * width)
        self.conv1, self.conv2, self.conv3 = (doubling(*pair) for pair in ((c, b), (b, a), (a, config.outputs)))
        self.bn1 = nn.BatchNorm(b)
        self.bn2 = nn.BatchNorm(a)
        self.grid, self.num_classes = config.image_size // 8, config.num_classes

    def __call__(self, z: mx.array, labels: mx.array | None = None) -> mx.array:  # (N, D)
        h = forms.dense(forms.append_labels(z, labels, self.num_classes), self.lin1)
        h = forms.reshape(h, self.grid)  # (N, S/8, S/8, F)
        h = forms.conv_transpose(h, self.conv1, self.bn1)  # (N, S/4, S/4, F/2)
        h = forms.conv_transpose(h, self.conv2, self.bn2)  # (N, S/2, S/2, F/4)
        return forms.join(forms.conv_transpose(h, self.conv3))  # (N, S, S, outputs)


def doubling(channels: int, filters: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, filters, 3, stride=2, padding=1, output_padding=1)


TRANSPOSE = Architecture("transpose", "convolutions, transposed decoder", encoder, Decoder, 64, 4, 8, 8)
