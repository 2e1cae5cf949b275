"""The fully connected architecture: two hidden layers in encoder and decoder, for images of any size."""

import mlx.core as mx
import mlx.nn as nn

from toolkit.architectures.row import Architecture
from toolkit.layers import forms


class Encoder(nn.Module):
    """Image → mean and log-variance of q(z | x)."""

    def __init__(self, config):
        super().__init__()
        narrow, wide = config.max_filters // 8, config.max_filters
        self.lin1 = nn.Linear(config.image_size**2 * config.channels + config.num_classes, wide)
        self.lin2 = nn.Linear(wide, narrow)
        self.proj_mu = nn.Linear(narrow, config.latent_dims)
        self.proj_log_var = nn.Linear(narrow, config.latent_dims)
        self.num_classes = config.num_classes

    def __call__(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        h = forms.append_labels(forms.flatten(x), labels, self.num_classes)
        h = forms.dense(h, self.lin1, nn.relu)  # (N, F)
        h = forms.dense(h, self.lin2, nn.relu)  # (N, F/8)
        return forms.heads(h, self.proj_mu, self.proj_log_var)  # (N, D) each


class Decoder(nn.Module):
    """Latent vector → parameters of the likelihood."""

    def __init__(self, config):
        super().__init__()
        narrow, wide = config.max_filters // 8, config.max_filters
        self.lin1 = nn.Linear(config.latent_dims + config.num_classes, narrow)
        self.lin2 = nn.Linear(narrow, wide)
        self.lin3 = nn.Linear(wide, config.image_size**2 * config.outputs)
        self.num_classes, self.size = config.num_classes, config.image_size

    def __call__(self, z: mx.array, labels: mx.array | None = None) -> mx.array:  # (N, D)
        h = forms.append_labels(z, labels, self.num_classes)
        h = forms.dense(h, self.lin1, nn.relu)  # (N, F/8)
        h = forms.dense(h, self.lin2, nn.relu)  # (N, F)
        return forms.join(forms.reshape(forms.dense(h, self.lin3), self.size))  # (N, S, S, outputs)


MLP = Architecture("mlp", "fully connected", Encoder, Decoder, 512, 8, 1)
