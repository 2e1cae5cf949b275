"""python bench/residual.py

Time alternating training steps of --arch resnet, with the ELBO and the importance-weighted bound, for this toolkit and
for the same model in PyTorch; then how the toolkit's step grows with width, depth and samples. Prints Markdown tables.
PyTorch comes from this Python, or is installed into bench/.venv.
"""

import argparse
import platform
import statistics
import sys
import time

from throughput import Subject, torch_python

SHAPES = {"ELBO": (64, 64, 2, 1), "importance-weighted, 5 samples": (64, 64, 2, 5)}  # batch, width, depth, samples
TORCH = ("torch resnet", "torch resnet channels_last", "torch resnet compiled")


def compare(subjects, rounds):
    """Time the subjects in turns for each shape."""
    for title, shape in SHAPES.items():
        times = {subject.name: [] for subject in subjects}
        for i in range(rounds + 1):
            for subject in subjects:
                seconds = statistics.median(subject.time("train", shape, 3))
                if i:  # the first round compiles and warms up
                    times[subject.name].append(seconds)
        print(f"\n{title}, batch {shape[0]}, {shape[1]} filters, depth {shape[2]}:\n")
        print("| | ms per step: median (lowest – highest round) | toolkit ÷ this: ratio of speeds |")
        print("|---|---|---|")
        for name, seconds in times.items():
            shown = [1e3 * s for s in (statistics.median(seconds), min(seconds), max(seconds))]
            ratio = statistics.median(b / a for a, b in zip(times[subjects[0].name], seconds, strict=True))
            print(f"| {name} | {shown[0]:.0f} ({shown[1]:.0f} – {shown[2]:.0f}) | {ratio:.2f} |")


def grow(toolkit):
    """Time training steps of different widths, depths and samples."""
    print("\n| filters | depth | samples | ms per step |")
    print("|---|---|---|---|")
    shapes = [(w, 2, 1) for w in (16, 32, 64, 128)] + [(64, d, 1) for d in (1, 3, 4)] + [(64, 2, k) for k in (5, 8, 16)]
    for shape in shapes:
        toolkit.time("train", (64, *shape))
        seconds = statistics.median(toolkit.time("train", (64, *shape), 3))
        print(f"| {' | '.join(map(str, shape))} | {seconds * 1e3:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each subject (default: 7)")
    args = parser.parse_args()
    python = torch_python()
    subjects = [Subject("toolkit resnet", sys.executable, "cpu"), *(Subject(name, python, "cpu") for name in TORCH)]
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()} {platform.system()}")
    for subject in subjects[:2]:
        print(f"- {subject.name}: {subject.description}")
    compare(subjects, args.rounds)
    grow(subjects[0])
    for subject in subjects:
        subject.end()


if __name__ == "__main__":
    main()
