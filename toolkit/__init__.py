"""Variational autoencoders in MLX. README.md shows the commands; docs/contributing.md has a tour of the code."""

import os
import signal
import sys

__version__ = "2.0.0"


def interrupted(*_: object) -> None:
    """Handle Ctrl-C while a command starts; toolkit/shell/command.py takes over later."""
    os._exit(130)


if os.path.dirname(os.path.abspath(getattr(sys.modules["__main__"], "__file__", ""))) == os.path.dirname(__path__[0]):
    signal.signal(signal.SIGINT, interrupted)
