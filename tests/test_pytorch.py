"""PyTorch's files and safetensors: exact, in both directions, and never to be tricked by hostile or broken ones."""

import functools
import io
import json
import os
import pickle
import re
import struct
import tracemalloc
import zipfile

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from sample_files import damage, make_lying_zip
from sample_models import (
    TORCH,
    arrays_of,
    make_model,
    make_torch_file,
    make_torch_state,
    pickle_state,
    pickle_tensor,
    save,
)

from toolkit.errors import UserError
from toolkit.formats import checkpoint


def test_a_model_of_pytorch_computes_the_same(tmp_path, run):
    x = np.sin(np.arange(2 * 3 * 64 * 64) * 0.37).reshape(2, 3, 64, 64) * 0.5 + 0.5
    expected = np.load(TORCH / "outputs.npz")
    for ending in ("npz", "safetensors"):
        assert run("convert", TORCH / "vae.pth", tmp_path / f"a.{ending}")[0] == 0
    for path in (TORCH / "vae.pth", tmp_path / "a.npz", tmp_path / "a.safetensors"):
        model = checkpoint.load(path).model
        assert (model.config.arch, model.config.channels, model.config.latent_dims) == ("transpose", 3, 2)
        mean, log_var = model.encoder(mx.array(x.transpose(0, 2, 3, 1).astype(np.float32)))
        pixels = np.array(model.decode(mean)).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(np.array(mean), expected["mean"], atol=1e-5)
        np.testing.assert_allclose(np.array(log_var), expected["log_var"], atol=1e-5)
        np.testing.assert_allclose(pixels[:, :, ::3, ::3], expected["pixels"], atol=1e-5)


@pytest.mark.parametrize("kind", ["one_hot", "cat"])
def test_the_annealed_vae_computes_the_same(tmp_path, run, form, kind):
    """Files that annealed.py has made: label planes of both kinds, and other widths in encoder and decoder."""
    expected = np.load(TORCH / f"annealed_{kind}.npz")
    x = np.sin(np.arange(3 * 64 * 64) * 0.37).reshape(3, 64, 64, 1) * 0.5 + 0.5
    made = TORCH / f"annealed_{kind}.pth"
    assert run("convert", made, tmp_path / "a.npz")[0] == 0
    for path in (made, tmp_path / "a.npz"):
        model = checkpoint.load(path).model
        mean, log_var = model.encoder(mx.array(x.astype(np.float32)), mx.array([7, 0, 2]))
        pixels = np.array(model.decode(mx.linspace(-3, 3, 6).reshape(3, 2)))[:, ::5, ::5].transpose(0, 3, 1, 2)
        np.testing.assert_allclose(np.array(mean), expected["mean"], atol=1e-5)
        np.testing.assert_allclose(np.array(log_var), expected["log_var"], atol=1e-5)
        np.testing.assert_allclose(pixels, expected["pixels"], atol=1e-5)


def test_info_prints_all_metadata_of_the_annealed_vae(run):
    status, out, err = run("generate", "--model", TORCH / "annealed_one_hot.pth", "--info")
    assert (status, err) == (0, "")
    for row in (
        "Architecture: convolutions, bounded posterior, decoder_filters 3, "
        "label_planes one_hot, embed_factor 1.0, conditional on 10 classes",
        "Likelihood: squared error (mse)",
        "Data set: mnist",
        "Trained for: 42 epochs",
        "Options: run_name my_run, likelihood_type mse, hidden_dim 2, expand_dim_enc 3, expand_dim_dec 3, "
        "type_of_embedding one_hot, embed_factor 1.0, beta_max 1.0, model_version v1\n",  # and no path
    ):
        assert f"  {row}" in out, out
    assert re.search(r"Test metrics per image: loss \d+\.?\d*", out)
    status, out, err = run("generate", "--model", TORCH / "annealed_cat.pth", "--info")
    assert err.startswith("Warning: in this model the latents carry no information") and err.count("\n") == 1
    assert "decoder_filters 2, label_planes cat, embed_factor 0.5, conditional on 10 classes" in out
    assert "Likelihood: binary cross-entropy (bce)" in out


