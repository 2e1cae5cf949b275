"""What a GPU does otherwise, on a stand-in for one (gpu_stand_in.py); no test here has run on a real GPU."""

import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from gpu_stand_in import Unsupported, gpu

from toolkit import datasets
from toolkit.architectures import ARCHITECTURES
from toolkit.layers import plain
from toolkit.machine import device
from toolkit.model.likelihoods import LIKELIHOODS
from toolkit.model.priors import StandardNormal
from toolkit.shell.opening import ROOT
from toolkit.training.plan import OBJECTIVES, make_plan
from toolkit.training.trainer import Trainer

TINY = "--dataset synthetic --image_size 16 --max_filters 8 --latent_dims 3 --batchsize 16".split()
MODEL = "vae_synthetic_filters_0008_dims_0003.npz"


@pytest.fixture
def work(run, tmp_path, monkeypatch):
    """A function that trains a model on the stand-in and calls all commands that compute with it."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        status, out, err = run(*argv)
        assert status == 0, err
        return out

    def commands(*flags):
        out = call("train", *TINY, "--limit", 24, "--epochs", 1, "--outdir", "m", *flags)
        call("evaluate", "--model", f"m/{MODEL}", "--limit", 12, "--importance_samples", 21, "--batchsize", 200)
        more = ["--prior", "flow", "--score_samples", 10] if "--prior" in flags else ["--prior", "mixture"]
        call("evaluate", "--model", f"m/{MODEL}", "--limit", 12, "--importance_samples", 2, *more)
        for pixels in ("mean", "sample"):
            call("generate", "--model", f"m/{MODEL}", "--nsamples", 3, "--pixels", pixels, "--overwrite")
        call("reconstruct", "--model", f"m/{MODEL}", "--rec_testdata", "--limit", 9)
        return out

    return commands


def check_traces(traces, epochs=1):
    """A function was traced for at most two shapes in an epoch: a batch, and a smaller last one."""
    assert traces and max(traces.values()) <= 2 * epochs, traces


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_that_metal_lacks_is_called(work, arch, objective):
    with gpu() as traces:
        out = work("--arch", arch, "--objective", objective)
    assert "Device: GPU" in out
    check_traces(traces)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_other_likelihoods(work, likelihood):
    with gpu():
        work("--likelihood", likelihood)


@pytest.mark.parametrize(
    "flags",
    ["--conditional", "--recipe classic", "--free_bits 0.1", "--binarize dynamic", "--prior flow --flow_units 8"],
)
def test_other_options(work, flags):
    with gpu() as traces:
        work(*flags.split())
    check_traces(traces)


def test_an_epoch_traces_a_function_for_two_shapes_at_most():
    """Whatever is left over: the last batch of training, of the test images and of the held-out images is smaller."""
    train, test = datasets.load("synthetic", "train", None, 3100), datasets.load("synthetic", "test", None, 260)
    tiny = {"image_size": 16, "max_filters": 4, "latent_dims": 2, "batchsize": 500, "keep_best": True}
    with gpu() as traces:
        trainer = Trainer(make_plan(tiny | {"objective": "iwae", "iw_samples": 2}), train, test)
        for batch in trainer.batches():
            trainer.step(batch)
        trainer.end_epoch()
    assert len(trainer.held_out) > 250 and len(traces) >= 3
    check_traces(traces)


# Faults, each planted where a step, a score or a sample passes.


def read_a_value(x, *_):
    return mx.square(x).sum(axis=(1, 2, 3)) if x.sum().item() >= 0 else x


def in_numpy(x, *_):
    return mx.array(np.square(np.array(x)).sum(axis=(1, 2, 3)))


def in_float64(x, *_):
    return mx.square(x.astype(mx.float64)).sum(axis=(1, 2, 3)).astype(mx.float32)


def inverse(x, *_):
    return mx.linalg.inv(x[..., 0] + mx.eye(16)).sum(axis=(1, 2))


def correlated(self, count, key, temperature=1.0, labels=None):
    return mx.random.multivariate_normal(mx.zeros(3), mx.eye(3), (count,), key=key)


def from_a_file(self, count, key, temperature=1.0, labels=None):
    np.savez("z.npz", z=np.zeros((count, 3)))
    return mx.load("z.npz")["z"]


FAULTS = {
    "a value read in a compiled function": (plain, "squared_error", read_a_value, "during function transformations"),
    "NumPy in a compiled function": (plain, "squared_error", in_numpy, "during function transformations"),
    "float64": (plain, "squared_error", in_float64, "NoFloat64"),
    "an operation without a kernel": (plain, "squared_error", inverse, "mx.linalg.inv has no GPU kernel"),
    "one inside another": (StandardNormal, "sample", correlated, "multivariate_normal has no GPU kernel"),
    "float64 from a file": (StandardNormal, "sample", from_a_file, "an array in float64"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(work, monkeypatch, fault):
    place, name, planted, words = FAULTS[fault]
    monkeypatch.setattr(place, name, planted)
    with gpu(), pytest.raises((Unsupported, ValueError, TypeError), match=words):
        work()


def test_lapack_on_a_cpu_stream_is_fine():
    with gpu():
        with mx.stream(mx.cpu):
            inside = mx.linalg.inv(2 * mx.eye(2))
        assert (inside + mx.linalg.inv(2 * mx.eye(2), stream=mx.cpu)).tolist() == [[1, 0], [0, 1]]


def test_a_trace_for_every_shape_is_counted():
    with gpu() as traces:
        double = mx.compile(lambda x: 2 * x)
        results = [double(mx.ones(n)).sum().item() for n in (1, 2, 3, 3)]
    assert results == [2, 4, 6, 6] and list(traces.values()) == [3]


# Precision, memory and failures

METAL = "[METAL] Command buffer execution failed: {}"

PRECISION = """
import ctypes
from toolkit.machine import device
print(device.start())
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print(getenv(b"MLX_ENABLE_TF32").decode())
"""


@pytest.mark.parametrize("asked, used", [(None, "0"), ("1", "1")])
def test_products_are_in_full_float32_unless_a_person_chose_otherwise(asked, used):
    environment = {name: value for name, value in os.environ.items() if name != "MLX_ENABLE_TF32"}
    environment |= {"MLX_ENABLE_TF32": asked} if asked else {}
    line = [sys.executable, "-c", PRECISION]
    ended = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    assert ended.stdout.splitlines()[-1] == used  # as MLX, which is C++, sees it
    assert "TF32" not in ended.stdout  # a CPU has none


def rounded(x):
    """To the 10 bits of TF32's mantissa."""
    bits = mx.view(x, mx.uint32)
    return mx.view((bits + 2**12) & ~mx.array(2**13 - 1, mx.uint32), mx.float32)


