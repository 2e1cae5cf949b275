"""The layers of all architectures: one name each, in the form that suits the device.

Two files hold the same functions with the same arguments and results: plain.py, textbook MLX for a GPU, and cpu.py,
which is fast on a CPU. Models call `forms.down(x, conv, norm)` and get the form for MLX's default device; `choose` sets
another one. Between two layers of the CPU's form, features are a `Parts` of a batch; `flatten` and `reshape` make an
array of them. Beside the layers, `forms.streams()` are where independent work may go on side by side.
"""

from types import ModuleType
from typing import Any

from toolkit.layers import cpu, plain
from toolkit.machine.process import on_cpu

NAMES = (
    *("down", "up", "transposed", "conv", "residual", "rectified", "dense"),
    *("sigmoid", "squared_error", "cross_entropy", "level_error", "streams"),
)
chosen: ModuleType | None = None


def choose(form: ModuleType | None = None) -> None:
    """Use a form of the layers from now on; without one, that for the default device."""
    global chosen
    chosen = form


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return getattr(chosen or (cpu if on_cpu() else plain), name)
    raise AttributeError(name)
