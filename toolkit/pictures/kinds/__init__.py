"""Kinds of pictures, one file each; table.py lists them.

A file defines the flags of its kind, `Options`, and at least one of `draw` (bytes (H, W, C)), `animate` (an Animation)
and `write_page` (HTML as text). These take a Subject (or folders of runs, if the kind shows runs) and the options.
"""

from dataclasses import dataclass

from toolkit.options import Kind, number, option, path

# A number, or a file
IMAGE = Kind(
    lambda text: int(text) if text.removeprefix("-").isdecimal() else path.read(text),
    (int, str),
    "N|FILE",
    is_file=True,
)


@dataclass(frozen=True)
class ScaleOptions:
    scale: int | None = option(
        None,
        "show each pixel as N×N; a sheet at 1 has neither margin nor caption",
        "output",
        kind=number(int, 1, 65),
        default_text="large enough to see",
    )
