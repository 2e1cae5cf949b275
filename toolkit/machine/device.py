"""Choose the device, and prepare the machine for it."""

import os
import sys

from toolkit.errors import UserError
from toolkit.machine.process import cores, keep_memory, on_cpu

CACHE = 2**30  # bytes of freed GPU memory that MLX keeps for reuse


def start(cpu: bool = False, together: bool = False) -> str:
    """Choose the device and prepare the machine for it; returns a description of the device.

    A command that can run `together` joins the other ranks, if mlx.launch started any. Products and convolutions are
    computed in full float32: without MLX_ENABLE_TF32=0, which MLX reads before its first product, recent GPUs use TF32,
    with errors of 1e-3. Functions are compiled only on a GPU. On a CPU, MLX generates C++ and calls g++, which takes 20
    seconds for a training step and does not make cpu.py faster (bench/RESULTS.md).
    """
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
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
    mx.set_cache_limit(CACHE)
    name = mx.device_info().get("device_name", "")
    return others + (f"GPU ({name})" if name else "GPU") + ("" if has_full_precision() else ", TF32")


def has_full_precision() -> bool:
    """Whether products and convolutions are in full float32. TF32 has 10 bits of mantissa and rounds 1 + 2⁻¹² to 1."""
    import mlx.core as mx

    x, one = mx.full((256, 256), 1 + 2**-12), mx.eye(256)
    pixels, kernel = x.reshape(16, 16, 4, 64), one[:64, :64].reshape(64, 1, 1, 64)
    return mx.array_equal(x @ one, x).item() and mx.array_equal(mx.conv2d(pixels, kernel), pixels).item()
