"""What is said of the device, and that nothing is compiled on a CPU."""

import mlx.core as mx

from toolkit.machine import device


def test_nothing_is_compiled_on_a_cpu(monkeypatch):
    called = []
    monkeypatch.setattr(mx, "disable_compile", lambda: called.append("off"))
    monkeypatch.setattr(mx, "enable_compile", lambda: called.append("on"))
    assert device.start(cpu=True).startswith("CPU, ") and called == ["off"]
