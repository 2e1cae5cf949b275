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


def labels(model, facts, asked, count):
    """The classes of `count` samples: the one asked for by name or number, or else all in turn."""
    classes = model.config.classes
    if not classes:
        if asked is not None:
            raise UserError(f"--label {asked}: this model knows no classes — leave it out, or train with --conditional")
        return None
    if asked is None:
        return np.arange(count) % classes
    names = facts.get("classes", [])
    if asked in names:
        return np.full(count, names.index(asked))
    if asked.isdecimal() and int(asked) < classes:
        return np.full(count, int(asked))
    known = f"0 to {classes - 1}" + (f" or {', '.join(names)}" if names[:1] not in ([], ["0"]) else "")
    raise UserError(f"--label {asked}: this model knows the classes {known} — take one of them")


def one_row_a_class(model, columns, seed):
    """Codes and labels of a sheet with one row a class; down a column the code is the same."""
    classes = model.config.classes
    codes = prior_codes(model, columns, seed)
    return mx.tile(codes, (classes, 1)), np.repeat(np.arange(classes), columns)


def decode(model, codes, labels=None):
    """Codes, and labels for a class-conditional model → pixels in [0, 1]."""
    decoded = vae.compiled_decode(model)
    pixels = []
    for i in range(0, len(codes), CHUNK):
        part = None if labels is None else mx.array(labels[i : i + CHUNK])
        pixels.append(np.array(decoded(codes[i : i + CHUNK], part)))
    return np.concatenate(pixels)


def inputs(split, chosen):
    """Images of a split by their numbers, as the compiled functions want them: bytes, numbers, labels."""
    labels = None if split.labels is None else mx.array(split.labels[chosen].astype(np.uint32))
    return mx.array(split.images[chosen]), mx.array(chosen.astype(np.uint32)), labels


def batches(split, size):
    """All images of a split in their order, `size` at a time, as the compiled functions want them."""
    numbers = np.arange(len(split.images))
    for i in range(0, len(numbers), size):
        yield inputs(split, numbers[i : i + size])


def reconstructions(model, split):
    """Chunk by chunk, the floats the model sees of a split and what it makes of them from the mean code."""
    reconstruct = vae.compiled_reconstruct(model)
    for batch in batches(split, CHUNK):
        x, y = reconstruct(*batch)
        yield np.array(x), np.array(y)


def check_labels(model, facts, split, dataset):
    """Stop where a class-conditional model would get no labels, or those of other classes."""
    if not (classes := model.config.classes):
        return
    if split.labels is None:
        raise UserError(f"the model wants labels and {dataset} has none — take a data set with {classes} classes")
    if len(split.classes) != classes or facts.get("classes", list(split.classes)) != list(split.classes):
        raise UserError(
            f"the model knows {classes} classes and {dataset} has {len(split.classes)} others — take the data set it "
            "was trained on"
        )
