"""The optimizers of training: AdamW, or Muon for kernels and hidden layers and AdamW for the rest."""

import mlx.core as mx
import mlx.optimizers as optim

from toolkit.training.plan import TrainConfig

MUON_FACTOR = 2  # Muon's learning rate, in that of AdamW


class Muon(optim.Muon):
    """Muon (Jordan et al. 2024) with the decoupled weight decay of AdamW.

    An update has the same size whatever the gradient's, and batch norm makes the size of a kernel meaningless. So
    without decay kernels would grow, and their learning rate would in effect go down.
    """

    def __init__(self, learning_rate: float, weight_decay: float):
        super().__init__(learning_rate, weight_decay=0)  # that of MLX's own is added to the gradient
        self.decay = weight_decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        return super().apply_single(gradient, parameter * (1 - self.learning_rate * self.decay), state)


def make(config: TrainConfig) -> optim.Optimizer:
    """The optimizer of a run. Beside Muon, AdamW has no weight decay."""
    if config.optimizer == "adamw":
        return optim.AdamW(config.lr, weight_decay=config.weight_decay)
    muon, adamw = Muon(MUON_FACTOR * config.lr, config.weight_decay), optim.AdamW(config.lr, weight_decay=0)
    return optim.MultiOptimizer([muon, adamw], [by_muon])


def by_muon(path: str, array: mx.array) -> bool:
    """Whether Muon trains this part of a model: a kernel of a convolution, or the matrix of a hidden layer."""
    return array.ndim == 4 or (array.ndim == 2 and ".hidden" in path)


def set_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """Use a learning rate from now on."""
    if isinstance(optimizer, optim.MultiOptimizer):
        muon, adamw = optimizer.optimizers
        muon.learning_rate, adamw.learning_rate = MUON_FACTOR * rate, rate
    else:
        optimizer.learning_rate = rate
