"""Fixtures: a way to call a command as a person would, small models, small data."""

import functools
import importlib
import os
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sample_files import encode_idx
from sample_models import make_model, save

from toolkit import datasets
from toolkit.datasets import synthetic
from toolkit.layers import cpu, forms, plain
from toolkit.machine import device

device.start(cpu=True)
synthetic.draw_chunk = functools.cache(synthetic.draw_chunk)  # a thousand tests need the same few images
DATA = Path(os.environ.get("VAE_DATA_DIR", "data")).resolve()


@pytest.fixture(autouse=True)
def no_data(monkeypatch, tmp_path_factory):
    """Tests neither depend on the data sets of this machine nor leave a cache among them."""
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path_factory.getbasetemp() / "data"))


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    """An epoch of few pictures has 5 steps instead of 60, which saves minutes."""
    monkeypatch.setitem(datasets.ROWS, "folder", datasets.ROWS["folder"]._replace(least_steps=5))


@pytest.fixture
def real_data():
    """A function that returns the data folder of this machine, and skips the test where it lacks a data set."""

    def find(name):
        if not (DATA / name).is_dir():
            pytest.skip(f"needs {name} in the folder that VAE_DATA_DIR names, or in data")
        return DATA

    return find


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
    with forms.using(request.param):
        yield request.param


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
    """The folder of the four files of a small random MNIST, in a data folder of its own."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, count, dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(encode_idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(encode_idx(labels))
    return folder


@pytest.fixture
def small_memory():
    """A context manager that fails where its block allocates more than `most` bytes."""

    @contextmanager
    def block(most=2**22):
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()

    return block
