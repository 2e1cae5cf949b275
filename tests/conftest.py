"""Small models and small data, and a way to call a command as a person would."""

import functools
import html.parser
import importlib
import io
import math
import pickle
import resource
import struct
import tarfile
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

import vae
from toolkit.architectures import ModelConfig, build, config_of
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


# Files of all kinds, and models that several tests need


def jpeg(shade, size=(178, 218)):
    """A picture of one shade of grey."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


@contextmanager
def limited_files(size):
    """While the block runs, no file of this process can grow beyond a size: a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def celeb(tmp_path, zipped=True, partition=None, extra=()):
    """A data_dir with a small CelebA, zipped or as a folder; returns the folder of its files."""
    folder = tmp_path / "data" / "celeb-a"
    folder.mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, 11)]
    if partition is None:  # seven to train, one to validate, two to test
        partition = "".join(f"{name} {code}\n" for name, code in zip(names, "0000000122", strict=True))
    (folder / "list_eval_partition.txt").write_text(partition)
    if zipped:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for i, name in enumerate(names):
                archive.writestr(f"img_align_celeba/{name}", jpeg(20 * i))
            for name, data in extra:
                archive.writestr(name, data)
    else:
        (folder / "img_align_celeba").mkdir()
        for i, name in enumerate(names):
            (folder / "img_align_celeba" / name).write_bytes(jpeg(20 * i))
    return folder


CIFAR = {  # of the files: labels a record has, records
    "cifar-10": {**{f"data_batch_{i}.bin": (10,) for i in range(1, 6)}, "test_batch.bin": (10,)},
    "cifar-100": {"train.bin": (20, 100), "test.bin": (20, 100)},
}


INNER = {"cifar-10": "cifar-10-batches-bin", "cifar-100": "cifar-100-binary"}


def make_files(name, count=7):
    random = np.random.default_rng(0)
    files = {}
    for file, classes in CIFAR[name].items():
        labels = [random.integers(0, c, (count, 1), dtype=np.uint8) for c in classes]
        pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        files[file] = np.concatenate([*labels, pixels], axis=1).tobytes()
    return files


def pack(path, members):
    """An archive of (name, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def members(name, files):
    return [(f"{INNER[name]}/{file}", data) for file, data in files.items()]


RED, GREEN, BLUE = (200, 30, 20), (10, 180, 40), (30, 20, 220)


def flag():
    """24×8: red, green and blue squares."""
    picture = np.zeros((8, 24, 3), np.uint8)
    picture[:, :8], picture[:, 8:16], picture[:, 16:] = RED, GREEN, BLUE
    return Image.fromarray(picture)


def stored(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


TORCH = Path(__file__).parent / "pytorch"  # made with PyTorch 2.13.0: a model, its old format, what it computes


def arrays_of(model):
    return {key: np.array(array) for key, array in tree_flatten(model.parameters())}


def primitive(value):
    return pickle.dumps(value, 2)[2:-1]


def rebuilt(key, count, offset, shape, strides, storage="FloatStorage", function="_rebuild_tensor_v2"):
    """The instructions for one tensor."""
    described = b"(" + primitive("storage") + f"ctorch\n{storage}\n".encode() + primitive(key)
    described += primitive("mps:0") + primitive(count) + b"tQ"
    arguments = b"(" + described + primitive(offset) + primitive(shape) + primitive(strides) + b"\x89"
    return f"ctorch._utils\n{function}\n".encode() + arguments + b"ccollections\nOrderedDict\n)RtR"


def torch_file(pickled, storages, folder="archive"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"{folder}/data/{key}", data)
    return buffer.getvalue()


def as_torch(arrays, **changes):
    """A state dict with our arrays in PyTorch's order of axes; `changes` are tensors' instructions by name."""
    features = len(arrays["encoder.conv3.bias"])
    grid = int(np.sqrt(len(arrays["decoder.lin1.bias"]) // features))
    items, storages = b"", {}
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
        made = rebuilt(str(i), array.size, 0, array.shape, steps)
        items += primitive(name) + changes.get(name, made)
    return torch_file(b"\x80\x02}(" + items + b"u.", storages)


def mutated(data, others, random):
    """The bytes of a file with some flipped, cut away, or replaced by a piece of it or of another file."""
    data = bytearray(data)
    for _ in range(random.integers(1, 4)):
        # Half of the damage goes to the ends, where the headers are.
        near = random.integers(0, 2)
        at = int(random.integers(0, min(400, len(data)) if near else len(data)))
        at = len(data) - 1 - at if near and random.integers(0, 2) else at
        match random.integers(0, 4):
            case 0:
                data[at] ^= 1 << int(random.integers(0, 8))
            case 1:
                data[at : at + 8] = random.bytes(len(data[at : at + 8]))
            case 2:
                data = data[:at] or bytearray(b"x")
            case 3:
                other = others[random.integers(0, len(others))]
                start = int(random.integers(0, len(other)))
                data[at : at + int(random.integers(1, 200))] = other[start : start + int(random.integers(1, 200))]
    return bytes(data)


class LinearGaussian(vae.VAE):
    """p(x|z) = N(W z + 1/2, I/2) and z standard: log p(x) is known, and so is the posterior, whose spread times `width`
    is what the encoder says."""

    SIZE, DIMS = 5, 2

    def __init__(self, width):
        config = ModelConfig(latent_dims=self.DIMS, image_size=self.SIZE, arch="mlp", max_filters=8)
        exactly, made = (self.encode_exactly, self.decode_exactly), build(config)
        super().__init__(config, *exactly, made.likelihood, made.prior)
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


class Scripts(html.parser.HTMLParser):
    """The scripts of a page, by their ids, and all of its words."""

    def __init__(self, page):
        super().__init__()
        self.scripts, self.inside, self.tags = {}, None, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.inside = dict(attributes).get("id", "script")
            self.scripts[self.inside] = ""

    def handle_endtag(self, tag):
        self.inside = None if tag == "script" else self.inside

    def handle_data(self, data):
        if self.inside:
            self.scripts[self.inside] += data
