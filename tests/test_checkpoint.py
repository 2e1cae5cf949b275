"""Round trips, files of the family in both directions, and every kind of broken file."""

import dataclasses
import functools
import io
import json
import pickle
import resource
import struct
import zipfile
from contextlib import suppress

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from sample_files import make_lying_zip
from sample_models import arrays_of, make_model, save

from toolkit.architectures import BOUNDED, RESNET, ModelConfig
from toolkit.errors import UserError
from toolkit.formats import checkpoint
from toolkit.options import checked, choices_of, options_of, read_value
from toolkit.training.plan import ElboOptions, IwaeOptions, TrainConfig


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        np.testing.assert_array_equal(array, theirs[key], err_msg=key)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"latent_dims": 1, "binarize": "dynamic"},
        {"channels": 3, "image_size": 24},
        {"max_filters": 10, "image_size": 8},
        {"arch": "mlp", "channels": 4, "image_size": 6},
        {"arch": "transpose", "likelihood": "normal", "num_classes": 2},
        {"arch": "resnet", "likelihood": "logistic", "depth": 3, "image_size": 12, "num_classes": 3},
        {"arch": "bounded", "decoder_filters": 3, "num_classes": 3, "label_planes": "cat"},
    ],
)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_round_trip(tmp_path, config, ending):
    model = make_model(**config)
    names = ("ümlaut", "b", "c")[: model.config.num_classes]
    test = {"loss": 1.5}
    save(tmp_path / f"a.{ending}", model, dataset="mnist", class_names=names, epoch=3, collapsed=True, test=test)
    loaded = checkpoint.load(tmp_path / f"a.{ending}")
    assert loaded.model.config == model.config and loaded.class_names == names
    assert (loaded.dataset, loaded.epoch, loaded.collapsed, loaded.test) == ("mnist", 3, True, test)
    assert_same(arrays_of(loaded.model), arrays_of(model))


def test_same_model_same_bytes(tmp_path, model):
    save(tmp_path / "a.npz", model, epoch=1)
    save(tmp_path / "b.npz", model, epoch=1)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


class AncestorsUpconv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)


