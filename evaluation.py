"""What a model has learned, in numbers: its bound, its likelihood, its reconstructions, its codes.

Draws depend on the seed, the number of an image and the number of a draw alone, so figures depend on how images are put
into batches by rounding only. What must be exact beyond float32 is computed in NumPy, on the CPU, whatever the device.
"""

import math

import mlx.core as mx
import numpy as np

import vae
from inference import batches

DRAWS = 20  # codes of an image that are drawn at once; part of what a seed means
ACTIVE = 0.01  # variance of its mean over the data, from which on a dimension counts as used
NEIGHBOURS = 5


def log_normal(z, mean, log_var):
    """log N(z; mean, exp(log_var)), summed over the last axis."""
    return -0.5 * (math.log(2 * math.pi) + log_var + mx.square(z - mean) * mx.exp(-log_var)).sum(axis=-1)


def draw_keys(seed, block, numbers):
    """A key for each image, for its block of draws; another one for every seed and block."""
    first = np.random.SeedSequence([seed, block]).generate_state(1)[0]
    return mx.stack([mx.full(numbers.shape, int(first), dtype=mx.uint32), numbers], axis=1)


def noise(keys, *shape):
    """Gaussian noise of that shape for every key."""
    return mx.vmap(lambda key: mx.random.normal(shape, key=key))(keys)


def likelihood_constant(config):
    """What log p(x|z) has besides the reconstruction error, per image: squared error is a Gaussian of variance ½."""
    return -0.5 * config.pixels * math.log(math.pi) if config.likelihood == "mse" else 0.0


def compiled_log_weights(model):
    """A function (floats, labels, mean, log_var, keys) → log p(x|z) p(z) / q(z|x) of DRAWS codes per image, (N, DRAWS).

    Without the constant of the likelihood, which would cost float32 its last digits.
    """
    config = model.config

    def log_weights(x, labels, mean, log_var, keys):
        count, dims = mean.shape
        eps = noise(keys, DRAWS, dims)
        mean, log_var = mean[:, None], log_var[:, None]
        z = mean + mx.exp(0.5 * log_var) * eps  # (N, DRAWS, D)
        repeated = None if labels is None else mx.repeat(labels, DRAWS)
        logits = model.decoder(z.reshape(-1, dims), repeated)
        error = vae.reconstruction_error(mx.repeat(x, DRAWS, axis=0), logits, config.likelihood)
        prior = log_normal(z, mx.zeros_like(z), mx.zeros_like(z))
        return prior - log_normal(z, mean, log_var) - error.reshape(count, DRAWS)

    return mx.compile(log_weights, inputs=model.state)


class LogSum:
    """log Σ exp of values that come one block after another, (N, K) each."""

    def __init__(self, count):
        self.highest, self.sums = mx.full((count,), -math.inf), mx.zeros(count)

    def add(self, values):
        highest = mx.maximum(self.highest, values.max(axis=1))
        self.sums = self.sums * mx.exp(self.highest - highest) + mx.exp(values - highest[:, None]).sum(axis=1)
        self.highest = highest
        mx.eval(self.highest, self.sums)

    def value(self):
        return np.array(self.highest, np.float64) + np.log(np.array(self.sums, np.float64))


