"""A variational autoencoder (Kingma & Welling 2013), from pixels to the loss.

The model describes how an image x is generated: a latent vector z is drawn from a prior p(z), and a decoder turns it
into the parameters of a likelihood p(x | z). Training maximises a lower bound on log p(x), the evidence lower bound:

    log p(x)  ≥  E[log p(x | z)] - KL(q(z | x) || p(z)),        z = mean + exp(log_var / 2) · eps,  eps ~ N(0, I)

where an encoder computes the mean and log-variance of q(z | x), a Gaussian. The first term is the negative
reconstruction error; the second, the KL divergence, penalises a q(z | x) that differs from the prior.

Images are floats (N, S, S, C) in [0, 1]; labels are integers (N,), or None if the model has no classes. All randomness
comes from random keys (N, 2), one per image. The layers in `forms` are MLX's own on a GPU, and faster ones with the
same results on a CPU. `toolkit.architectures.build(config)` builds a model; then

    step = training_step(model, optimizer)                           # training: one step per batch
    step(images, labels, keys, mx.array(1.0))
    model.eval()
    images = model.decode(model.prior.sample(count, key), labels)    # new images
"""

from collections.abc import Callable
from functools import cached_property, partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from toolkit.layers import forms
from toolkit.model.likelihoods import Likelihood
from toolkit.model.priors import Prior, log_normal
from toolkit.random import noise


