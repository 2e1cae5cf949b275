"""Kinds of pictures, one file each; table.py lists them.

A file has the flags of its kind, `Options`, and at least one of `draw` (bytes (H, W, C)), `animate` (an Animation) and
`write_page` (HTML as text). These take a Subject, or the folders of runs if the kind shows runs, and the options.
"""

from toolkit.options import Kind, path

IMAGE = Kind(lambda text: int(text) if text.isdecimal() else path.read(text), (int, str))  # a number, or a file
