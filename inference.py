"""What a trained model is asked for: codes to decode, pictures of them, reconstructions; in chunks, out as NumPy."""

import mlx.core as mx
import numpy as np

import vae
from errors import UserError

CHUNK = 250  # images at a time


def prior_codes(model, count, seed):
    """Codes from the standard Gaussian that training pulls all codes towards."""
    return mx.random.normal((count, model.config.latent_dims), key=mx.random.key(seed))


def latent_square(model, side):
    """The codes of a regular grid over [-2, 2]²: the first dimension runs to the right, the second upwards."""
    if (dims := model.config.latent_dims) != 2:
        raise UserError(f"the latent square needs a model of 2 latent dims, this one has {dims} — leave the flag out")
    steps = mx.linspace(-2, 2, side)
    right, up = mx.meshgrid(steps, steps[::-1])
    return mx.stack([right.flatten(), up.flatten()], axis=1)


def decode(model, codes):
    """Codes → pixels in [0, 1]."""
    decoded = vae.compiled_decode(model)
    return np.concatenate([np.array(decoded(codes[i : i + CHUNK])) for i in range(0, len(codes), CHUNK)])


def reconstructions(model, images):
    """Bytes → chunk by chunk, the floats the model sees and what it makes of them from the mean code."""
    reconstruct = vae.compiled_reconstruct(model)
    for i in range(0, len(images), CHUNK):
        part = mx.array(images[i : i + CHUNK])
        x, y = reconstruct(part, mx.arange(i, i + len(part), dtype=mx.uint32))
        yield np.array(x), np.array(y)
