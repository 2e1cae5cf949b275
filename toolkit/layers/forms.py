"""The layers of all architectures: one name each, in the form that suits the device.

Two files hold the same functions with the same arguments and results: plain.py, textbook MLX for a GPU, and cpu.py,
which is fast on a CPU. `choose` takes one of them when the device is chosen; models call `forms.down(x, conv, norm)`.
Between two layers of the CPU's form, features are a `Parts` of a batch; `flatten` and `reshape` make an array of them.
Beside the layers, `forms.streams()` are where independent work may go on side by side.
"""

from types import ModuleType
from typing import Any

from toolkit.layers import blas, cpu, plain
from toolkit.layers.machine import keep_memory, on_cpu

NAMES = (
    "down",
    "up",
    "transposed",
    "conv",
    "residual",
    "rectified",
    "dense",
    "sigmoid",
    "squared_error",
    "cross_entropy",
    "level_error",
    "streams",
)
in_use: ModuleType


def choose(form: ModuleType | None = None) -> None:
    """Use a form of the layers from now on, by default the one for MLX's default device.

    On a CPU this prepares the machine, too; on a GPU nothing of that is loaded.
    """
    global in_use
    in_use = form or (cpu if on_cpu() else plain)
    if on_cpu():
        keep_memory()
        blas.connect()


choose()


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return getattr(in_use, name)
    raise AttributeError(name)
