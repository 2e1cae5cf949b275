"""Infer the configuration of a third-party file from the names and shapes of its arrays."""

import math
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
MNIST_CLASSES = 10  # all models of the β-annealed VAE are trained on MNIST


def recognise(arrays: Arrays, options: dict[str, Any]) -> dict[str, Any]:
    """The configuration from arrays and training options; raises KeyError if it is unknown."""
    if "encoder.mu_scale" in arrays:
        return bounded(arrays, options)
    if "encoder.lin1.weight" in arrays:
        return fully_connected(arrays)
    for arch, first in (("conv", "decoder.upconv1.conv.bias"), ("transpose", "decoder.conv1.bias")):
        if first in arrays:
            return convolutional(arrays, arch)
    raise KeyError("the weights of a supported encoder or decoder")


def convolutional(arrays: Arrays, arch: str) -> dict[str, Any]:
    width = len(arrays["encoder.conv3.bias"])
    return {
        "arch": arch,
        "max_filters": width,
        "image_size": 8 * math.isqrt(len(arrays["decoder.lin1.bias"]) // width),
        "channels": arrays["encoder.conv1.weight"].shape[3],
    } | dims_and_classes(arrays)


def fully_connected(arrays: Arrays) -> dict[str, Any]:
    pixels = len(arrays["decoder.lin3.bias"])
    channels = 1 if math.isqrt(pixels) ** 2 == pixels else 3
    size = math.isqrt(pixels // channels)
    width = len(arrays["encoder.lin1.bias"])
    found = {"arch": "mlp", "max_filters": width, "image_size": size, "channels": channels}
    return found | dims_and_classes(arrays)


def bounded(arrays: Arrays, options: dict[str, Any]) -> dict[str, Any]:
    width, channels = len(arrays["decoder.cnn1.bias"]), len(arrays["decoder.cnn3.bias"])
    planes = arrays["encoder.cnn1.weight"].shape[3] - channels
    return {
        "arch": "bounded",
        "latent_dims": len(arrays["encoder.dense.bias"]) // 2,
        "max_filters": len(arrays["encoder.cnn1.bias"]),
        "decoder_filters": width,
        "image_size": 8 * math.isqrt(len(arrays["decoder.dense.bias"]) // width),
        "channels": channels,
        "num_classes": MNIST_CLASSES if planes == 1 else planes,
        "label_planes": "cat" if planes == 1 else "one_hot",
        "embed_factor": options.get("embed_factor", 1.0),
    }


def dims_and_classes(arrays: Arrays) -> dict[str, int]:
    """Latent dimensions and classes of a model whose decoder takes the label."""
    dims = len(arrays["encoder.proj_mu.bias"])
    return {"latent_dims": dims, "num_classes": arrays["decoder.lin1.weight"].shape[1] - dims}