def test_less_precision_is_measured_and_stands_in_the_line_of_the_device(monkeypatch):
    assert device.has_full_precision()
    conv2d = mx.conv2d
    monkeypatch.setattr(mx, "conv2d", lambda x, kernel, **more: conv2d(rounded(x), kernel, **more))
    assert not device.has_full_precision()
    with gpu():
        assert device.start().endswith(", TF32")


@pytest.mark.parametrize(
    "message, words",
    [
        (
            METAL.format("Impacting Interactivity (0000000e:kIOGPU…)"),
            "(Impacting Interactivity)",
        ),
        (METAL.format("Insufficient Memory (00000008:kIOGPU…)"), "out of memory"),
        ("cudaMallocAsync(&data, size, stream) failed: out of memory", "out of memory"),
        (
            "cudaGraphLaunch(graph, stream) failed: an illegal memory access was encountered",
            "(an illegal memory access",
        ),
    ],
)
def test_a_gpu_that_fails_is_one_line_and_the_last_epoch_can_be_resumed(run, tmp_path, monkeypatch, message, words):
    flags = ["train", *TINY, "--limit", 40, "--outdir", tmp_path, "--epochs"]
    with gpu():
        run(*flags, 1)
        files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        calls, compute = [], mx.async_eval

        def fail(*arrays):
            calls.append(compute(*arrays))
            if len(calls) == 2:
                raise RuntimeError(message)

        with monkeypatch.context() as patch:
            patch.setattr(mx, "async_eval", fail)
            status, _, err = run(*flags, 2, "--resume")
        assert status == 2 and err.count("\n") == 1 and words in err and "--resume" in err, err
        assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert run(*flags, 2, "--resume")[0] == 0


def test_the_cache_has_a_limit_and_is_cleared_between_phases_of_a_gpu(run, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(mx, "clear_cache", lambda: calls.append("cleared"))
    flags = ["train", *TINY, "--limit", 20, "--epochs", 2, "--outdir", tmp_path]
    assert run(*flags)[0] == 0 and not calls
    with gpu():
        monkeypatch.setattr(mx, "set_cache_limit", calls.append)
        assert run(*flags, "--overwrite")[0] == 0
    assert calls[0] == 2**30
    assert calls[1:] == ["cleared"] * 5  # training and scoring of two epochs, then encoding for the prior


def test_channels_that_miss_the_fast_kernels_get_a_hint(run, tmp_path):
    flags = ["train", *TINY, "--limit", 20, "--epochs", 1, "--max_filters"]
    hint = "Hint: MLX convolves {} channels slowly on a GPU"
    with gpu():
        assert hint.format("20 and 40") in run(*flags, 80, "--outdir", tmp_path)[1]
        assert "Hint" not in run(*flags, 64, "--outdir", tmp_path)[1]
        assert hint.format("24") in run(*flags, 48, "--arch", "resnet", "--outdir", tmp_path)[1]
    assert "Hint" not in run(*flags, 80, "--outdir", tmp_path, "--overwrite")[1]


def test_no_more_than_two_steps_are_in_flight(run, tmp_path, monkeypatch):
    """A step is submitted only when at most one other has not been waited for."""
    waiting, wait = [], Trainer.wait

    def counted(trainer, ahead=0):
        waiting.append(len(trainer.computing))
        return wait(trainer, ahead)

    monkeypatch.setattr(Trainer, "wait", counted)
    with gpu():
        run("train", *TINY, "--limit", 200, "--epochs", 1, "--outdir", tmp_path)
    assert max(waiting) == 2 and len(waiting) > 10
