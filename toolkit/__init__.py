"""Variational autoencoders in MLX. README.md shows the commands; docs/contributing.md is a tour of the rooms.

Importing any part of it prepares the machine for MLX, which must happen before MLX itself is imported.
"""

from toolkit.layers import machine

__version__ = "2.0.0"

machine.prepare()
