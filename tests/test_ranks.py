"""Several processes on loopback against one: the same losses, weights, scores and errors."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import of_ranks
import pytest

from toolkit import datasets
from toolkit.errors import RankError
from toolkit.formats import checkpoint
from toolkit.machine import process, ranks
from toolkit.training.plan import make_plan
from toolkit.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = Path(sys.executable).with_name("mlx.launch")
TINY = "--dataset synthetic --limit 101 --image_size 8 --max_filters 8 --latent_dims 2 --epochs".split()
pytestmark = pytest.mark.skipif(not LAUNCH.exists(), reason="there is no mlx.launch beside this Python")


def launch(count, *words, timeout=300):
    """Run a script with so many ranks; returns what they printed."""
    command = [LAUNCH, "-n", count, "--backend", "ring", "--python", sys.executable, *words]
    ended = subprocess.run(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
    )
    said = re.sub(r"\x1b\[\d*m", "", ended.stdout).splitlines()  # mlx.launch writes in colours
    return [line for line in said if line.strip() and "[WARN]" not in line]


def start(folder, count, *words):
    """The same by what mlx.launch tells its ranks, without itself: while it waits, it keeps a core busy."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        hosts = [["{}:{}".format(*one.getsockname())] for one in sockets]
    (folder / "hosts.json").write_text(json.dumps(hosts))
    known = os.environ | {"MLX_HOSTFILE": str(folder / "hosts.json")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, *map(str, words)]
    ranks = [subprocess.Popen(command, cwd=ROOT, env=known | {"MLX_RANK": str(i)}, **pipes) for i in range(count)]
    return [line for rank in ranks for line in rank.communicate(timeout=300)[0].splitlines()]


@pytest.fixture(scope="module")
def alone():
    return {name: of_ranks.epoch(*case) for name, case in of_ranks.CASES.items()}


CORES = process.cores()


@pytest.mark.slow
@pytest.mark.parametrize(
    "count",
    [2, *(pytest.param(n, marks=pytest.mark.skipif(n > CORES, reason=f"{n} ranks want {n} cores")) for n in (3, 4))],
)
def test_the_mathematics_does_not_depend_on_the_number_of_ranks(alone, tmp_path, count):
    assert start(tmp_path, count, "tests/of_ranks.py", tmp_path / "out.json") == []
    together = json.loads((tmp_path / "out.json").read_text())
    for name, one in alone.items():
        several = together[name]
        for weight, values in one["weights"].items():
            np.testing.assert_allclose(several["weights"][weight], values, atol=1e-5, err_msg=f"{name} {weight}")
        assert several["entry"]["loss"] == pytest.approx(one["entry"]["loss"], abs=1e-3), name
        for split in one["entry"].keys() & {"test", "held_out"}:
            assert several["entry"][split] == pytest.approx(one["entry"][split], abs=1e-2), name
        for found in ("codes", "bound"):
            np.testing.assert_allclose(several[found], one[found], atol=2e-2, err_msg=f"{name} {found}")


@pytest.mark.slow
def test_train_and_evaluate_together(run, tmp_path):
    """One prints and writes; a resume may have another number of ranks."""
    out = launch(2, "train.py", *TINY, 1, "--outdir", tmp_path)
    assert out[1].startswith("  Device: 2 ranks, CPU") and sum(line.startswith("  1/1 ") for line in out) == 1
    status, alone, _ = run("train", *TINY, 2, "--resume", "--outdir", tmp_path)
    assert status == 0 and "Resuming after epoch 1" in alone
    model = tmp_path / "vae_synthetic_filters_0008_dims_0002.npz"
    assert checkpoint.load(model).sampler
    flags = ["--model", model, "--limit", 37, "--importance_samples", 25, "--json"]
    assert start(tmp_path, 2, "evaluate.py", *flags, tmp_path / "two.json")[-1].startswith("Metrics: ")
    assert run("evaluate", *flags, tmp_path / "one.json")[0] == 0
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    for name in ("loss", "log_likelihood"):
        assert two[name]["mean"] == pytest.approx(one[name]["mean"], rel=1e-5)


@pytest.mark.slow
def test_one_line_for_all(tmp_path):
    error = "error: 2 ranks cannot share batches of 1 image — use a larger --batchsize"
    assert launch(2, "train.py", *TINY, 1, "--batchsize", 1, "--outdir", tmp_path) == [error]
    assert launch(2, "generate.py") == ["error: this command runs in one process — start it without mlx.launch"]


def test_alone_nothing_changes():
    values = np.arange(7)
    assert ranks.share(values) is not None and (ranks.share(values) == values).all()
    assert ranks.broadcast({"a": 1}) == {"a": 1} and ranks.gather(values, 7) is values
    assert ranks.leader_first(lambda: 3) == 3


def test_a_rank_that_is_lost_or_left_alone_ends(monkeypatch, capsys):
    """What the thread beside a rank does: a signal while MLX waits, a launcher that is gone, a wait that takes long."""

    def end(message, status=2):
        raise SystemExit(message)

    def watch(signals, launcher=None):
        reading, writing = os.pipe()
        os.write(writing, bytes(signals))
        os.close(writing)
        process.watch(reading, launcher or os.getppid())

    monkeypatch.setattr(process, "end", end)
    with pytest.raises(SystemExit, match="another rank was lost — .* --resume"):
        watch([signal.SIGTERM])
    with pytest.raises(SystemExit, match="^$"):
        watch([signal.SIGCHLD], launcher=-1)
    monkeypatch.setattr(process, "waiting_since", time.monotonic() - process.SLOW - 1)
    watch([signal.SIGCHLD])
    assert capsys.readouterr().err.startswith("Waiting for another rank for 30 s: ")
    monkeypatch.setattr(process, "PATIENCE", -1)
    with pytest.raises(SystemExit, match="interrupted"):
        watch([signal.SIGINT])


def test_ranks_with_other_data_say_so(monkeypatch):
    splits = [datasets.load("synthetic", split, None, 16) for split in ("train", "test")]
    plan = make_plan({"image_size": 8, "max_filters": 8})
    trainer = Trainer(plan, *splits)
    monkeypatch.setattr(ranks, "size", 2)
    monkeypatch.setattr(ranks, "rank", 1)
    monkeypatch.setattr(ranks, "broadcast", lambda value: value | {"checksum of the data": [1, 2]})
    with pytest.raises(RankError, match=r"^rank 1 of 2: its checksum of the data is .* is \[1, 2\] — give every rank"):
        trainer.synchronize()


def test_one_rank_alone_under_mlx_launch(tmp_path, monkeypatch):
    """mlx.launch -n 1 names an empty hostfile."""
    hosts = tmp_path / "hosts"
    monkeypatch.setenv("MLX_RANK", "0")
    monkeypatch.setenv("MLX_HOSTFILE", str(hosts))
    hosts.write_text("\n")
    assert process.launched_as() is None
    hosts.write_text('[["127.0.0.1:1"], ["127.0.0.1:2"]]\n')
    assert process.launched_as() == 0


def test_a_rank_of_too_many_digits_is_none(monkeypatch):
    monkeypatch.setenv("MLX_RANK", "9" * 5000)
    assert process.launched_as() is None
