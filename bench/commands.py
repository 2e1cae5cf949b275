"""python bench/commands.py [--runs N]

Wall time and peak memory of commands that should appear at once: `-h` of each, and generate.py with its default model.
Prints a Markdown table with the median and the range over the runs; the first run of each command is not counted.
What these commands import is checked by tests/test_shell.py.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("train", "generate", "reconstruct", "encode", "evaluate", "visualize", "convert", "doctor")


def run(words):
    """Seconds and MB of one run of a command."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, words
    return time.perf_counter() - start, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="counted runs of each command (default: 9)")
    args = parser.parse_args()
    print("| command | seconds | range | MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder, "samples.png"))
        lines = [[f"{name}.py", "-h"] for name in NAMES] + [["generate.py", "--outfile", picture]]
        for name, *words in lines:
            times, memory = zip(*[run([str(ROOT / name), *words]) for _ in range(args.runs + 1)][1:], strict=True)
            shown = " ".join([name, *words]).replace(f"{folder}/", "")
            low, high = min(times), max(times)
            print(f"| `{shown}` | {statistics.median(times):.2f} | {low:.2f} to {high:.2f} | {max(memory):.0f} |")


if __name__ == "__main__":
    main()
