"""python bench/scaling.py mnist
python bench/scaling.py faces.zip --runs 5 6 7
python bench/scaling.py law mnist.md --latent_dims 16

How the loss falls with filters, dimensions, batch size and training images: the runs behind `train.py --minutes`. Each
is one run of train.py's recipe, scored at its end on the held-out twelfth of the training images; the test split is not
used. Prints a row of a Markdown table for each. To run two at once: `taskset -c 0 python bench/scaling.py mnist`.

`law` fits a law of toolkit/training/budget.py to the rows in a file that have a number of dimensions, and prints by how
much it misses each of them when it is fitted to the others.
"""

import argparse
import itertools
import os
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from toolkit import datasets
from toolkit.files.progress import bar
from toolkit.machine import device
from toolkit.training.budget import Law
from toolkit.training.plan import make_plan
from toolkit.training.trainer import Trainer

# Filters, dimensions, batch size, thousands of training images. The first runs are the shortest.
GREY = [
    *((16, 16, 64, 30), (32, 16, 64, 30), (64, 16, 64, 30), (128, 16, 64, 30)),
    *((16, 16, 64, 120), (32, 16, 64, 120), (64, 16, 64, 120)),
    *((64, 8, 64, 120), (64, 32, 64, 120), (64, 16, 128, 120), (64, 16, 256, 120)),
    *((128, 16, 64, 120), (16, 16, 64, 480), (32, 16, 64, 480), (64, 16, 64, 480)),
]
COLOUR = [(filters, {8: 32, 16: 64, 32: 128}[dims], batch, count) for filters, dims, batch, count in GREY]


def train(trainer):
    """All steps of a run, without scores or files; returns their seconds."""
    start = time.perf_counter()
    with bar(trainer.horizon, "Training") as shown:
        while trainer.steps < trainer.horizon:
            for batch in trainer.batches():
                trainer.step(batch)
                shown.update()
    trainer.wait()
    return time.perf_counter() - start


def scored(splits, dataset, filters, dims, batch, count):
    """Train one model; returns its loss, error and KL on held-out images, and the seconds that its steps took."""
    options = {"dataset": dataset, "max_filters": filters, "latent_dims": dims, "batchsize": batch, "keep_best": True}
    trainer = Trainer(make_plan(options), *splits)
    trainer.set_horizon(round(1000 * count / batch))
    seconds = train(trainer)
    return trainer.score(trainer.train, trainer.held_out), seconds


def read(path, dims):
    """Filters, batch size, images and loss of the rows with these dimensions, (4, N)."""
    rows = re.findall(rf"^\| (\d+) \| {dims} \| (\d+) \| ([\d,]+) \| ([\d.]+) \|", Path(path).read_text(), re.M)
    return np.array([[float(text.replace(",", "")) for text in row] for row in rows]).T


def fitted(rows, powers_of_batch):
    """The law with the smallest relative errors: exponents from a grid, and a linear fit for the rest."""
    filters, batch, images, loss = rows
    best, least = None, np.inf
    for p, q, power in itertools.product(np.linspace(0.2, 2, 37), np.linspace(0.2, 1.2, 41), powers_of_batch):
        terms = np.stack([np.ones_like(loss), filters**-p, (images * (64 / batch) ** power) ** -q])
        factors = np.linalg.lstsq((terms / loss).T, np.ones_like(loss), rcond=None)[0]
        error = np.square(factors @ terms / loss - 1).sum()
        if error < least and (factors >= 0).all():
            a, b = (float(factors[1]), float(p)), (float(factors[2]), float(q))
            best, least = Law((), 0, float(factors[0]), a, b, float(power), ""), error
    return best


def print_law(path, dims):
    """A law, and its errors."""
    rows = read(path, dims)
    law = fitted(rows, [0.3] if (rows[1] == 64).all() else np.linspace(0, 1, 11))
    print(f"{law}\n\n| filters | batch | images | loss | fitted | without this run |\n" + 6 * "|---" + "|")
    for i, (filters, batch, images, loss) in enumerate(rows.T):
        others = fitted(np.delete(rows, i, axis=1), [law.of_batch])
        off = [100 * (one.loss(filters, images, batch) / loss - 1) for one in (law, others)]
        print(f"| {filters:.0f} | {batch:.0f} | {images:,.0f} | {loss:.2f} | {off[0]:+.1f} % | {off[1]:+.1f} % |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="mnist, or a folder or zip file of pictures; or law")
    parser.add_argument("rows", nargs="?", help="of law: a file with rows")
    parser.add_argument("--latent_dims", type=int, default=16, help="of law: of its rows")
    parser.add_argument("--runs", type=int, nargs="+", help="numbers in the table, from 0 (default: all)")
    parser.add_argument("--data_dir", default=os.environ.get("VAE_DATA_DIR", "data"))
    args = parser.parse_args()
    if args.dataset == "law":
        return print_law(args.rows, args.latent_dims)
    name = f"folder:{args.dataset}" if os.path.exists(args.dataset) else args.dataset
    dataset = datasets.full_name(name)
    table = COLOUR if ":" in dataset else GREY
    print(f"{device.start()}; {args.dataset}\n")
    with tempfile.TemporaryDirectory() as cache:
        splits = [datasets.load(dataset, split, args.data_dir, cache_dir=cache) for split in ("train", "test")]
        print("| filters | dimensions | batch | images | held-out loss | error | KL | seconds |\n" + 8 * "|---" + "|")
        for number in args.runs or range(len(table)):
            filters, dims, batch, count = table[number]
            found, seconds = scored(splits, dataset, *table[number])
            words = f"| {filters} | {dims} | {batch} | {count},000 | {found['loss']:.2f} "
            print(words + f"| {found['reconstruction']:.2f} | {found['kl']:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
