"""Train networks to recognise the classes of pictures, for scores of samples."""

import math

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from toolkit.files.progress import bar
from toolkit.model.inputs import batches

BATCH, RATE = 64, 0.003


def train(model: nn.Module, split, config, targets: np.ndarray, epochs: int) -> nn.Module:
    """Train a model that returns a list of logits, one array for each column of targets (N, A); `config` is the format
    of its inputs."""
    random, count = np.random.default_rng(0), len(split.images)
    optimizer = optim.AdamW(optim.linear_schedule(RATE, 0, epochs * math.ceil(count / BATCH)))

    def loss(x, values):
        errors = [nn.losses.cross_entropy(found, values[:, i]).mean() for i, found in enumerate(model(x))]
        return mx.stack(errors).sum()

    gradients = nn.value_and_grad(model, loss)
    with bar(epochs * count, "Training a classifier") as shown:
        for _ in range(epochs):
            for x, numbers, _ in batches(split, BATCH, config, random.permutation(count)):
                optimizer.update(model, gradients(x, mx.array(targets[np.array(numbers)]))[1])
                mx.eval(model.state, optimizer.state)
                shown.update(len(x))
    return model.eval()
