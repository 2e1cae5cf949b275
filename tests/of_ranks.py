"""What test_ranks.py runs under mlx.launch: one epoch of several trainings; rank 0 writes what came of them as JSON.

mlx.launch -n 2 --backend ring --python python tests/of_ranks.py out.json
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from mlx.utils import tree_flatten

from toolkit import datasets
from toolkit.layers import cpu, forms, plain
from toolkit.machine import device, ranks
from toolkit.model import inference
from toolkit.training.plan import make_plan
from toolkit.training.trainer import Trainer

CASES = {
    "conv": ({}, {}, "cpu"),
    "textbook": ({"likelihood": "bce", "binarize": "dynamic"}, {"conditional": True, "keep_best": True}, "plain"),
    "transpose": ({"arch": "transpose", "likelihood": "normal"}, {"free_bits": 0.05}, "plain"),
    "mlp": ({"arch": "mlp", "prior": "flow", "flow_units": 8}, {"conditional": True}, "cpu"),
    "bounded": ({"arch": "bounded"}, {"conditional": True}, "plain"),
    "resnet": ({"arch": "resnet", "likelihood": "logistic"}, {"objective": "iwae", "iw_samples": 10}, "cpu"),
}


def epoch(model, training, form):
    """Weights after the first step, and the log entry of the epoch; batches of 16, 16 and 11."""
    forms.choose({"plain": plain, "cpu": cpu}[form])
    train, test = (datasets.load("synthetic", split, None, count) for split, count in (("train", 43), ("test", 10)))
    options = {"batchsize": 16, "lr": 0.003, "epochs": 1} | training
    small = {"image_size": 8, "latent_dims": 2, "max_filters": 8}
    trainer = Trainer(make_plan(small | model | options), train, test)
    trainer.synchronize()
    weights = None
    for batch in trainer.batches():
        trainer.step(batch)
        weights = weights or {name: np.array(a).tolist() for name, a in tree_flatten(trainer.model.parameters())}
    entry = trainer.end_epoch()
    means, _ = inference.encode(trainer.model, train)
    bound = inference.importance_bound(trainer.model, test, 5, 0, chosen=ranks.share(np.arange(10)))
    return {"weights": weights, "entry": entry, "codes": means.tolist(), "bound": ranks.gather(bound, 10).tolist()}


def main(path):
    device.start(cpu=True, together=True)
    found = {name: epoch(*case) for name, case in CASES.items()}
    if ranks.rank == 0:
        Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
