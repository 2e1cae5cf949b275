"""Other encoders and decoders than those of vae.py, with the same two methods; vae.py's table chooses among them."""

import mlx.nn as nn

from layers import TransposedConv, dense, join, split, with_labels


class TransposeDecoder(nn.Module):
    """Code → logits of the pixels, by three transposed convolutions."""

    def __init__(self, config):
        super().__init__()
        a, b, c = config.filters
        self.lin1 = nn.Linear(config.latent_dims + config.classes, config.features)
        self.conv1 = TransposedConv(c, b)
        self.conv2 = TransposedConv(b, a)
        self.conv3 = TransposedConv(a, config.channels)
        self.bn1 = nn.BatchNorm(b)
        self.bn2 = nn.BatchNorm(a)
        self._grid, self._classes = config.grid, config.classes

    def __call__(self, z, labels=None):  # (N, D)
        h = self.lin1(with_labels(z, labels, self._classes))
        h = split(h.reshape(len(z), self._grid, self._grid, -1))  # (N, S/8, S/8, F)
        h = self.conv1(h, self.bn1)  # (N, S/4, S/4, F/2)
        h = self.conv2(h, self.bn2)  # (N, S/2, S/2, F/4)
        return join(self.conv3(h))  # (N, S, S, C)


class MLPEncoder(nn.Module):
    """Image → mean and log-variance of a Gaussian over codes, by fully connected layers."""

    def __init__(self, config):
        super().__init__()
        narrow, wide = config.widths
        self.lin1 = nn.Linear(config.pixels + config.classes, wide)
        self.lin2 = nn.Linear(wide, narrow)
        self.proj_mu = nn.Linear(narrow, config.latent_dims)
        self.proj_log_var = nn.Linear(narrow, config.latent_dims)
        self._classes = config.classes

    def __call__(self, x, labels=None):  # (N, S, S, C)
        h = split(with_labels(x.flatten(1), labels, self._classes))
        h = dense(h, self.lin1, nn.relu)
        h = join(dense(h, self.lin2, nn.relu))
        return self.proj_mu(h), self.proj_log_var(h)  # (N, D) each


class MLPDecoder(nn.Module):
    """Code → logits of the pixels, by fully connected layers."""

    def __init__(self, config):
        super().__init__()
        narrow, wide = config.widths
        self.lin1 = nn.Linear(config.latent_dims + config.classes, narrow)
        self.lin2 = nn.Linear(narrow, wide)
        self.lin3 = nn.Linear(wide, config.pixels)
        self._classes, self._shape = config.classes, (config.image_size, config.image_size, config.channels)

    def __call__(self, z, labels=None):  # (N, D)
        h = split(with_labels(z, labels, self._classes))
        h = dense(h, self.lin1, nn.relu)
        h = dense(h, self.lin2, nn.relu)
        return join(dense(h, self.lin3)).reshape(-1, *self._shape)  # (N, S, S, C)
