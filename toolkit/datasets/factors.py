"""Known factors of the pictures in a folder, from its file `factors.csv`:

    file,hat,glasses
    a.png,blue,none
    cats/b.png,red,round

Every picture has one row. An empty field is a value like any other, shown as `none`.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from toolkit.errors import UserError
from toolkit.files.writing import reason
from toolkit.wording import as_text, counted

FILE = "factors.csv"
MOST = 1000  # factors


class Factors(NamedTuple):
    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]  # of each factor, sorted
    files: tuple[str, ...]
    numbers: np.ndarray  # (N, factors) which value each file has, int32

    def of(self, files: Sequence[str]) -> "Factors":
        """The rows of these files, in their order."""
        places = {name: i for i, name in enumerate(self.files)}
        return self._replace(files=tuple(files), numbers=self.numbers[[places[name] for name in files]])

    def column(self, name: str) -> np.ndarray:
        """The values of one factor, as numbers."""
        return self.numbers[:, self.names.index(name)]

    @property
    def words(self) -> str:
        """A description: `hat (3 values), glasses (2)`."""
        counts = [f"{name} ({len(values)})" for name, values in zip(self.names, self.values, strict=True)]
        return ", ".join([counts[0][:-1] + " values)", *counts[1:]])


def read(file: BinaryIO, place: Path, pictures: Sequence[str]) -> Factors:
    """Read and check the factors in an open file; every picture must have a row."""

    def wrong(what, remedy):
        return UserError(f"{place / FILE}{what} — {remedy}, or move the file away")

    try:
        reader = csv.reader(io.StringIO(file.read().decode("utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, line) for line in reader if line]
    except (OSError, ValueError, csv.Error) as error:
        raise wrong(f" cannot be read: {reason(error)}", "save it as UTF-8") from None
    (_, head), *rows = lines or [(1, [])]
    names = tuple(map(str.strip, head[1:]))
    is_head = head[:1] == ["file"] and 0 < len(names) <= MOST
    if not is_head or not all(names) or len(set(names)) < len(names):
        raise wrong(" does not begin with a line like file,hat,glasses", "add one with a name for each column")
    known, found = set(map(as_text, pictures)), {}
    for number, row in rows:
        file_name = row[0].strip()
        if len(row) != len(head):
            raise wrong(f", line {number}, has {counted(len(row), 'field')} instead of {len(head)}", "correct it")
        if file_name not in known:
            raise wrong(f", line {number}: there is no picture {file_name!r}", "remove the line")
        if file_name in found:
            raise wrong(f", line {number}: {file_name!r} has a row already", "remove one")
        found[file_name] = tuple(value.strip() or "none" for value in row[1:])
    if missing := known - found.keys():
        raise wrong(f" has no row for {counted(len(missing), 'picture')}, such as {min(missing)!r}", "add them")
    values = tuple(tuple(sorted(set(column))) for column in zip(*found.values(), strict=True))
    places = [{value: i for i, value in enumerate(of)} for of in values]
    numbers = [[place[value] for place, value in zip(places, row, strict=True)] for row in found.values()]
    return Factors(names, values, tuple(found), np.array(numbers, np.int32).reshape(-1, len(names)))
