"""A stand-in for a GPU, for tests on a CPU: it fails where Metal would.

Within `gpu()` the default device is a GPU in name, so the toolkit takes the paths for one, with the textbook form of
the layers. MLX itself computes on the CPU, but refuses what Metal cannot do:

- float64, however it comes about;
- operations without a GPU kernel, such as those of mx.linalg, unless they are called for a CPU stream;
- values that are read inside a compiled function. Functions are traced as mx.compile does it, and then called as they
  are, because building their traces for a CPU would take g++ 20 seconds each.
"""

from collections import Counter
from contextlib import contextmanager

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten, tree_map

from toolkit.layers import forms

# What MLX 0.32 computes with LAPACK, on a CPU only.
LAPACK = (
    *("cholesky", "cholesky_inv", "det", "eig", "eigh", "eigvals", "eigvalsh", "inv", "lu", "lu_factor", "pinv", "qr"),
    *("slogdet", "solve", "solve_triangular", "svd", "tri_inv"),
)


class Unsupported(AssertionError):
    """What Metal would refuse."""


class NoFloat64:
    """Takes the place of mx.float64; every function of MLX refuses it, naming this class."""


@contextmanager
def gpu():
    """Stand in for a GPU; yields a Counter of the traces of each compiled function."""
    traces, on_cpu = Counter(), []
    compile, enable, stream, load = mx.compile, mx.enable_compile, mx.stream, mx.load
    cpu_stream = mx.default_stream(mx.cpu)

    @contextmanager
    def entered(where):
        # forms.streams() returns the default stream, that of the GPU.
        is_cpu = where is not cpu_stream
        on_cpu.append(is_cpu)
        try:
            with stream(where):
                yield
        finally:
            on_cpu.pop()

    def guarded(name, function):
        def call(*arguments, stream=None, **more):
            if stream is None and not any(on_cpu[-1:]):
                raise Unsupported(f"{name} has no GPU kernel: pass stream=mx.cpu")
            return function(*arguments, stream=stream or mx.cpu, **more)

        return call

    def traced(function, inputs=None, outputs=None, shapeless=False):
        def counted(*arguments, **more):
            traces[traced_name(function), id(call)] += 1
            return function(*arguments, **more)

        through_mlx = compile(counted, inputs, outputs, shapeless)

        def call(*arguments, **more):
            states = [inputs or [], outputs or []]
            before = [tree_map(lambda array: array, state) for state in states]
            enable()
            try:
                through_mlx(*arguments, **more)
            finally:
                mx.disable_compile()
                for state, earlier in zip(states, before, strict=True):
                    restore(state, earlier)
            results = function(*arguments, **more)
            check([arguments, more, results, states])
            return results

        return call

    def loaded(*arguments, **more):
        arrays = load(*arguments, **more)
        check(arrays)
        return arrays

    with pytest.MonkeyPatch.context() as patch:
        default = [mx.Device(mx.gpu, 0)]
        patch.setattr(mx, "default_device", lambda: default[-1])
        patch.setattr(mx, "set_default_device", default.append)
        patch.setattr(mx, "default_stream", lambda _: cpu_stream)
        patch.setattr(mx, "set_cache_limit", lambda _: None)
        patch.setattr(mx, "enable_compile", lambda: None)  # only for traces
        patch.setattr(mx, "stream", entered)
        patch.setattr(mx, "compile", traced)
        patch.setattr(mx, "float64", NoFloat64())
        patch.setattr(mx, "load", loaded)
        for name in LAPACK:
            patch.setattr(mx.linalg, name, guarded(f"mx.linalg.{name}", getattr(mx.linalg, name)))
        normal = guarded("mx.random.multivariate_normal", mx.random.multivariate_normal)
        patch.setattr(mx.random, "multivariate_normal", normal)
        forms.choose()
        yield traces


def traced_name(function):
    """A readable name: `partial(evaluate, model)` of vae.py is called after the model's method."""
    return getattr(function, "__qualname__", None) or str(getattr(function, "func", function))


def restore(state, earlier):
    """Put the arrays of an earlier tree back into a tree of lists and dictionaries."""
    for key in earlier if isinstance(earlier, dict) else range(len(earlier)):
        if isinstance(earlier[key], (dict, list)):
            restore(state[key], earlier[key])
        else:
            state[key] = earlier[key]


def check(tree):
    """Raise Unsupported if an array of a tree is in float64."""
    for name, leaf in tree_flatten(tree):
        if isinstance(leaf, mx.array) and str(leaf.dtype).endswith("float64"):
            raise Unsupported(f"an array in float64: {name}")
