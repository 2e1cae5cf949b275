"""Small models that several tests need, as objects and as the files of MLX and PyTorch."""

import io
import math
import pickle
import zipfile
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

import vae
from toolkit.architectures import ModelConfig, build, config_of
from toolkit.formats import checkpoint
from toolkit.formats.checkpoint import Checkpoint
from toolkit.model.priors import Flow, FlowOptions


def make_model(**config):
    """A tiny model in eval mode whose weights and running statistics are all non-trivial."""
    mx.random.seed(0)
    model = build(config_of({"latent_dims": 3, "max_filters": 8, "image_size": 16} | config))
    random = np.random.default_rng(0)
    for module in (model.encoder, model.decoder):
        for name, part in module.items():
            if name.startswith("bn"):
                size = part.weight.size
                part.weight = mx.array(random.uniform(0.5, 1.5, size).astype(np.float32))
                part.bias = mx.array(random.normal(0, 0.3, size).astype(np.float32))
                part.running_mean = mx.array(random.normal(0, 0.3, size).astype(np.float32))
                part.running_var = mx.array(random.uniform(0.5, 1.5, size).astype(np.float32))
    for _, part in model.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and not part.weight.any():  # as residual blocks and couplings begin
            part.weight = mx.array(random.normal(0, 0.1, part.weight.shape).astype(np.float32))
    model.eval()
    mx.eval(model.parameters())
    return model


def make_flow(dims, classes=0, seed=0, layers=4):
    """A flow far from the identity."""
    mx.random.seed(seed)
    flow = Flow(dims, classes, FlowOptions(layers, 16))
    for layer in flow.layers:
        layer.lin3.weight = mx.random.normal(layer.lin3.weight.shape) / 4
        layer.lin3.bias = mx.random.normal(layer.lin3.bias.shape) / 4
    mx.eval(flow.parameters())
    return flow


def save(path, model, **facts):
    """Write a checkpoint of a model with its metadata."""
    checkpoint.save(path, Checkpoint(model, **facts))


def random_images(count, size=16, seed=7):
    """Images as a model takes them: float32, (count, size, size, 1)."""
    return mx.array(np.random.default_rng(seed).random((count, size, size, 1), np.float32))


def split_keys(count, seed=0):
    """One key for each of `count` images."""
    return mx.random.split(mx.random.key(seed), count)


def arrays_of(model):
    """Name → NumPy array of every parameter and running statistic."""
    return {key: np.array(array) for key, array in tree_flatten(model.parameters())}


class LinearGaussian(vae.VAE):
    """p(x|z) = N(W z + 1/2, I/2) with a standard normal prior: log p(x) and the posterior are known exactly.

    The encoder returns the true posterior with its standard deviation multiplied by `width`.
    """

    SIZE, DIMS = 5, 2

    def __init__(self, width):
        config = ModelConfig(latent_dims=self.DIMS, image_size=self.SIZE, arch="mlp", max_filters=8)
        mlp = build(config)
        super().__init__(config, self.encode_exactly, self.decode_exactly, mlp.likelihood, mlp.prior)
        columns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(self.SIZE**2, self.DIMS)))
        self._w = columns * [0.1, 0.18]  # orthogonal: the posterior has no correlations
        self._width = width
        self.eval()

    def encode_exactly(self, x, labels=None):
        precision = 1 + 2 * (self._w**2).sum(axis=0)
        mean = (x.flatten(1) - 0.5) @ mx.array((2 * self._w / precision).astype(np.float32))
        spread = mx.array((2 * math.log(self._width) - np.log(precision)).astype(np.float32))
        return mean, mx.broadcast_to(spread, mean.shape)

    def decode_exactly(self, z, labels=None):
        pixels = mx.clip(z @ mx.array(self._w.T.astype(np.float32)) + 0.5, 1e-6, 1 - 1e-6)
        return (mx.log(pixels) - mx.log(1 - pixels)).reshape(-1, self.SIZE, self.SIZE, 1)

    def log_likelihood(self, images):
        x = images.reshape(len(images), -1) / 255.0 - 0.5
        covariance = self._w @ self._w.T + 0.5 * np.eye(self.SIZE**2)
        _, determinant = np.linalg.slogdet(2 * np.pi * covariance)
        return -0.5 * (determinant + (x * np.linalg.solve(covariance, x.T).T).sum(axis=1))


TORCH = Path(__file__).parent / "pytorch"  # made with PyTorch 2.13.0: a model, its old format, what it computes


def pickle_value(value):
    """The pickle of a value, without its protocol and its end."""
    return pickle.dumps(value, 2)[2:-1]


def pickle_tensor(key, count, offset, shape, strides, storage="FloatStorage", function="_rebuild_tensor_v2"):
    """The pickle instructions for one tensor."""
    described = b"(" + pickle_value("storage") + f"ctorch\n{storage}\n".encode() + pickle_value(key)
    described += pickle_value("mps:0") + pickle_value(count) + b"tQ"
    arguments = b"(" + described + pickle_value(offset) + pickle_value(shape) + pickle_value(strides) + b"\x89"
    return f"ctorch._utils\n{function}\n".encode() + arguments + b"ccollections\nOrderedDict\n)RtR"


def pickle_state(tensors):
    """The pickle of a dictionary: name → the instructions of `pickle_tensor`."""
    return b"\x80\x02}(" + b"".join(pickle_value(name) + tensor for name, tensor in tensors.items()) + b"u."


def make_torch_file(pickled, storages, folder="archive"):
    """The bytes of a .pth file: a pickle, and storages by their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"{folder}/data/{key}", data)
    return buffer.getvalue()


def make_torch_state(arrays, **changes):
    """A .pth file of our arrays in PyTorch's order of axes; `changes` replaces the pickle of some tensors."""
    features = len(arrays["encoder.conv3.bias"])
    grid = int(np.sqrt(len(arrays["decoder.lin1.bias"]) // features))
    tensors, storages = {}, {}
    for i, (name, array) in enumerate(arrays.items()):
        if array.ndim == 4:
            array = array.transpose(3, 0, 1, 2) if name.startswith("decoder") else array.transpose(0, 3, 1, 2)
        elif "proj" in name and array.ndim == 2:
            array = array.reshape(-1, grid, grid, features).transpose(0, 3, 1, 2).reshape(len(array), -1)
        elif "decoder.lin1" in name:
            array = np.moveaxis(array.reshape(grid, grid, features, *array.shape[1:]), 2, 0)
            array = array.reshape(-1, *array.shape[3:])
        array = np.ascontiguousarray(array, np.float32)
        storages[str(i)] = array.tobytes()
        steps = tuple(step // 4 for step in array.strides)
        tensors[name] = pickle_tensor(str(i), array.size, 0, array.shape, steps)
    return make_torch_file(pickle_state(tensors | changes), storages)
