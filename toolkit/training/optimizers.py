"""The optimizers of training: AdamW, or Muon for kernels and hidden layers and AdamW for the rest."""

from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from toolkit.layers import forms
from toolkit.training.plan import TrainConfig

MUON_FACTOR = 2  # Muon's learning rate divided by AdamW's
PRIOR_FACTOR = 0.3  # the rate of a learned prior, divided by that of the model
NUDGE = 1e-30  # added to gradients


class SideBySide:
    """Updates parameters on several streams at once, where the device has several.

    The momentum of a weight without gradient, such as that of an image's black border, halves every few steps and would
    end as a subnormal number, with which CPUs compute many times more slowly. A nudge too small to matter prevents it.
    """

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        self.work = [0] * len(forms.streams())  # parameters given to each stream
        return super().apply_gradients(gradients, parameters)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        least = self.work.index(min(self.work))
        self.work[least] += parameter.size
        with mx.stream(forms.streams()[least]):
            return super().apply_single(gradient + NUDGE, parameter, state)


class AdamW(SideBySide, optim.AdamW):
    pass


class DecoupledMuon(optim.Muon):
    """Muon (Jordan et al. 2024) with the decoupled weight decay of AdamW.

    Updates have the same size for any gradient, and batch norm makes the scale of a kernel irrelevant. Without decay
    kernels would therefore grow, which lowers their effective learning rate.
    """

    def __init__(self, learning_rate: float, weight_decay: float):
        super().__init__(learning_rate, weight_decay=0)  # MLX would add it to the gradient
        self.decay = weight_decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        return super().apply_single(gradient, parameter * (1 - self.learning_rate * self.decay), state)

    def _zeropower_via_newtonschulz5(self, x: mx.array, steps: int) -> mx.array:
        """The same as in MLX, with fewer products along the longer side.

        A step is X ← P X with P = a + b A + c A² and A = X Xᵀ. All A and P are polynomials of the first A, so they
        commute: A ← P A P does without X, which is multiplied once at the end, by all P together.
        """
        a, b, c = 3.4445, -4.7750, 2.0315
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        x = x / (mx.linalg.norm(x, keepdims=True) + 1e-7)
        one = mx.eye(len(x))
        square, all_steps = x @ x.T, one
        for i in range(steps):
            step = mx.addmm(a * one + b * square, square, square, alpha=c)
            all_steps = step @ all_steps if i else step
            square = step @ square @ step
        x = all_steps @ x
        return x.T if tall else x


class Muon(SideBySide, DecoupledMuon):
    pass


def make(config: TrainConfig, prior: bool = False) -> optim.Optimizer:
    """The optimizer of a run; `prior` if the prior has parameters. Combined with Muon, AdamW has no weight decay."""
    is_muon = config.optimizer == "muon"
    rest = with_factor(AdamW(config.lr, weight_decay=0 if is_muon else config.weight_decay), 1)
    groups, filters = [], []
    if is_muon:
        groups.append(with_factor(Muon(config.lr, config.weight_decay), MUON_FACTOR))
        filters.append(by_muon)
    if prior:
        groups.append(with_factor(AdamW(config.lr, weight_decay=0), PRIOR_FACTOR))
        filters.append(of_prior)
    return optim.MultiOptimizer([*groups, rest], filters) if groups else rest


def with_factor(optimizer: optim.Optimizer, factor: float) -> optim.Optimizer:
    """An optimizer whose learning rate is that of the run times a factor."""
    optimizer.factor = factor
    return optimizer


def by_muon(path: str, array: mx.array) -> bool:
    """Whether Muon trains this parameter: the kernel of a convolution, or the matrix of a hidden layer."""
    return array.ndim == 4 or (array.ndim == 2 and ".hidden" in path)


def of_prior(path: str, array: mx.array) -> bool:
    return path.startswith("prior.")


def set_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """Set the learning rate."""
    for group in optimizer.optimizers if isinstance(optimizer, optim.MultiOptimizer) else [optimizer]:
        group.learning_rate = rate * group.factor
