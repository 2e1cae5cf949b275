"""python bench/throughput.py

Time training steps, decoding and reconstruction in turns for this toolkit, for PyTorch and for the plain layers of the
MLX example; then how the toolkit's step grows with batch, filters and image side; then one epoch of MNIST end to end.
Prints Markdown tables. PyTorch comes from this Python, or is installed into bench/.venv.
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

HERE = Path(__file__).resolve().parent
TASKS = ("train", "decode", "reconstruct")
DEFAULT = (128, 64, 64)  # batch, filters, side
TORCH = "torch==2.13.0"
PAUSE = 0.5  # seconds before each turn, as threads of the previous subject may still be spinning


class Subject:
    """A process that times tasks on request."""

    def __init__(self, name, python, device):
        self.name, self.times = name, {task: [] for task in TASKS}
        self.cache = tempfile.TemporaryDirectory()  # its own compile cache
        environment = {"MLX_ENABLE_TF32": "0"} | os.environ | {"TMPDIR": self.cache.name}
        command = [python, str(HERE / "subjects.py"), name, device]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.description = json.loads(self.process.stdout.readline())

    def time(self, task, shape=DEFAULT, repeats=1):
        time.sleep(PAUSE)
        self.process.stdin.write(json.dumps([task, *shape, repeats]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.cache.cleanup()


def torch_python():
    """A Python with PyTorch: this one, or one in a virtual environment next to this file."""
    own = HERE / ".venv" / "bin" / "python"
    for python in (sys.executable, str(own)):
        found = Path(python).exists() and subprocess.run([python, "-c", "import torch"], capture_output=True)
        if found and found.returncode == 0:
            return python
    print(f"installing {TORCH} into {HERE / '.venv'}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(HERE / ".venv")], check=True)
    subprocess.run([str(own), "-m", "pip", "install", "--quiet", TORCH, "numpy"], check=True)
    return str(own)


def compare(subjects, rounds):
    """Time the subjects in turns; each round gives one figure per subject and task."""
    for task in TASKS:
        for subject in subjects:
            subject.time(task, repeats=1 if subject.name == "ancestor" else 3)  # compiling, warming up
    for i in range(rounds):
        for task in TASKS:
            for subject in subjects:
                if subject.name == "ancestor":
                    if i < 3:
                        subject.times[task] += subject.time(task)
                    continue
                repeats = 6 if task == "train" else 15
                subject.times[task].append(statistics.median(subject.time(task, repeats=repeats)))
        print(f"round {i + 1} of {rounds}", file=sys.stderr)
    batch = DEFAULT[0]
    print("| images/s: median (lowest – highest round) | train | decode | reconstruct |")
    print("|---|---|---|---|")
    for subject in subjects:
        cells = [subject.name]
        for task in TASKS:
            speeds = sorted(batch / seconds for seconds in subject.times[task])
            cells.append(f"{statistics.median(speeds):.0f} ({speeds[0]:.0f} – {speeds[-1]:.0f})")
        print(f"| {' | '.join(cells)} |")
    toolkit = subjects[0]
    print("\n| toolkit ÷ other: median of the rounds' ratios | train | decode | reconstruct |")
    print("|---|---|---|---|")
    for subject in subjects[1:]:
        cells = [subject.name]
        for task in TASKS:
            pairs = zip(toolkit.times[task], subject.times[task], strict=False)
            cells.append(f"{statistics.median(theirs / ours for ours, theirs in pairs):.2f}")
        print(f"| {' | '.join(cells)} |")


def grow(toolkit):
    """Time training steps of different batches, filters and image sides."""
    batch, filters, side = DEFAULT
    print("\n| batch | filters | side | ms per step | images/s |")
    print("|---|---|---|---|---|")
    shapes = [(b, filters, side) for b in (32, 64, 128, 256, 512)]
    shapes += [(batch, f, side) for f in (16, 32, 128, 256)] + [(batch, filters, s) for s in (32, 96, 128)]
    for shape in shapes:
        toolkit.time("train", shape)
        seconds = statistics.median(toolkit.time("train", shape, 5))
        print(f"| {' | '.join(map(str, shape))} | {seconds * 1e3:.1f} | {shape[0] / seconds:.0f} |")


def end_to_end(data_dir, device):
    """Time one epoch of MNIST with train.py, including start and pictures, and compare with the time of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE.parent / "train.py"), "--epochs", "1", "--outdir", folder]
        command += ["--data_dir", data_dir, *(["--cpu"] if device == "cpu" else [])]
        start = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True)
        wall = time.perf_counter() - start
        if ended.returncode:
            print(f"\nEnd to end: not measured ({ended.stderr.strip()})")
            return
        log = next(Path(folder).glob("*/log.jsonl"))
        steps = json.loads(log.read_text())["seconds"]
        print(
            f"\nEnd to end, one epoch of MNIST: {wall:.1f} s, {steps:.1f} s in steps, {wall / steps - 1:.1%} overhead"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each subject (default: 9)")
    parser.add_argument("--gpu", action="store_true", help="time only the toolkit and its ancestor, on the GPU")
    parser.add_argument("--data_dir", default=os.environ.get("VAE_DATA_DIR") or "data", help="folder with MNIST")
    args = parser.parse_args()
    device = "gpu" if args.gpu else "cpu"
    pythons = {"toolkit": sys.executable, "ancestor": sys.executable}
    if not args.gpu:
        python = torch_python()
        pythons |= {name: python for name in ("torch", "torch channels_last", "torch compiled")}
    subjects = [Subject(name, python, device) for name, python in pythons.items()]
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()} {platform.system()}")
    for subject in subjects:
        print(f"- {subject.name}: {subject.description}")
    print()
    compare(subjects, args.rounds)
    grow(subjects[0])
    for subject in subjects:
        subject.end()
    end_to_end(args.data_dir, device)


if __name__ == "__main__":
    main()
