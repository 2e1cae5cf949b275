"""Fit a prior to a trained model: `fit_prior("mixture", model, split)`.

The latent vectors of images do not fill the standard normal evenly, so a vector drawn from it often lies far from all
of them and decodes to an implausible image. A prior that is fitted after training follows the images; the model's
weights and its KL term stay unchanged. It is fitted to the posteriors q(z | x) with their variances, so it approximates
the aggregate posterior.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from toolkit.errors import UserError
from toolkit.files.progress import shown
from toolkit.model import inference, mixture
from toolkit.model.inputs import Images
from toolkit.model.mixture import Mixture
from toolkit.model.priors import Flow, FlowOptions
from toolkit.random import generator

SHAPE = FlowOptions()
STEPS, BATCH, RATE = 4000, 256, 1e-3  # of fitting a flow
CHECKED = 250  # steps between two looks at held-out posteriors
HELD_OUT, MOST_HELD_OUT = 10, 2000  # one of ten posteriors is held out


def fit_prior(kind: str, model: Any, split: Images, seed: int = 0) -> Mixture | Flow:
    """Fit a prior of a kind in FITS to the latent vectors of a model's training images."""
    means, log_vars = inference.encode(model, split)
    if not len(means):
        raise UserError("there are no images to fit a prior to — use more images")
    classes = model.config.decoder_classes
    labels = np.asarray(split.labels, np.int32) if classes else np.zeros(len(means), np.int32)
    return FITS[kind](means, log_vars, labels, classes, seed)


def fit_mixture(means: np.ndarray, log_vars: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0) -> Mixture:
    """Fit a mixture for each class."""
    return mixture.fit(means, log_vars, [np.flatnonzero(labels == c) for c in range(max(1, classes))], seed)


def fit_flow(means: np.ndarray, log_vars: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0) -> Flow:
    """Fit a flow by maximum likelihood; keeps the weights with the highest density at held-out latent vectors."""
    mx.random.seed(seed)
    flow, random = Flow(means.shape[1], classes, SHAPE), generator(seed)
    optimizer = optim.AdamW(optim.cosine_decay(RATE, STEPS), weight_decay=0)
    order = random.permutation(len(means))
    held_out, kept = np.split(order, [min(MOST_HELD_OUT, len(means) // HELD_OUT)])
    widths = np.exp(0.5 * log_vars)

    def draw(numbers):
        z = means[numbers] + widths[numbers] * random.normal(size=(len(numbers), means.shape[1]))
        return mx.array(z.astype(np.float32)), mx.array(labels[numbers])

    gradients = nn.value_and_grad(flow, lambda z, labels: -flow.log_density(z, labels).mean())

    def update(z, labels):
        optimizer.update(flow, gradients(z, labels)[1])

    state = [flow.state, optimizer.state]
    step, tried = mx.compile(update, inputs=state, outputs=state), draw(held_out if len(held_out) else kept)
    best, highest = flow.parameters(), -np.inf
    for number in shown(range(1, STEPS + 1), "Fitting a flow"):
        step(*draw(random.choice(kept, BATCH)))
        mx.eval(state)
        if number % CHECKED == 0 and (log_p := flow.log_density(*tried).mean().item()) > highest:
            best, highest = tree_map(mx.array, flow.parameters()), log_p
    flow.update(best)
    return flow


FITS = {"mixture": fit_mixture, "flow": fit_flow}
