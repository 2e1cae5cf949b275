"""The weight of KL and the learning rate during a run, as functions of the epochs done."""

import math

from toolkit.training.plan import PATIENCE, STALLED, ElboOptions, TrainConfig


def beta(config: ElboOptions, progress: float) -> float:
    """The weight of KL after `progress` epochs, which may be a fraction."""
    if progress >= config.beta_warmup:
        return config.beta
    return config.beta_start + (config.beta - config.beta_start) * progress / config.beta_warmup


def learning_rate(config: TrainConfig, progress: float, step: float, halvings: int = 0) -> float:
    """The learning rate after `progress` epochs, for a step that takes a fraction `step` of one."""
    done = min(1, progress / config.epochs)
    if config.lr_schedule == "linear":
        share = 1 - done
    elif config.lr_schedule == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * done))
    else:
        share = 0.5**halvings
    warmup = min(1, (progress + step) / config.lr_warmup) if config.lr_warmup else 1
    return config.lr * share * warmup


class Plateau:
    """Counts the epochs in which the loss on held-out images has not improved."""

    def __init__(self, lowest: float | None = None, stalled: int = 0, halvings: int = 0):
        self.lowest, self.stalled, self.halvings = lowest, stalled, halvings

    def watch(self, loss: float) -> None:
        """Record the loss of an epoch; PATIENCE epochs without progress halve the learning rate."""
        if self.lowest is None or loss < self.lowest * (1 - STALLED):
            self.lowest, self.stalled = loss, 0
        elif self.stalled < PATIENCE:
            self.stalled += 1
        else:
            self.stalled, self.halvings = 0, self.halvings + 1
