"""python bench/faults.py

Kill one rank of a small training at a random moment, 20 times, with mlx.launch on this machine. Each time all processes
must end within 30 seconds and leave no partial file, and the resumed run must give exactly the same result as one that
never stopped. Prints what happened; the exit status is 1 after any failure.
"""

import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mlx.core as mx  # noqa: E402

LAUNCH = Path(sys.executable).with_name("mlx.launch")
RUN = "--dataset synthetic --limit 64 --image_size 8 --max_filters 8 --latent_dims 2 --batchsize 32 --epochs 12"
SECONDS = 30  # until all processes must have ended
FIRST_PORT = 34000


def start(count: int, port: int, outdir: Path, arch: str, *more: str) -> subprocess.Popen:
    """Start mlx.launch in a new session, with its output in a file next to the run."""
    command = [LAUNCH, "-n", count, "-p", port, "--backend", "ring", "--python", sys.executable]
    command += ["train.py", *RUN.split(), "--arch", arch, "--outdir", outdir, *more]
    with open(outdir / "said.txt", "w") as said:
        return subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ranks_of(launcher: int) -> dict[int, int]:
    """The ranks started by a launcher, as rank → process id, from the environment variables that ps shows."""
    shown = subprocess.run(["ps", "axeww", "-o", "pid=,ppid=,command="], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in shown.splitlines()]
    found = [(int(pid), words) for pid, parent, words in rows if int(parent) == launcher and "train.py" in words]
    return {int(re.search(r" MLX_RANK=(\d+)", words)[1]): pid for pid, words in found}


def await_epoch(launcher: subprocess.Popen, outdir: Path) -> None:
    """Wait until a run has finished an epoch or ended."""
    while not any(re.match(r" *[0-9]+/[0-9]+ ", line) for line in said(outdir)) and launcher.poll() is None:
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def said(outdir: Path) -> list[str]:
    text = re.sub(r"\x1b\[\d*m", "", (outdir / "said.txt").read_text())
    return [line for line in text.splitlines() if line.strip()]


def arrays(outdir: Path) -> dict[str, bytes]:
    """The bytes of every array in the run's files."""
    found = {}
    for path in sorted(outdir.rglob("*.npz")):
        found |= {f"{path.name} {name}": bytes(memoryview(array)) for name, array in mx.load(str(path)).items()}
    return found


def faults_of(outdir: Path) -> list[str]:
    """The faults in the files of a killed run."""
    wrong = []
    for path in outdir.rglob("*.npz"):
        try:
            mx.load(str(path))
        except Exception as error:
            wrong.append(f"{path.name} cannot be read: {error}")
    for log in outdir.rglob("log.jsonl"):
        for line in log.read_text().splitlines():
            json.loads(line)
    return wrong


def kill_once(
    count: int, arch: str, number: int, chance: random.Random, place: Path, unbroken: dict[str, bytes], length: float
) -> dict:
    """Start a run, kill one rank at a random moment, observe the result, and resume."""
    outdir, port = place / "run", FIRST_PORT + 10 * number
    outdir.mkdir()
    launcher = start(count, port, outdir, arch)
    await_epoch(launcher, outdir)
    victim = chance.randrange(count)
    time.sleep(chance.uniform(0, length))
    processes = ranks_of(launcher.pid)
    epochs = sum(bool(re.match(r" *\d+/\d+ ", line)) for line in said(outdir))
    found = {"victim": victim, "epoch": epochs, "wrong": []}
    if victim in processes:
        os.kill(processes[victim], signal.SIGKILL)
    killed = time.monotonic()
    everyone = [launcher.pid, *processes.values()]
    while launcher.poll() is None and time.monotonic() - killed < SECONDS:
        time.sleep(0.02)
    found["seconds"] = time.monotonic() - killed
    left = [process for process in everyone if process != launcher.pid and is_running(process)]
    if launcher.poll() is None or left:
        found["wrong"].append(f"still running after {found['seconds']:.0f} s: {left or 'mlx.launch'}")
        for process in everyone:
            if is_running(process):
                os.kill(process, signal.SIGKILL)
        launcher.wait()
    lines = said(outdir)
    found["ours"] = [line for line in lines if line.startswith("error: ")]
    found["theirs"] = [line.removeprefix("[WARN] Node with ").strip() for line in lines if line.startswith("[WARN]")]
    if any("Traceback" in line for line in lines):
        found["wrong"].append("a traceback")
    if len(found["ours"]) > 1:
        found["wrong"].append(f"{len(found['ours'])} lines: {found['ours']}")
    found["wrong"] += faults_of(outdir)
    resumed = start(count, port + 5, outdir, arch, "--resume")
    resumed.wait(600)
    if arrays(outdir) != unbroken:
        found["wrong"].append(f"the resumed run gives another result ({said(outdir)[-1]})")
    found["wrong"] += [f"{path.name} is left" for path in outdir.rglob("*.part")]
    shutil.rmtree(outdir)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--arch", default="conv")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        whole = place / "whole"
        whole.mkdir()
        launcher = start(args.ranks, FIRST_PORT - 10, whole, args.arch)
        await_epoch(launcher, whole)
        begun = time.monotonic()
        launcher.wait(600)
        length, unbroken = time.monotonic() - begun, arrays(whole)
        found = []
        for number in range(args.times):
            found.append(one := kill_once(args.ranks, args.arch, number, chance, place, unbroken, length))
            print(
                f"{number + 1:2d}: rank {one['victim']} killed after {one['epoch']} epochs, all ended in "
                f"{one['seconds']:.1f} s; {len(one['ours'])} line of ours, mlx.launch: {'; '.join(one['theirs'])}; "
                f"{'; '.join(one['wrong']) or 'resumed with the same result'}",
                flush=True,
            )
    longest = max(one["seconds"] for one in found)
    lines = collections.Counter(line for one in found for line in one["ours"])
    print(f"{args.times} times {args.ranks} ranks: {longest:.1f} s at most, {len(unbroken)} arrays compared")
    for line, count in lines.items():
        print(f"{count:3d} × {line}")
    sys.exit(any(one["wrong"] for one in found))


if __name__ == "__main__":
    main()