class Encoder(nn.Module):
    """Image → mean and log-variance of q(z | x): three convolutions, each halving the resolution; F filters."""

    def __init__(self, image_size: int, channels: int, filters: int, latent_dims: int, num_classes: int = 0):
        super().__init__()
        features = (image_size // 8) ** 2 * filters + num_classes  # image_size is a multiple of 8
        self.conv1 = nn.Conv2d(channels, filters // 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(filters // 4, filters // 2, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(filters // 2, filters, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm(filters // 4)
        self.bn2 = nn.BatchNorm(filters // 2)
        self.bn3 = nn.BatchNorm(filters)
        self.proj_mu = nn.Linear(features, latent_dims)
        self.proj_log_var = nn.Linear(features, latent_dims)
        self.num_classes = num_classes

    def __call__(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:  # (N, S, S, C)
        h = forms.down(x, self.conv1, self.bn1)  # (N, S/2, S/2, F/4): convolution, batch norm, leaky ReLU
        h = forms.down(h, self.conv2, self.bn2)  # (N, S/4, S/4, F/2)
        h = forms.down(h, self.conv3, self.bn3)  # (N, S/8, S/8, F)
        h = forms.append_labels(forms.flatten(h), labels, self.num_classes)  # one-hot, if the model has classes
        return forms.heads(h, self.proj_mu, self.proj_log_var)  # (N, D) each


def sample(mean: mx.array, log_var: mx.array, key: mx.array) -> mx.array:
    """Draw z ~ q(z | x), (…, D), from one random key or from one per image.

    The reparameterisation trick: the noise does not depend on mean or log_var, so gradients flow to both.
    """
    return mean + mx.exp(0.5 * log_var) * noise(key, mean.shape)


class Upsampling(nn.Module):
    """Nearest ×2 upsampling and a convolution; if a norm is given, batch norm and leaky ReLU follow."""

    def __init__(self, channels: int, filters: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)

    def __call__(self, x: mx.array, norm: nn.BatchNorm | None = None) -> mx.array:  # (N, H, W, C) → (N, 2H, 2W, O)
        return forms.up(x, self.conv, norm)


class Decoder(nn.Module):
    """Latent vector → parameters of the likelihood, through three layers that each double the resolution.

    Each pixel has `outputs` values: the number of channels times the parameters per channel.
    """

    def __init__(self, image_size: int, outputs: int, filters: int, latent_dims: int, num_classes: int = 0):
        super().__init__()
        self.lin1 = nn.Linear(latent_dims + num_classes, (image_size // 8) ** 2 * filters)
        self.upconv1 = Upsampling(filters, filters // 2)
        self.upconv2 = Upsampling(filters // 2, filters // 4)
        self.upconv3 = Upsampling(filters // 4, outputs)
        self.bn1 = nn.BatchNorm(filters // 2)
        self.bn2 = nn.BatchNorm(filters // 4)
        self.grid, self.num_classes = image_size // 8, num_classes

    def __call__(self, z: mx.array, labels: mx.array | None = None) -> mx.array:  # (N, D)
        h = forms.dense(forms.append_labels(z, labels, self.num_classes), self.lin1)  # no activation
        h = forms.reshape(h, self.grid)  # (N, S/8, S/8, F)
        h = self.upconv1(h, self.bn1)  # (N, S/4, S/4, F/2)
        h = self.upconv2(h, self.bn2)  # (N, S/2, S/2, F/4)
        return forms.join(self.upconv3(h))  # (N, S, S, outputs); on a CPU, the batch was in parts


def compiled(method: Callable) -> cached_property:
    """A method compiled on first use, for a model in eval mode, where batch norm uses its running statistics."""

    def evaluate(model, *arguments):
        if model.training:
            raise RuntimeError("call model.eval() first")
        return method(model, *arguments)

    return cached_property(lambda model: mx.compile(partial(evaluate, model), inputs=model.state))


class VAE(nn.Module):
    """Encoder, decoder, likelihood p(x | z) and prior p(z), all modules, and the `config` they were built from."""

    def __init__(self, config: object, encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood, prior: Prior):
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior

    def posterior(self, x: mx.array, labels: mx.array | None = None) -> tuple[mx.array, mx.array]:
        """Mean and log-variance of q(z | x): (N, S, S, C) → (N, D) each.

        A log-variance v above 1 is replaced by 1 + log v, a smooth continuation: early in training an encoder can
        output large values, whose exponential would drive the KL into the millions.
        """
        mean, log_var = self.encoder(x, labels)
        above_one = 1 + mx.log(mx.maximum(log_var, 1))  # the maximum keeps gradients finite where this is not used
        return mean, mx.where(log_var > 1, above_one, log_var)

    def terms(self, x: mx.array, labels: mx.array | None, keys: mx.array) -> tuple[mx.array, mx.array]:
        """The two terms of the negative bound for each image: reconstruction error (N,) and KL (N, G).

        The error is -log p(x | z), summed over pixels, without the likelihood's constant. If the prior's KL has a
        closed form, G = D, one value per dimension; otherwise G = 1, an estimate from z.
        """
        mean, log_var = self.posterior(x, labels)
        z = sample(mean, log_var, keys)
        return self.likelihood.error(x, self.decoder(z, labels)), self.prior.kl(mean, log_var, z, labels)

    encode = compiled(posterior)
    score = compiled(terms)

    @compiled
    def decode(self, z: mx.array, labels: mx.array | None = None) -> mx.array:
        """Latent vectors (N, D) → the expected images (N, S, S, C)."""
        return self.likelihood.mean(self.decoder(z, labels))

    @compiled
    def draw(self, z: mx.array, labels: mx.array | None, keys: mx.array) -> mx.array:
        """Latent vectors (N, D) → images drawn from the likelihood (N, S, S, C)."""
        return self.likelihood.draw(self.decoder(z, labels), keys)

    @compiled
    def reconstruct(self, x: mx.array, labels: mx.array | None = None) -> mx.array:
        """Images → the expected images at the posterior mean, (N, S, S, C)."""
        return self.likelihood.mean(self.decoder(self.posterior(x, labels)[0], labels))

    @compiled
    def log_ratios(
        self, x: mx.array, labels: mx.array | None, keys: mx.array, samples: int
    ) -> tuple[mx.array, mx.array]:
        """For importance weights: K samples z per image (N, K, D), and their log p(x | z) - log q(z | x), (N, K).

        The prior's log p(z) and the likelihood's constant are added later, the constant in higher precision.
        """
        mean, log_var = (mx.repeat(a[:, None], samples, axis=1) for a in self.posterior(x, labels))
        z = sample(mean, log_var, keys)
        return z, -self.errors(x, labels, z) - log_normal(z, mean, log_var)

    def errors(self, x: mx.array, labels: mx.array | None, z: mx.array) -> mx.array:
        """The reconstruction errors of K latent vectors per image: (N, S, S, C) and (N, K, D) → (N, K)."""
        count, samples, dims = z.shape
        labels = None if labels is None else mx.repeat(labels, samples)
        output = self.decoder(z.reshape(-1, dims), labels)
        return self.likelihood.error(mx.repeat(x, samples, axis=0), output).reshape(count, samples)

    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(array.size for _, array in tree_flatten(self.trainable_parameters()))


def elbo(
    model: VAE, x: mx.array, labels: mx.array | None, keys: mx.array, beta: mx.array | float = 1.0
) -> tuple[mx.array, mx.array]:
    """The training loss, mean error + β · mean KL, and for the log: negative bound (with β = 1), error and KL per image
    (3, N).

    toolkit/model/objectives.py has alternatives with the same arguments.
    """
    error, kl = model.terms(x, labels, keys)
    kl = kl.sum(axis=1)
    return error.mean() + beta * kl.mean(), mx.stack([error + kl, error, kl])


def training_step(
    model: VAE, optimizer: optim.Optimizer, objective: Callable = elbo, add_up: Callable = lambda own: own
) -> Callable:
    """A compiled function that updates the model on one batch: (images, labels, keys, β as an array) → negative bound,
    error and KL, summed over the batch.

    When several processes train together, each passes its own images and their `share` of the batch, and `add_up` sums
    the results over all processes. Batch norm does the same inside the layers.
    """

    def loss(x, labels, keys, beta, share):
        cost, terms = objective(model, x, labels, keys, beta)
        return cost * share, terms.sum(axis=1)

    def step(x, labels, keys, beta, share=1.0):
        (_, sums), gradients = nn.value_and_grad(model, loss)(x, labels, keys, beta, share)
        sums, gradients = add_up((sums, gradients))
        optimizer.update(model, gradients)
        return sums

    state = [model.state, optimizer.state]  # the arrays that a step reads and updates
    return mx.compile(step, inputs=state, outputs=state)
