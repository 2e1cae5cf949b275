"""The optimizers of training."""

import mlx.core as mx
import mlx.optimizers as optim

from toolkit.training.plan import TrainConfig

MUON_FACTOR = 2  # Muon's learning rate, in that of AdamW


def make(config: TrainConfig) -> optim.Optimizer:
    """The optimizer of a run: AdamW, or Muon for the kernels of convolutions and AdamW for the rest."""
    adamw = optim.AdamW(config.lr, weight_decay=config.weight_decay)
    if config.optimizer == "adamw":
        return adamw
    return optim.MultiOptimizer([optim.Muon(MUON_FACTOR * config.lr, weight_decay=0), adamw], [is_kernel])


def is_kernel(path: str, array: mx.array) -> bool:
    return array.ndim == 4


def set_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """Use a learning rate from now on."""
    if isinstance(optimizer, optim.MultiOptimizer):
        muon, adamw = optimizer.optimizers
        muon.learning_rate, adamw.learning_rate = MUON_FACTOR * rate, rate
    else:
        optimizer.learning_rate = rate
