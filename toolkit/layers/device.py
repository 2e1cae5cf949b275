"""Choosing the device that computes, the form of the layers, and whether functions are compiled."""

import atexit
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from toolkit.errors import UserError
from toolkit.layers.machine import cores, on_cpu


def start(cpu: bool = False, compile: str = "auto", together: bool = False) -> str:
    """Choose the device, the form of the layers, and whether functions are compiled; returns the device in words.

    What can be done `together` meets the other ranks, if mlx.launch has started any.
    """
    try:
        import mlx.core as mx
    except ImportError as error:
        package = "mlx" if sys.platform == "darwin" else "mlx[cpu]"
        raise UserError(f'MLX does not start: {error} — pip install "{package}"') from None
    from toolkit.layers import blas, forms, ranks

    if cpu:
        mx.set_default_device(mx.cpu)
    ranks.join()
    if ranks.size > 1 and not together:
        raise UserError("this command runs in one process — call it without mlx.launch")
    others = f"{ranks.size} ranks, " if ranks.size > 1 else ""
    forms.choose()
    compiled = switch_compiling(compile)
    if on_cpu():
        details = [f"{cores()} core{'s' if cores() > 1 else ''}"]
        if sys.platform == "linux":
            details.append(blas.connect())
        if compile == "on":
            details.append(compiled)
        return f"{others}CPU, {', '.join(details)}"
    name = mx.device_info().get("device_name", "")
    return others + (f"GPU ({name})" if name else "GPU") + ("" if compile == "auto" else f", {compiled}")


def switch_compiling(choice: str) -> str:
    """Let mx.compile compile ("on"), or not ("off"); "auto" does on a GPU. Returns what was done, in words.

    On a GPU it pays at once. On a CPU MLX writes C++ and calls g++, which takes 20 seconds for a training step and
    makes the forms of cpu.py no faster (bench/RESULTS.md), so there it must be asked for. What it builds goes to a
    folder of this process alone: MLX's own is shared, and two processes may write one file in it.
    """
    import mlx.core as mx

    mx.disable_compile()
    if choice == "off" or (choice == "auto" and on_cpu()):
        return "not compiled"
    if not on_cpu():
        mx.enable_compile()
        return "compiled"
    if shutil.which("g++") is None:
        return "not compiled: there is no g++, but no speed is lost"
    folder = tempfile.mkdtemp(prefix="vae-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TMPDIR"] = folder
    mx.enable_compile()
    with suppress(RuntimeError):
        mx.eval(mx.compile(lambda x: mx.exp(x) + x)(mx.ones(3)))
    if any(Path(folder).rglob("*.so")):
        return "compiled"
    mx.disable_compile()
    return "not compiled: g++ does not work, but no speed is lost"
