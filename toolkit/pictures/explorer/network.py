"""A model as network.js runs it: layer names, and arrays with batch norms folded into the kernels.

Half precision rounds those arrays; `rounding_error` measures the effect.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map

from toolkit.architectures import build, layers
from toolkit.errors import UserError
from toolkit.layers.cpu import SLOPE
from toolkit.layers.forms import Call
from toolkit.model import inference
from toolkit.model.inputs import Images
from vae import VAE

PRIORS = ("normal", "mixture", "flow")  # that model.js knows
LARGEST = 2**24  # parameters of a model in a page
TRIED_ON = 100  # latent vectors on which the effect of rounding is measured


def check_fit(model: VAE) -> None:
    """Raise UserError if a browser cannot run a model: network.js lacks its layers, or it is too large."""
    if model.prior.name not in PRIORS:
        raise UserError(f"the explorer cannot draw samples from {model.prior.words} — use another kind of picture")
    if layers(model)[0][-1].name != "heads":  # network.js knows no other posterior
        raise UserError(f"the explorer cannot run a model of --arch {model.config.arch} — use one of another --arch")
    if (count := model.parameter_count()) > LARGEST:
        raise UserError(
            f"the model is too large for a browser: {count:,} parameters, more than {LARGEST:,} — "
            "train one with a smaller --max_filters or --image_size"
        )


def fold_norms(model: VAE, half: bool = False) -> VAE:
    """A copy with each batch norm folded into the convolution before it; with `half`, rounded to half precision."""
    copy = build(model.config)
    copy.update(model.parameters())
    for _, modules, _ in sum(layers(copy), []):
        if modules and isinstance(norm := modules[-1], nn.BatchNorm):
            conv, scale = modules[0], norm.weight * mx.rsqrt(norm.running_var + norm.eps)
            conv.weight = conv.weight * scale[:, None, None, None]
            conv.bias = norm.bias + (conv.bias - norm.running_mean) * scale
            one = mx.ones_like(scale)
            norm.weight, norm.bias, norm.running_mean, norm.running_var = one, 0 * one, 0 * one, one - norm.eps
    if half:
        copy.update(tree_map(lambda array: array.astype(mx.float16).astype(mx.float32), copy.parameters()))
        if not all(mx.isfinite(array).all() for _, array in tree_flatten(copy.parameters())):
            raise UserError("the model has weights beyond the range of half precision — leave --half out")
    copy.eval()
    return copy


def rounding_error(model: VAE, rounded: VAE, test: Images | None) -> str:
    """The effect of half precision in words: on decoded pixels, and on the latent vectors of test images."""
    labels = np.arange(TRIED_ON) % model.config.num_classes if model.config.num_classes else None
    z = model.prior.sample(TRIED_ON, mx.random.key(0), 1.0, labels)
    before, after = (inference.decode(one, z, labels) for one in (model, rounded))
    words = f"pixels differ by at most {255 * np.abs(before - after).max():.2f} of 255 levels"
    if test is None:
        return words
    before, after = (inference.encode(one, test)[0] for one in (model, rounded))
    return f"{words}, latent vectors by at most {np.abs(before - after).max():.4f}"


def describe_prior(prior: Any, arrays: list[np.ndarray], named: dict[str, np.ndarray]) -> dict[str, Any]:
    """A prior for model.js: the networks of a flow are appended to `arrays`, a mixture goes into `named`."""
    about = {"kind": prior.name, "words": prior.words}
    if prior.name == "mixture":
        named |= {f"mixture_{name}": array for name, array in prior.arrays().items()}
    if prior.name == "flow":
        labels = [Call("append_labels", [], ())] if prior.num_classes else []
        about["couplings"] = []
        for one in prior.layers:
            dense = [[one.lin1, nn.leaky_relu], [one.lin2, nn.leaky_relu], [one.lin3]]
            described = describe([*labels, *(Call("dense", modules, ()) for modules in dense)], arrays)
            about["couplings"].append({"kept": np.array(one._kept).astype(int).tolist(), "layers": described})
    return about


def describe(calls: list[Call], arrays: list[np.ndarray]) -> list[dict[str, Any]]:
    """The layers of an encoder or a decoder for network.js; appends their weights to `arrays`.

    `slope` is that of the activation below zero; of a folded batch norm, its leaky ReLU remains.
    """
    described = []
    for name, modules, _ in calls:
        if name in ("flatten", "reshape"):
            continue
        weighted = [module for module in modules if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
        last, first = modules[-1] if modules else None, len(arrays)
        leaky = isinstance(last, nn.BatchNorm) or last is nn.leaky_relu
        slope = SLOPE if leaky else 0 if last is nn.relu else 1
        halves = any(isinstance(module, nn.Conv2d) and module.stride == (2, 2) for module in weighted)
        for module in weighted:
            arrays += [np.array(module.weight), np.array(module.bias)]
        name = {"append_labels": "labels"}.get(name, name)
        described.append({"name": name, "slope": slope, "halves": halves, "weights": [*range(first, len(arrays))]})
    return described