def test_the_older_format_gets_a_clear_error(fails):
    assert "format of before 2020" in fails("generate", "--model", TORCH / "vae_old_format.pth")


@pytest.mark.parametrize(
    "config",
    [{}, {"arch": "transpose", "channels": 3}, {"arch": "mlp", "num_classes": 4}, {"arch": "resnet", "depth": 1}],
)
def test_safetensors_both_ways(run, tmp_path, config):
    model = make_model(**config, likelihood="bce", binarize="dynamic")
    names = ("ä", "b", "c", "d")[: model.config.num_classes]
    save(tmp_path / "a.npz", model, dataset="cifar-10", epoch=3, class_names=names)
    assert run("convert", tmp_path / "a.npz", tmp_path / "b.safetensors")[0] == 0
    assert run("convert", tmp_path / "b.safetensors", tmp_path / "c.npz", "--dataset", "mnist")[0] == 0
    b, c = checkpoint.load(tmp_path / "b.safetensors"), checkpoint.load(tmp_path / "c.npz")
    assert b.model.config == c.model.config == model.config
    assert (b.dataset, b.epoch, b.class_names) == ("cifar-10", 3, names)
    assert c.facts() == b.facts() | {"dataset": "mnist"}
    for key, array in arrays_of(model).items():
        np.testing.assert_array_equal(arrays_of(b.model)[key], array)
    read, metadata = mx.load(str(tmp_path / "b.safetensors"), return_metadata=True)  # others read what we write
    assert read.keys() == arrays_of(model).keys() and metadata["latent_dims"] == "3" and metadata["likelihood"] == "bce"


def test_safetensors_written_by_others(tmp_path):
    model = make_model()
    mx.save_safetensors(str(tmp_path / "a.safetensors"), dict(tree_flatten(model.parameters())))
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    assert loaded.dataset is None and loaded.model.config == model.config


# Files as PyTorch writes them, made without it


def test_files_without_pytorch_are_read_as_well(tmp_path):
    model = make_model(arch="transpose", channels=3)
    (tmp_path / "a.pth").write_bytes(make_torch_state(arrays_of(model)))
    loaded = checkpoint.load(tmp_path / "a.pth").model
    assert loaded.config == model.config
    for key, array in arrays_of(model).items():
        np.testing.assert_array_equal(arrays_of(loaded)[key], array)


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


def laughs():
    """Tuples of tuples of tuples: small to store, endless to look at."""
    return b"\x80\x02K\x01" + b"q\x00h\x00\x86" * 2000 + b"."


