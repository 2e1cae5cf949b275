"""The check of a machine: on a CPU, on the stand-in for a GPU, and with something wrong."""

import json

import pytest
from gpu_stand_in import gpu

from toolkit.architectures import ModelConfig
from toolkit.layers import cpu, forms
from toolkit.machine import device
from toolkit.metrics import checkup
from toolkit.shell import origin
from toolkit.training.plan import make_plan


@pytest.fixture
def examine(run, tmp_path, monkeypatch):
    """A function that runs the doctor with a small model and short times; returns status, output and results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkup, "SECONDS", 0)
    small = {"image_size": 16, "max_filters": 16}
    monkeypatch.setattr(checkup, "ModelConfig", lambda: ModelConfig(**small))
    monkeypatch.setattr(checkup, "make_plan", lambda values: make_plan(values | small | {"batchsize": 8}))

    def call(*argv):
        status, out, err = run("doctor", *argv)
        assert not err
        return status, out, json.loads((tmp_path / "doctor.json").read_text())

    return call


def test_a_cpu(examine):
    status, out, found = examine()
    assert status == 0 and "Everything is as it should be." in out and found["advice"] == []
    assert found["products"] == "float32" and found["device"].startswith("CPU, ") and "mlx" in found["versions"]
    assert {"down", "residual", "up in four phases", "vae_mnist_filters_0064_dims_0008"} <= found["differences"].keys()
    assert 0 < max(found["differences"].values()) < 1e-5
    names = {"training", "decoding", "reconstructing", "training, textbook layers, four-phase upsampling"}
    assert names < found["speeds"].keys() and min(found["speeds"].values()) > 0
    assert max(map(len, out.splitlines()[3:])) <= 80
    assert forms.current is None  # as it was


def test_a_gpu_is_timed_in_all_four_ways(examine):
    with gpu():
        status, out, found = examine()
    assert status == 0 and found["device"].startswith("GPU")
    assert {
        "training",
        "training, four-phase upsampling",
        "training, not compiled",
        "training, four-phase upsampling, not compiled",
        "traces of training",
    } < found["speeds"].keys()


def test_what_is_off_is_named_with_what_to_do(examine, monkeypatch):
    right = cpu.add_neighbours
    monkeypatch.setattr(cpu, "add_neighbours", lambda *arguments: 1.01 * right(*arguments))
    monkeypatch.setattr(device, "has_full_precision", lambda: False)
    monkeypatch.setattr(device, "start", lambda cpu: "CPU, 2 cores, reference BLAS, 7 times slower (why)")
    monkeypatch.setattr(origin, "version", lambda name: "0.31.0")
    status, out, found = examine()
    assert status == 1
    for words in (
        "MLX is older than 0.32.1",
        "unset MLX_ENABLE_TF32",
        "pip install scipy-openblas32",
        "residual differs",
    ):
        assert words in out, words
    assert len(found["advice"]) >= 4 and found["products"] == "TF32"


def test_an_existing_file_is_replaced_only_if_the_doctor_wrote_it(fails, tmp_path):
    other = tmp_path / "notes.json"
    other.write_text("{}")
    assert "--overwrite" in fails("doctor", "--json", other)
    assert other.read_text() == "{}"
    assert ".json" in fails("doctor", "--json", tmp_path / "notes.txt")
