"""The layers of all architectures: one name each, in the form that suits the device.

Two files hold the same functions with the same arguments and results: plain.py, textbook MLX for a GPU, and cpu.py,
which is fast on a CPU. Models call `forms.down(x, conv, norm)` and get the form for MLX's default device; `choose` sets
another one. Between two layers of the CPU's form, features are a `Parts` of a batch; `flatten` and `reshape` make an
array of them. Beside the layers, `forms.streams()` are where independent work may go on side by side.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from toolkit.layers import cpu, plain
from toolkit.machine.process import on_cpu

NAMES = (
    *("down", "up", "transposed", "conv", "residual", "rectified", "dense", "linear", "heads"),
    *("flatten", "reshape", "labelled", "sigmoid", "squared_error", "cross_entropy", "level_error", "streams"),
)
chosen: Any = None


def choose(form: Any = None) -> None:
    """Use a form of the layers from now on; without one, that for the default device."""
    global chosen
    chosen = form


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return getattr(chosen or (cpu if on_cpu() else plain), name)
    raise AttributeError(name)


class Call(NamedTuple):
    """A layer that was called."""

    name: str
    given: list[Any]  # its modules, and its activation
    shape: tuple[int, ...]  # of what it returned


@contextmanager
def recording() -> Iterator[list[Call]]:
    """A block in which layers are noted in the order of their calls, for programs that run a model elsewhere."""
    calls: list[Call] = []

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            def layer(*arguments: Any, **more: Any) -> Any:
                result = getattr(plain, name)(*arguments, **more)
                first = result[0] if isinstance(result, tuple) else result
                calls.append(Call(name, [a for a in arguments if callable(a)], getattr(first, "shape", ())))
                return result

            return layer

    before = chosen
    choose(Recorder())
    try:
        yield calls
    finally:
        choose(before)
