"""What changes while a run lasts: the weight of KL and the learning rate, from the epochs that are done."""

import math

from toolkit.training.plan import PATIENCE, STALLED, ElboOptions, TrainConfig


def beta(config: ElboOptions, progress: float) -> float:
    """The weight of KL after so many epochs."""
    if progress >= config.beta_warmup:
        return config.beta
    return config.beta_start + (config.beta - config.beta_start) * progress / config.beta_warmup


def learning_rate(config: TrainConfig, progress: float, step: float, halvings: int = 0) -> float:
    """The learning rate after so many epochs, which have halved it `halvings` times, for a step of so much of one."""
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
        """Take note of an epoch's loss; too many that are no better halve the learning rate once more."""
        if self.lowest is None or loss < self.lowest * (1 - STALLED):
            self.lowest, self.stalled = loss, 0
        elif self.stalled < PATIENCE:
            self.stalled += 1
        else:
            self.stalled, self.halvings = 0, self.halvings + 1
