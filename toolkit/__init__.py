"""Variational autoencoders in MLX. README.md shows the commands; docs/contributing.md is a tour of the rooms."""

__version__ = "2.0.0"
