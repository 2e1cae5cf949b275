"""The layers of all architectures: one name each, in the form that suits the device.

Two files hold the same functions with the same arguments and results: plain.py, textbook MLX for a GPU, and cpu.py,
which is fast on a CPU. `choose` takes one of them when the device is chosen; models call `forms.down(x, conv, norm)`.
Between two layers of the CPU's form, features are a `Parts` of a batch; `flatten` and `reshape` make an array of them.
"""

from types import ModuleType
from typing import Any

from toolkit.layers import cpu, plain
from toolkit.layers.machine import on_cpu

NAMES = ("down", "up", "transposed", "dense", "sigmoid", "squared_error", "cross_entropy")
in_use = cpu if on_cpu() else plain


def choose(form: ModuleType | None = None) -> None:
    """Use a form of the layers from now on, by default the one for MLX's default device."""
    global in_use
    in_use = form or (cpu if on_cpu() else plain)


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return getattr(in_use, name)
    raise AttributeError(name)
