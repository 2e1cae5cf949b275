"""Choose the device, and prepare the machine for it."""

import sys

from toolkit.errors import UserError
from toolkit.machine.process import cores, keep_memory, on_cpu


def start(cpu: bool = False, together: bool = False) -> str:
    """Choose the device and prepare the machine for it; returns a description of the device.

    A command that can run `together` joins the other ranks, if mlx.launch started any. Functions are compiled only on a
    GPU. On a CPU, MLX generates C++ and calls g++, which takes 20 seconds for a training step and does not make cpu.py
    faster (bench/RESULTS.md).
    """
    try:
        import mlx.core as mx
    except ImportError as error:
        package = "mlx" if sys.platform == "darwin" else "mlx[cpu]"
        raise UserError(f'MLX does not start: {error} — pip install "{package}"') from None
    from toolkit.machine import blas, ranks

    if cpu:
        mx.set_default_device(mx.cpu)
    ranks.join()
    if ranks.size > 1 and not together:
        raise UserError("this command runs in one process — start it without mlx.launch")
    others = f"{ranks.size} ranks, " if ranks.size > 1 else ""
    if on_cpu():
        mx.disable_compile()
        keep_memory()
        details = [f"{cores()} core{'s' if cores() > 1 else ''}"]
        if sys.platform == "linux":
            details.append(blas.connect())
        return f"{others}CPU, {', '.join(details)}"
    mx.enable_compile()
    name = mx.device_info().get("device_name", "")
    return others + (f"GPU ({name})" if name else "GPU")
