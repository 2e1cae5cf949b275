"""The device, and that nothing is compiled on a CPU."""

import mlx.core as mx

from toolkit.machine import device


def test_nothing_is_compiled_on_a_cpu():
    """A compiled function runs its Python once and then its trace; here its Python runs at every call."""
    mx.enable_compile()
    assert device.start(cpu=True).startswith("CPU, ")
    calls = []

    @mx.compile
    def double(x):
        calls.append("Python")
        return 2 * x

    assert [double(mx.array(value)).item() for value in (1.0, 2.0)] == [2, 4]
    assert calls == ["Python", "Python"]