def importance_bound(model, split, draws, seed, batch_size, watch):
    """log p(x) of each image from below, by `draws` codes each; `watch(images)` is told of the progress."""
    encode, log_weights = vae.compiled_encode(model), compiled_log_weights(model)
    bounds = []
    for images, numbers, labels in batches(split, batch_size):
        mean, log_var = encode(images, numbers, labels)
        x = vae.to_floats(images, model.config, vae.image_keys(numbers))
        mx.eval(x, mean, log_var)
        total = LogSum(len(images))
        for block in range(-(-draws // DRAWS)):
            values = log_weights(x, labels, mean, log_var, draw_keys(seed, block, numbers))
            count = min(DRAWS, draws - block * DRAWS)
            total.add(values[:, :count])
            watch(len(images) * count / draws)
        bounds.append(total.value() - math.log(draws) + likelihood_constant(model.config))
    return np.concatenate(bounds)


def codes(model, split, batch_size, watch=lambda images: None):
    """Mean and log-variance of the code of every image: (N, D) each, float64."""
    encode = vae.compiled_encode(model)
    found = []
    for batch in batches(split, batch_size):
        found.append([np.array(array, np.float64) for array in encode(*batch)])
        watch(len(batch[0]))
    return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]


def bound_terms(model, split, means, log_vars, seed, batch_size, watch):
    """Of every image: reconstruction error of one drawn code; and squared error and SSIM of what the mean makes."""
    error, reconstruct = vae.compiled_error(model), vae.compiled_reconstruct(model)
    terms = []
    for i, (images, numbers, labels) in enumerate(batches(split, batch_size)):
        mean, log_var = (mx.array(a[i * batch_size :][: len(images)].astype(np.float32)) for a in (means, log_vars))
        z = mean + mx.exp(0.5 * log_var) * noise(draw_keys(seed, 0, numbers), model.config.latent_dims)
        x, y = reconstruct(images, numbers, labels)
        squared = mx.square(x - y).mean(axis=(1, 2, 3))
        terms.append([np.array(a, np.float64) for a in (error(images, numbers, labels, z), squared, ssim(x, y))])
        watch(len(images))
    return [np.concatenate(arrays) for arrays in zip(*terms, strict=True)]


def ssim(x, y):
    """Structural similarity per image, as defined by Wang et al. (2004): Gaussian windows of 11×11 and σ = 1.5."""
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


def kl_by_dimension(means, log_vars):
    """KL of every image's code from the prior, in every dimension: (N, D)."""
    return 0.5 * (means**2 + np.exp(log_vars) - 1 - log_vars)


def information(means, log_vars, seed):
    """How the mean KL splits: nats that a code says of its image, I(x; z), and KL of all codes together from the prior.

    The density of all codes together is estimated as the mean of those of the images at hand; with N of them no
    information above log N can be seen.
    """
    count, dims = means.shape
    z = means + np.exp(0.5 * log_vars) * np.random.default_rng([seed, 1]).normal(size=means.shape)
    precision = np.exp(-log_vars)
    constant = -0.5 * ((means**2 * precision + log_vars).sum(axis=1) + dims * math.log(2 * math.pi))
    together = np.empty(count)
    for start in range(0, count, 500):
        part = z[start : start + 500]
        densities = constant + part @ (means * precision).T - 0.5 * part**2 @ precision.T  # (n, N) log q(z_i | x_j)
        highest = densities.max(axis=1)
        together[start : start + 500] = highest + np.log(np.exp(densities - highest[:, None]).mean(axis=1))
    own = -0.5 * (((z - means) ** 2 * precision) + log_vars + math.log(2 * math.pi)).sum(axis=1)
    prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(axis=1)
    return (own - together).mean(), (together - prior).mean()


def linear_probe(train, train_labels, test, test_labels, classes, steps=300):
    """Share of test codes whose class a linear softmax classifier finds that has learned from the training codes."""
    shift, scale = train.mean(axis=0), train.std(axis=0) + 1e-8
    train, test = ((np.hstack([(a - shift) / scale, np.ones((len(a), 1))])).astype(np.float32) for a in (train, test))
    weights = np.zeros((train.shape[1], classes), np.float32)
    before, momentum = weights, weights
    # Nesterov's accelerated descent; the step is safe, as softmax curves by at most a half of the largest eigenvalue.
    rate = 2 / np.linalg.eigvalsh(train.T.astype(np.float64) @ train / len(train)).max()
    rows = np.arange(len(train))
    for i in range(steps):
        scores = train @ momentum
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        scores[rows, train_labels] -= 1
        before, weights = weights, momentum - rate * (train.T @ scores) / len(train)
        momentum = weights + i / (i + 3) * (weights - before)
    return ((test @ weights).argmax(axis=1) == test_labels).mean()


def nearest_neighbours(train, train_labels, test, test_labels, classes):
    """Share of test codes whose class most of their nearest training codes have; the nearest one breaks ties."""
    train = train.astype(np.float32)
    lengths = (train**2).sum(axis=1)
    right, count = 0, min(NEIGHBOURS, len(train))
    for start in range(0, len(test), 200):
        part = test[start : start + 200].astype(np.float32)
        distances = lengths - 2 * part @ train.T
        nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(distances, nearest, axis=1).argsort(axis=1)
        found = train_labels[np.take_along_axis(nearest, order, axis=1)]  # (n, count), the nearest first
        votes = (found[:, :, None] == np.arange(classes)).sum(axis=1) + 0.0
        votes[np.arange(len(part)), found[:, 0]] += 0.5
        right += (votes.argmax(axis=1) == test_labels[start : start + 200]).sum()
    return right / len(test)


def with_error(values):
    """The mean over images with its standard error."""
    spread = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": float(values.mean()), "standard_error": float(spread)}


def evaluate(model, split, train, draws, seed, batch_size, watch):
    """All figures of a model on a split, as a dictionary; `train` is for the classifiers, None to leave them out.

    `watch(work, images, total)` is told of every step of a piece of work.
    """
    config = model.config
    constant = likelihood_constant(config)

    def step(work, images=split.images):
        return lambda done: watch(work, done, len(images))

    means, log_vars = codes(model, split, batch_size, step("Encoding"))
    error, squared, similar = bound_terms(model, split, means, log_vars, seed, batch_size, step("Reconstructing"))
    kl = kl_by_dimension(means, log_vars)
    elbo = constant - error - kl.sum(axis=1)
    information_nats, marginal_kl = information(means, log_vars, seed)
    variances = means.var(axis=0)
    figures = {
        "images": len(split.images),
        "likelihood": "Gaussian of variance 1/2" if config.likelihood == "mse" else "Bernoulli",
        "constant": constant,
        "elbo": with_error(elbo),
        "reconstruction": with_error(error),
        "kl": with_error(kl.sum(axis=1)),
        "mean_squared_error": float(squared.mean()),
        "psnr": 10 * math.log10(1 / squared.mean()) if squared.mean() else math.inf,
        "ssim": with_error(similar),
        "active_units": int((variances > ACTIVE).sum()),
        "latent_dims": config.latent_dims,
        "kl_by_dimension": kl.mean(axis=0).tolist(),
        "variance_by_dimension": variances.tolist(),
        "mutual_information": float(information_nats),
        "marginal_kl": float(marginal_kl),
    }
    if is_distribution(config):
        if config.likelihood == "bce":
            figures["bits_per_dimension"] = float(-elbo.mean() / config.pixels / math.log(2))
        if draws:
            size = max(1, batch_size // DRAWS)
            bound = importance_bound(model, split, draws, seed, size, step("Importance sampling"))
            figures["log_likelihood"] = with_error(bound) | {"importance_samples": draws}
    if train is not None:
        train_means, _ = codes(model, train, batch_size, step("Encoding the training split", train.images))
        known = (train_means, train.labels, means, split.labels, len(split.classes))
        figures["linear_probe"] = float(linear_probe(*known))
        figures["nearest_neighbours"] = float(nearest_neighbours(*known))
    return figures


def is_distribution(config):
    """Whether the likelihood is one of the pixels: binary cross-entropy is only for pixels that are 0 or 1."""
    return config.likelihood == "mse" or config.binarize != "none"