class AncestorsEncoder(nn.Module):
    def __init__(self, f, d):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, f // 4, 3), nn.Conv2d(f // 4, f // 2, 3)
        self.conv3 = nn.Conv2d(f // 2, f, 3)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm(f // 4), nn.BatchNorm(f // 2), nn.BatchNorm(f)
        self.proj_mu, self.proj_log_var = nn.Linear(64 * f, d), nn.Linear(64 * f, d)


class AncestorsDecoder(nn.Module):
    def __init__(self, f, d):
        super().__init__()
        self.lin1 = nn.Linear(d, 64 * f)
        self.upconv1, self.upconv2 = AncestorsUpconv(f, f // 2), AncestorsUpconv(f // 2, f // 4)
        self.upconv3 = AncestorsUpconv(f // 4, 1)
        self.bn1, self.bn2 = nn.BatchNorm(f // 2), nn.BatchNorm(f // 4)


class Ancestor(nn.Module):
    """The parameter tree of the MLX example, in plain layers."""

    def __init__(self, f, d):
        super().__init__()
        self.encoder, self.decoder = AncestorsEncoder(f, d), AncestorsDecoder(f, d)


def test_our_files_load_strictly_in_the_ancestor(tmp_path):
    model = make_model(max_filters=64, latent_dims=8, image_size=64)
    save(tmp_path / "ours.npz", model, dataset="mnist")
    ancestor = Ancestor(64, 8)
    ancestor.load_weights(str(tmp_path / "ours.npz"), strict=True)
    assert_same(arrays_of(ancestor), arrays_of(model))


@pytest.mark.parametrize("compress", [False, True])
def test_files_of_the_family_load(tmp_path, compress):
    arrays = arrays_of(Ancestor(64, 8))
    old = {k: a.reshape(1, 1, 1, -1) if "running" in k else a for k, a in arrays.items()}
    old["encoder.kl_div"] = np.float32(17.5)
    (np.savez_compressed if compress else np.savez)(tmp_path / "old.npz", **old)
    loaded = checkpoint.load(tmp_path / "old.npz")
    model = loaded.model
    assert (model.config.latent_dims, model.config.max_filters, model.config.image_size) == (8, 64, 64)
    assert loaded.facts().keys() == {"config"}
    assert_same(arrays_of(model), arrays)


def test_mlx_savez_files_load(tmp_path, model):
    mx.savez(str(tmp_path / "m.npz"), **dict(tree_flatten(model.parameters())))
    assert_same(arrays_of(checkpoint.load(tmp_path / "m.npz").model), arrays_of(model))


class Hostile:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@functools.cache
def broken_files():
    """Kind of damage → the bytes of a file."""
    model = make_model()
    good = arrays_of(model)
    data = checkpoint.pack(good, {"dataset": "mnist"})
    config = dataclasses.asdict(model.config)

    def npz(**arrays):
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    def without(key):
        return {k: a for k, a in good.items() if k != key}

    middle = bytearray(data)
    middle[len(data) // 2] ^= 8
    described = bytearray(data)
    described[data.rindex(b"mnist")] ^= 1
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("encoder.conv1.weight.npy", bytes(50_000_000))
    lying = io.BytesIO()
    np.lib.format.write_array_header_1_0(lying, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    claims = io.BytesIO()
    with zipfile.ZipFile(claims, "w") as archive:
        archive.writestr("encoder.conv1.weight.npy", lying.getvalue())
    return {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "cut short": data[:-1],
        "bit flipped": bytes(middle),
        "description flipped": bytes(described),
        "not npz": b"\x89PNG\r\n" + bytes(1000),
        "pickled archive": pickle.dumps(good),
        "pickled object": npz(**without("encoder.bn1.bias"), **{"encoder.bn1.bias": np.array([Hostile()])}),
        "empty archive": npz(),
        "lacks a key": npz(**without("decoder.bn2.running_var")),
        "lacks the key that tells the size": npz(**without("encoder.conv3.weight")),
        "one key too many": npz(**good, more=np.zeros(3)),
        "wrong shape": npz(**good | {"decoder.bn1.weight": np.zeros(5)}),
        "wrong number of dimensions": npz(**good | {"encoder.conv1.weight": np.zeros(5)}),
        "scalar where a size is read": npz(**good | {"encoder.proj_mu.weight": np.float32(1)}),
        "nan": npz(**good | {"encoder.bn1.weight": np.full(2, np.nan)}),
        "negative variance": npz(**good | {"encoder.bn1.running_var": -np.ones(2)}),
        "too large for float32": npz(**good | {"encoder.bn1.weight": np.full(2, 1e300)}),
        "description of another kind": checkpoint.pack(good, ["mnist"]),
        "data set of another kind": checkpoint.pack(good, {"dataset": 5}),
        "configuration of another model": checkpoint.pack(good, {"config": config | {"max_filters": 16}}),
        "configuration of another kind": checkpoint.pack(good, {"config": ["conv"]}),
        "unknown architecture": checkpoint.pack(good, {"config": config | {"arch": "spiral"}}),
        "unknown option": checkpoint.pack(good, {"config": config | {"colour": "red"}}),
        "text for a number": checkpoint.pack(good, {"config": config | {"latent_dims": "3"}}),
        "fraction of a channel": checkpoint.pack(good, {"config": config | {"channels": 1.0}}),
        "too many parameters": checkpoint.pack(good, {"config": config | {"latent_dims": 10**12}}),
        "infinite": npz(**good | {"encoder.proj_mu.bias": np.full(3, np.inf)}),
        "text": npz(**good | {"encoder.bn1.weight": np.array(["a", "b"])}),
        "bomb": bomb.getvalue(),
        "claims terabytes": claims.getvalue(),
    }


@pytest.mark.parametrize("kind", broken_files())
def test_broken_file_ends_in_one_line(kind, fails, tmp_path):
    path = tmp_path / "broken.npz"
    path.write_bytes(broken_files()[kind])
    assert "broken.npz" in fails("generate", "--model", path, "--outfile", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_weights_that_make_no_picture(fails, tmp_path, model):
    arrays = arrays_of(model)
    arrays["decoder.lin1.weight"] = np.full_like(arrays["decoder.lin1.weight"], 3e38)
    (tmp_path / "broken.npz").write_bytes(checkpoint.pack(arrays, {}))
    fails("generate", "--model", tmp_path / "broken.npz", "--outfile", tmp_path / "out.png")


def test_a_foreign_zip_comment_is_ignored(tmp_path, model):
    save(tmp_path / "a.npz", model, dataset="mnist")
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.comment = b"made by hand"
    assert checkpoint.load(tmp_path / "a.npz").dataset is None


@pytest.mark.parametrize(
    "data",
    [
        make_lying_zip("encoder.conv1.weight.npy"),
        make_lying_zip("archive/data.pkl"),
        make_lying_zip("archive/byteorder", 6, before=[("archive/data.pkl", b"\x80\x02}.")]),
    ],
    ids=["npz", "pickle", "byte order"],
)
def test_an_entry_is_never_unpacked_beyond_what_it_claims(fails, tmp_path, small_memory, data):
    (tmp_path / "a.npz").write_bytes(data)
    with small_memory():
        assert "a.npz" in fails("generate", "--model", tmp_path / "a.npz")


def test_numbers_are_read_once_their_shapes_are_those_of_a_model(tmp_path, model, small_memory):
    """Files whose arrays fit no model; one is sparse and has a gigabyte."""
    arrays, size = arrays_of(model), 2**28
    np.savez(tmp_path / "a.npz", **arrays | {"encoder.conv1.weight": np.zeros(2**22, np.uint8)})
    said = {key: {"dtype": "F32", "shape": a.shape, "data_offsets": [0, a.nbytes]} for key, a in arrays.items()}
    said["encoder.conv1.weight"] = {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}
    text = json.dumps(said).encode()
    with open(tmp_path / "a.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 4 * size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("a.npz", "a.safetensors"):
        with small_memory(), pytest.raises(UserError):
            checkpoint.load(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # kilobytes; MLX's memory is not traced


def test_a_state_whose_optimizer_is_too_large(fails, tmp_path, model):
    facts = {"options": {}, "images": [1, 1], "epoch": 1, "best": None, "plateau": {}}
    arrays = arrays_of(model) | {"optimizer.v": np.zeros(4 * model.parameter_count())}
    facts["config"] = model.config.values()
    (tmp_path / "state.npz").write_bytes(checkpoint.pack(arrays, facts))
    with pytest.raises(UserError, match="too many values for the model"):
        checkpoint.load_state(tmp_path / "state.npz")


@pytest.mark.parametrize("facts", [{"epoch": 3}, {"epoch": 3, "options": {"lr": None}, "test": {"loss": "low"}}])
def test_a_scant_description_is_printed(run, tmp_path, model, facts):
    save(tmp_path / "a.npz", model, **facts)
    status, out, _ = run("generate", "--model", tmp_path / "a.npz", "--info")
    assert status == 0 and "Trained for: 3 epochs" in out


def test_missing_file_and_folder(fails, tmp_path):
    assert "no such file" in fails("generate", "--model", tmp_path / "none.npz")
    assert "is a folder" in fails("generate", "--model", tmp_path)


def test_a_training_state_is_no_model(fails, run, tmp_path):
    flags = "--dataset synthetic --limit 20 --epochs 1 --image_size 16 --max_filters 8".split()
    run("train", *flags, "--outdir", tmp_path)
    name = "vae_synthetic_filters_0008_dims_0008"
    line = fails("generate", "--model", tmp_path / name / "state.npz")
    assert f"{name}.npz" in line


@pytest.mark.slow
def test_flipped_bits_never_pass_unnoticed(tmp_path, model):
    """A file with one bit flipped is refused, or the flip was in a field that nobody reads."""
    good = arrays_of(model)
    data = checkpoint.pack(good, {"dataset": "mnist"})
    random = np.random.default_rng(0)
    refused = 0
    for place in random.integers(0, len(data), 300):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(random.integers(8))
        path = tmp_path / "flipped.npz"
        path.write_bytes(flipped)
        try:
            assert_same(arrays_of(checkpoint.load(path).model), good)
        except UserError:
            refused += 1
    assert refused > 200


def test_the_configuration_of_files_without_one_is_read_off_their_arrays(tmp_path):
    """Files from elsewhere."""
    for config in ({}, {"arch": "transpose", "channels": 3}, {"arch": "mlp", "image_size": 7, "num_classes": 4}):
        model = make_model(**config)
        (tmp_path / "old.npz").write_bytes(checkpoint.pack(arrays_of(model), {"dataset": "mnist"}))
        assert checkpoint.load(tmp_path / "old.npz").model.config == model.config


def test_names_of_many_classes(tmp_path):
    """More than the comment of an archive can have."""
    names = [f"class {i:04d}" for i in range(6000)]
    model = make_model(num_classes=6000)
    save(tmp_path / "a.npz", model, class_names=names)
    assert checkpoint.load(tmp_path / "a.npz").class_names == tuple(names)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["decoder.lin1.bias"], model.decoder.lin1.bias)


TEXTS = (
    *("0", "1", "-0.0", "0.5", "1e-320", "3e29", "1e30", "1e31", "1e99", "1e150", "1e308", "-1e30", "inf", "nan"),
    *("999999999", "1000000000", "4294967295", "4294967296", "9" * 18, "9" * 19, "9" * 400, "1_0", "٣", " 7 "),
    *("a", "", " ", "ä\n\x1b", "\udce4", "x" * 3000, '"', "{}", "\\", "folder:/ä/b"),
)


def test_every_value_that_a_flag_takes_comes_back(tmp_path):
    """From the file of a model and from a state; what could not is refused when it is typed."""
    random = np.random.default_rng(0)
    texts = [*TEXTS, *(f"{10.0**e:g}" for e in random.uniform(-320, 308, 40))]
    texts += map(str, random.integers(0, 2**63, 20))
    parts = (ModelConfig, TrainConfig, ElboOptions, IwaeOptions, RESNET.Options, BOUNDED.Options)
    declared = [option for part in parts for option in options_of(part)]
    tried = 0
    for text in texts:
        taken = {}
        for name, _, known in declared:
            with suppress(ValueError):
                if known.kind:
                    taken[name] = read_value(known, text)
        for ending, packed in (("npz", checkpoint.pack), ("safetensors", checkpoint.pack_safetensors)):
            path = tmp_path / f"a.{ending}"
            path.write_bytes(packed({"a": mx.zeros(1)}, {"options": taken}))
            assert checkpoint.read(path).facts["options"] == taken
        for name, _, known in declared:
            assert name not in taken or checked(known, taken[name]) == taken[name], (name, text)
        tried += len(taken)
    for _, _, known in declared:
        for choice in choices_of(known):
            assert checked(known, choice) == choice
    assert tried > 200


@pytest.mark.parametrize("flag", ["--beta_warmup", "--lr_warmup", "--free_bits", "--beta", "--weight_decay", "--lr"])
def test_a_run_that_starts_can_be_resumed(run, tmp_path, flag):
    flags = "--dataset synthetic --limit 40 --image_size 8 --max_filters 4 --latent_dims 2 --outdir".split()
    for value in ("1e29", "1e30", "1e150", "1e101"):
        if run("train", *flags, tmp_path / value, "--epochs", 1, flag, value)[0] == 0:
            name = "vae_synthetic_filters_0004_dims_0002"
            checkpoint.load(tmp_path / value / f"{name}.npz")
            checkpoint.load_state(tmp_path / value / name / "state.npz")


def test_the_run_beside_a_model(model_file, monkeypatch):
    assert checkpoint.run_folder(model_file) is None
    (folder := model_file.with_suffix("")).mkdir()
    monkeypatch.chdir(model_file.parent)
    assert checkpoint.run_folder(model_file.name) == folder
    for other in (".", "..", folder, "gone.npz"):
        assert checkpoint.run_folder(other) is None


def test_an_entry_that_is_named_again_and_again(model_file, tmp_path):
    with zipfile.ZipFile(model_file, "a") as archive:
        archive.filelist.append(archive.filelist[0])
        archive._didModify = True
    with pytest.raises(UserError, match="two of one name"):
        checkpoint.load(model_file)


def test_a_header_of_python_2_brings_no_warning(tmp_path):
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 2L), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("mean.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(24))
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "config",
    [
        {"arch": "resnet", "depth": 1000},
        {"arch": "resnet", "channels": 2**31},
        {"arch": "bounded", "num_classes": 10**12},
    ],
)
def test_numbers_that_no_model_has(tmp_path, model, config):
    arrays = dict(tree_flatten(model.parameters()))
    (tmp_path / "a.npz").write_bytes(checkpoint.pack(arrays, {"config": model.config.values() | config}))
    with pytest.raises(UserError, match="do not match any model|more than a billion parameters"):
        checkpoint.load(tmp_path / "a.npz")


def test_fewer_class_names_than_classes(tmp_path):
    model = make_model(num_classes=3)
    facts = {"config": model.config.values(), "class_names": ["a"]}
    (tmp_path / "a.npz").write_bytes(checkpoint.pack(dict(tree_flatten(model.parameters())), facts))
    with pytest.raises(UserError, match="3 classes and names for 1"):
        checkpoint.load(tmp_path / "a.npz")
