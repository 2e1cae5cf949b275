"""The weight of KL and the learning rate during a run."""

import math

from toolkit.training.plan import PATIENCE, STALLED, ElboOptions, TrainConfig

LONGEST_WARMUP = 1 / 5  # of a run


def beta(config: ElboOptions, progress: float) -> float:
    """The weight of KL after `progress` epochs, which may be a fraction."""
    if progress >= config.beta_warmup:
        return config.beta
    return config.beta_start + (config.beta - config.beta_start) * progress / config.beta_warmup


def learning_rate(config: TrainConfig, step: int, horizon: int, halvings: int = 0) -> float:
    """The learning rate of a step, counted from 0, in a run of `horizon` steps."""
    done = min(1, step / horizon)
    if config.lr_schedule == "linear":
        share = 1 - done
    elif config.lr_schedule == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * done))
    else:
        share = 0.5**halvings
    return config.lr * share * min(1, (step + 1) / max(1, warmup(config, horizon)))


def warmup(config: TrainConfig, horizon: int) -> int:
    """Steps in which the learning rate rises; not longer than a part of a run at whose end it falls to 0."""
    most = LONGEST_WARMUP * horizon if config.lr_schedule in ("linear", "cosine") else config.lr_warmup
    return min(config.lr_warmup, round(most))


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
