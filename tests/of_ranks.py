"""What test_ranks.py runs under mlx.launch: some steps of a training, and what came of them as JSON from rank 0.

mlx.launch -n 2 --backend ring --python python tests/of_ranks.py '{"arch": "conv"}'
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from toolkit import datasets
from toolkit.layers import device, forms, plain, ranks
from toolkit.training.plan import Plan, TrainConfig
from toolkit.training.trainer import Trainer
from vae import ModelConfig


def main(model, form="cpu", epochs=1, **training):
    device.start(cpu=True)
    if form == "plain":
        forms.choose(plain)
    train, test = (datasets.load("synthetic", split, None, count) for split, count in (("train", 101), ("test", 37)))
    config = TrainConfig(**{"batchsize": 16, "lr": 0.003, "epochs": epochs} | training)
    small = {"image_size": 8, "latent_dims": 2, "max_filters": 8}
    trainer = Trainer(Plan(config, ModelConfig(**small | model)), train, test)
    first = None
    for _ in range(epochs):
        for batch in trainer.batches():
            trainer.step(batch)
            if first is None:
                first = {name: np.array(a).tolist() for name, a in tree_flatten(trainer.model.parameters())}
        entry = trainer.end_epoch()
    if ranks.rank == 0:
        last = {name: float(mx.abs(a).sum()) for name, a in tree_flatten(trainer.model.parameters())}
        print(json.dumps({"first": first, "last": last, "entry": entry}), flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
