"""python bench/distributed.py

Time training steps of the default model in two processes with one core each, in one process with one core and in one
with both, taking turns; then measure how much data a step sends, and time these sums alone. Prints Markdown. Processes
are pinned to cores on Linux only.

The two processes are started directly, with the variables that mlx.launch sets, because mlx.launch 0.32 keeps a whole
core busy while it waits. `--launch` includes it in the measurement.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUBJECTS = {"one process, one core": 1, "one process, two cores": 1, "two processes, one core each": 2}
PORT = 35000


class Subject:
    """Processes that train together on request."""

    def __init__(self, name, options):
        self.name, self.speeds = name, []
        ranks, launch = SUBJECTS[name], []
        places = [{}]  # environment variables of each process
        if ranks > 1 and options.launch:
            program = Path(sys.executable).with_name("mlx.launch")
            launch = [program, "-n", ranks, "-p", PORT, "--backend", "ring", "--python"]
        elif ranks > 1:
            self.place = tempfile.TemporaryDirectory()
            hosts = Path(self.place.name) / "hosts.json"
            hosts.write_text(json.dumps([[f"127.0.0.1:{PORT + i}"] for i in range(ranks)]))
            places = [{"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(i)} for i in range(ranks)]
        shape = [options.batch, options.filters, options.side, options.steps]
        command = list(map(str, [*launch, sys.executable, __file__, "--work", name, *shape]))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.processes = [subprocess.Popen(command, env=os.environ | place, **pipes) for place in places]
        self.ask("train")  # compiles and warms up

    def tell(self, task):
        for process in self.processes:
            process.stdin.write(f"{task}\n")
            process.stdin.flush()

    def ask(self, task):
        self.tell(task)
        return json.loads(self.processes[0].stdout.readline())

    def end(self):
        self.tell("end")
        for process in self.processes:
            process.wait()


def work(name, batch, filters, side, steps):
    """One process: trains for `steps` steps, or times the sums of a step, for each line that it reads."""
    rank = int(os.environ.get("MLX_RANK", 0))
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, usable[:2] if "two cores" in name else [usable[rank]])
    sys.path.insert(0, str(ROOT))
    import mlx.core as mx
    import numpy as np
    from mlx.utils import tree_flatten

    from toolkit.datasets import Split
    from toolkit.machine import device, ranks
    from toolkit.training.plan import make_plan
    from toolkit.training.trainer import Trainer

    device.start(cpu=True, together=True)
    images = np.random.default_rng(0).integers(0, 256, (batch * steps, 28, 28, 1), dtype=np.uint8)
    split = Split(images, None, len(images))
    plan = make_plan({"batchsize": batch, "max_filters": filters, "image_size": side})
    trainer = Trainer(plan, split, split)
    sent, all_sum = [], ranks.all_sum

    def noted(x):
        sent.append((x.shape, x.dtype))
        return all_sum(x)

    def train():
        start = time.perf_counter()
        for one in trainer.batches():
            sent.clear()
            ranks.all_sum = noted
            trainer.step(one)
            ranks.all_sum = all_sum
        return batch * steps / (time.perf_counter() - start)

    def sums():
        """Number of parameters, bytes of each sum of a step, and the seconds that all sums take in sequence."""
        sizes = [array.size for _, array in tree_flatten(trainer.model.trainable_parameters())]
        arrays = [mx.ones(shape, dtype) for shape, dtype in sent]
        mx.eval(arrays)
        times = []
        for _ in range(30):
            start = time.perf_counter()
            for array in arrays:
                mx.eval(ranks.all_sum(array))
            times.append(time.perf_counter() - start)
        return sum(sizes), [array.nbytes for array in arrays], statistics.median(times)

    for line in sys.stdin:
        if line == "end\n":
            return
        answer = {"train\n": train, "sums\n": sums}[line]()
        if rank == 0:
            print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each subject (default: 9)")
    parser.add_argument("--steps", type=int, default=10, help="steps per turn (default: 10)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--launch", action="store_true", help="start the two processes with mlx.launch")
    options = parser.parse_args()
    subjects = [Subject(name, options) for name in SUBJECTS]
    for _ in range(options.rounds):
        for subject in subjects:
            subject.speeds.append(subject.ask("train"))
    parameters, sent, seconds = subjects[-1].ask("sums")
    for subject in subjects:
        subject.end()
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()} {platform.system()}, batches of {options.batch}\n")
    print("| | images/s: median (lowest – highest round) | two processes ÷ this: median of the rounds' ratios |")
    print("|---|---|---|")
    for subject in subjects:
        ratio = statistics.median(two / one for two, one in zip(subjects[-1].speeds, subject.speeds, strict=True))
        low, middle, high = min(subject.speeds), statistics.median(subject.speeds), max(subject.speeds)
        print(f"| {subject.name} | {middle:.0f} ({low:.0f} – {high:.0f}) | {ratio:.2f} |")
    step = options.batch / statistics.median(subjects[-1].speeds)
    total, largest = sum(sent) / 1e6, max(sent) / 1e6
    print(
        f"\nA step sums {len(sent)} buffers with a total of {total:.3f} MB, the largest {largest:.3f} MB "
        f"({parameters:,} parameters). On their own these sums take {seconds * 1e3:.1f} ms, "
        f"{seconds / step:.1%} of a step."
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
