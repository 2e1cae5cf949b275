"""The layers of all architectures, each under one name, in the form that suits the device.

Two files define the same functions, with the same arguments and results: plain.py, textbook MLX for a GPU, and cpu.py,
which is fast on a CPU. Models call `forms.down(x, conv, norm)` and get the form for MLX's default device; `choose`
overrides it. Between layers, the CPU form passes a batch as `Parts`; `heads` and `join` return arrays.
`forms.streams()` returns streams for independent work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from toolkit.layers import cpu, plain
from toolkit.machine.process import on_cpu

NAMES = (
    *("down", "up", "conv_transpose", "conv", "residual", "rectify", "dense", "heads", "flatten", "reshape"),
    *("append_labels", "join", "sigmoid", "squared_error", "cross_entropy", "level_error", "streams"),
)
current: Any = None  # the form in use; None selects by device


def choose(form: Any = None) -> None:
    """Use this form of the layers from now on; None restores the default, the form for the device."""
    global current
    current = form


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return getattr(current or (cpu if on_cpu() else plain), name)
    raise AttributeError(name)


class Call(NamedTuple):
    """One call of a layer."""

    name: str
    modules: list[Any]  # with the activation, if any
    shape: tuple[int, ...]  # of the result


@contextmanager
def using(form: Any) -> Iterator[None]:
    """Use this form of the layers in the block."""
    before = current
    choose(form)
    try:
        yield
    finally:
        choose(before)


@contextmanager
def recording() -> Iterator[list[Call]]:
    """Record the layers that the block calls, in order, for programs that run a model elsewhere."""
    calls: list[Call] = []

    class Recorder:
        join = staticmethod(plain.join)  # not a layer

        def __getattr__(self, name: str) -> Any:
            def layer(*arguments: Any, **more: Any) -> Any:
                result = getattr(plain, name)(*arguments, **more)
                first = result[0] if isinstance(result, tuple) else result
                calls.append(Call(name, [a for a in arguments if callable(a)], getattr(first, "shape", ())))
                return result

            return layer

    with using(Recorder()):
        yield calls
