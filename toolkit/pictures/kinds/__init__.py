"""Kinds of pictures, a file each: its Options, and what makes it of a Subject (of runs: of their folders) and options.

`draw` makes a picture, bytes (H, W, C); `animate` an Animation; `write_page` an HTML page. table.py lists the kinds.
"""

from toolkit.options import Kind, path

IMAGE = Kind(lambda text: int(text) if text.isdecimal() else path.read(text), (int, str))  # a number, or a file