@functools.cache
def hostile_files():
    """Name → bytes of a file that would do harm, or lies."""
    arrays = arrays_of(make_model(arch="transpose"))
    bias = "encoder.bn1.bias"

    def changed(made, more=()):
        return make_torch_state(arrays, **{bias: made})

    def pickled(data):
        return make_torch_file(data, {"0": bytes(24)})

    touch = 'touch "$TMPDIR/vae-was-here"'  # expanded where it would run: in the folder of the test
    deep = b"\x80\x02)" + b"\x85" * 20_000
    return {
        "os.system": pickled(pickle.dumps(Calls(os.system, touch), 2)),
        "os.system, protocol 4": pickled(pickle.dumps(Calls(os.system, touch), 4)),
        "builtins.eval": pickled(pickle.dumps({"a": Calls(eval, "1/0")}, 2)),
        "nested": pickled(pickle.dumps({"a": [(1, {"b": Calls(exec, "raise SystemExit")})]}, 2)),
        "in a tensor's place": changed(pickle.dumps(Calls(os.system, touch), 2)[2:-1]),
        "another function of torch": changed(
            pickle_tensor("0", 2, 0, (2,), (1,), function="_rebuild_wrapper_subclass")
        ),
        "a storage by another name": changed(pickle_tensor("0", 2, 0, (2,), (1,), storage="load")),
        "INST": pickled(b"(S'touch'\nios\nsystem\n."),
        "OBJ": pickled(b"\x80\x02(cos\nsystem\nS'touch'\no."),
        "NEWOBJ": pickled(b"\x80\x02ccollections\nOrderedDict\n)\x81."),
        "BUILD on a name": pickled(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b."),
        "extension": pickled(b"\x80\x02\x82\x01."),
        "memo of nothing": pickled(b"\x80\x02h\x07."),
        "memo of itself": pickled(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."),
        "laughing memo": pickled(laughs()),
        "laughing count": pickled(laughs()[:-1] + b"Q."),
        "deep": pickled(deep + b"."),
        "deep as a name": pickled(deep + deep[2:] + b"\x93."),
        "empty stack": pickled(b"\x80\x02t."),
        "no end": pickled(b"\x80\x02}"),
        "empty pickle": pickled(b""),
        "no dictionary": pickled(b"\x80\x02K\x01."),
        "no tensors": pickled(b"\x80\x02}X\x01\x00\x00\x00aK\x01s."),
        "a list as a key": pickled(b"\x80\x02}]K\x01s."),
        "larger than its storage": changed(pickle_tensor("0", 18, 0, (2, 1000), (1000, 1))),
        "beyond its storage": changed(pickle_tensor("0", 18, 17, (2,), (1,))),
        "negative": changed(pickle_tensor("0", 18, -1, (2,), (1,))),
        "backwards": changed(pickle_tensor("0", 18, 1, (2,), (-1,))),
        "round and round": changed(pickle_tensor("0", 18, 0, (5,), (2**60,))),  # which is 0 in 64 bits
        "10 GB from one number": changed(pickle_tensor("0", 18, 0, (50_000, 50_000), (0, 0))),
        "10 GB of storage": changed(pickle_tensor("0", 2_500_000_000, 0, (2,), (1,))),
        "a storage that is not there": changed(pickle_tensor("999", 2, 0, (2,), (1,))),
        "a storage outside": changed(pickle_tensor("../data.pkl", 2, 0, (2,), (1,))),
        "the same storage a thousand times": pickled(
            pickle_state({str(i): pickle_tensor("0", 6, 0, (6,), (1,)) for i in range(1000)})
        ),
        "cut": make_torch_state(arrays)[:-300],
        "cut pickle": pickled(zipfile.ZipFile(io.BytesIO(make_torch_state(arrays))).read("archive/data.pkl")[:-40]),
    }


@pytest.mark.parametrize("kind", hostile_files())
def test_hostile_pickles(fails, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "a.pth").write_bytes(hostile_files()[kind])
    tracemalloc.start()
    assert "a.pth" in fails("convert", tmp_path / "a.pth", tmp_path / "b.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()
    assert sorted(os.listdir(tmp_path)) == ["a.pth"]


def test_storages_are_read_once_and_no_further_than_they_claim(fails, tmp_path, small_memory):
    pickled = pickle_state({str(i): pickle_tensor("0", 2, 0, (2,), (1,)) for i in range(16)})
    (tmp_path / "a.pth").write_bytes(make_lying_zip("archive/data/0", 8, before=[("archive/data.pkl", pickled)]))
    many, size = tmp_path / "b.pth", 2**20
    pickled = pickle_state({f"encoder.proj_{i}.weight": pickle_tensor("0", size, 0, (size,), (1,)) for i in range(16)})
    many.write_bytes(make_torch_file(pickled, {"0": bytes(4 * size)}))
    for path, most in ((tmp_path / "a.pth", 2**20), (many, 3 * 2**22)):
        with small_memory(most):
            fails("convert", path, tmp_path / "b.npz")


def in_mlx(arrays):
    return {key: mx.array(array) for key, array in arrays.items()}


def safetensors(facts):
    """A file of ours whose facts are this text."""
    buffer = io.BytesIO()
    mx.save_safetensors(buffer, in_mlx(arrays_of(make_model())), {"vae_facts": facts})
    return buffer.getvalue()


def header(**arrays):
    text = json.dumps(arrays).encode()
    return struct.pack("<Q", len(text)) + text


def said(start, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES = {
    "length": struct.pack("<Q", 2**60) + b"{}" + bytes(100),
    "no JSON": struct.pack("<Q", 4) + b"{abc" + bytes(100),
    "deep JSON": struct.pack("<Q", 100_002) + b'{"a":' + b"[" * 99_997 + bytes(10),
    "no dictionary": struct.pack("<Q", 2) + b"[]" + bytes(100),
    "beyond the end": header(a=said(0, 8)) + bytes(4),
    "negative": header(a=said(-8, 0)) + bytes(8),
    "backwards": header(a=said(8, 0)) + bytes(8),
    "10 GB": header(a=said(0, 10**10, (2_500_000_000,))) + bytes(8),
    "10 GB shape": header(a=said(0, 8, (2_500_000_000,))) + bytes(8),
    "empty shape times endless": header(a=said(0, 0, (0, 10**18))) + bytes(8),
    "all the same bytes": header(**{str(i): said(0, 8) for i in range(100)}) + bytes(8),
    "fractions": header(a=said(0, 8.0)) + bytes(8),
    "texts": header(a=said("0", "8")) + bytes(8),
    "unknown type": header(a=said(0, 8, dtype="F99")) + bytes(8),
    "type is a list": header(a=said(0, 8, dtype=["F32"])) + bytes(8),
    "facts of another kind": safetensors("[]"),
    "facts that are no JSON": safetensors("{"),
    "likelihood unknown": safetensors('{"likelihood": "x"}'),
    "cut": safetensors("{}")[:-1],
}


@pytest.mark.parametrize("kind", LIES)
def test_lying_safetensors(fails, tmp_path, kind):
    (tmp_path / "a.safetensors").write_bytes(LIES[kind])
    assert "a.safetensors" in fails("convert", tmp_path / "a.safetensors", tmp_path / "b.npz")


def test_convert_refuses_other_endings(fails, tmp_path):
    assert "ends in .npz, .safetensors or" in fails("convert", TORCH / "vae.pth", tmp_path / "a.pth")
    assert "did you mean mnist" in fails("convert", TORCH / "vae.pth", tmp_path / "a.npz", "--dataset", "mnits")
    assert "no such file" in fails("convert", tmp_path / "none.pth", tmp_path / "a.npz")


@pytest.mark.slow
def test_hundreds_of_broken_files(tmp_path):
    """Each loads, or ends in our error; none takes much memory."""
    conv, transpose = (arrays_of(make_model(max_filters=4, image_size=8, arch=arch)) for arch in ("conv", "transpose"))
    mlp = arrays_of(make_model(max_filters=8, image_size=8, arch="mlp"))
    facts = {"dataset": "mnist", "epoch": 3, "options": {"lr": 0.1}, "likelihood": "bce", "class_names": ["a"]}
    files = [
        checkpoint.pack(conv, facts),
        checkpoint.pack(mlp, facts),
        checkpoint.pack_safetensors(in_mlx(conv), facts),
        checkpoint.pack_safetensors(in_mlx(transpose), {}),
        make_torch_state(transpose),
        (TORCH / "annealed_cat.pth").read_bytes(),
    ]
    random = np.random.default_rng(0)
    path, loaded = tmp_path / "a", 0
    tracemalloc.start()
    for i in range(600):
        path.write_bytes(damage(files[i % len(files)], files, random))
        tracemalloc.reset_peak()
        try:
            checkpoint.load(path)
            loaded += 1
        except UserError as error:
            assert "\n" not in str(error) and " — " in str(error) and len(str(error)) < 400, i
        assert tracemalloc.get_traced_memory()[1] < 2**26, i
    tracemalloc.stop()
    assert 0 < loaded < 300
