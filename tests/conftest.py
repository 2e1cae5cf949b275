"""Small models and small data, and a way to call a command as a person would."""

import functools
import importlib
import io
import struct
import tracemalloc
import zipfile
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import vae
from toolkit.datasets import synthetic
from toolkit.formats import checkpoint
from toolkit.formats.checkpoint import Checkpoint
from toolkit.layers import cpu, forms, plain
from toolkit.machine import device

device.start(cpu=True)
synthetic.draw_chunk = functools.cache(synthetic.draw_chunk)  # a thousand tests see the same few images


@pytest.fixture
def run(capsys):
    """Call a command; returns its exit status, stdout and stderr."""

    def call(name, *argv):
        try:
            importlib.import_module(name).main([str(word) for word in argv])
            status = 0
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def fails(run):
    """Call a command that must fail in one line with status 2; returns that line."""

    def call(name, *argv):
        status, _, err = run(name, *argv)
        assert status == 2
        assert err.startswith("error: ") and err.count("\n") == 1 and " — " in err, err
        return err

    return call


@pytest.fixture(params=[plain, cpu], ids=["plain", "cpu"])
def form(request):
    """Run a test with each form of the layers, on the CPU."""
    forms.choose(request.param)
    yield request.param
    forms.choose()


def make_model(**config):
    """A tiny model with weights and statistics that are nowhere trivial."""
    mx.random.seed(0)
    model = vae.VAE(vae.ModelConfig(**{"latent_dims": 3, "max_filters": 8, "image_size": 16} | config))
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
        if isinstance(part, nn.Conv2d) and not part.weight.any():  # as residual blocks begin
            part.weight = mx.array(random.normal(0, 0.1, part.weight.shape).astype(np.float32))
    model.eval()
    mx.eval(model.parameters())
    return model


def save(path, model, **facts):
    """Write a checkpoint of a model, with what its file says."""
    checkpoint.save(path, Checkpoint(model, **facts))


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def model_file(model, tmp_path):
    path = tmp_path / "vae_synthetic_filters_0008_dims_0003.npz"
    save(path, model, dataset="synthetic")
    return path


@pytest.fixture
def mnist_folder(tmp_path):
    """A data_dir with a small MNIST of its own; returns the folder of its four files."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, count, dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def idx(array):
    """An array of bytes as the bytes of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def lying_zip(name, claim=1000, size=2**25, before=()):
    """A zip file with an entry that claims a size and unpacks to another; `before` are (name, bytes) of others."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other, data in before:
            archive.writestr(other, data)
        archive.writestr(name, bytes(size))
        archive.filelist[-1].file_size = claim
    return buffer.getvalue()


@pytest.fixture
def small_memory():
    """A block of code that must not take much memory."""

    @contextmanager
    def block(most=2**22):
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()

    return block
