"""Files of latent vectors, written by encode.py and decoded by generate.py; you can do arithmetic in between.

`.npz` holds the arrays `name`, `class`, `mean` and `log_var`; `.csv` one line per image with the columns `name`,
`class`, `mean_0` …, `log_var_0` …. Only the means are required: rows without a name get their number, and computed
vectors have no variance. Nothing is unpickled.
"""

import array
import csv
import io
import os
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.errors import UserError
from toolkit.files.reading import check_directory, opened
from toolkit.files.writing import reason, write
from toolkit.wording import csv_text

ENDINGS = (".npz", ".csv")
LARGEST = 2**27  # bytes of a file, packed or unpacked; 160,000 images with 64 dims have 83 MB
LARGEST_TABLE = 2**25  # bytes of a .csv file, which is slow to read
LONGEST_LINE = 2**20  # bytes, of a line of a .csv file or of the directory of an archive
MOST_ROWS = 2**20


class Codes(NamedTuple):
    """Latent vectors of some images."""

    names: list[str]
    mean: np.ndarray  # (N, D) float32
    log_var: np.ndarray | None = None  # (N, D)
    classes: list[str] | None = None  # the class name of each

    def chosen(self, names: Sequence[str]) -> "Codes":
        """The rows with these names, in the order of the names."""
        places: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            places.setdefault(name, []).append(i)
        if unknown := [name for name in names if name not in places]:
            known = ", ".join(self.names[:5]) + (", …" if self.names[5:] else "")
            raise UserError(f"there is no row named {unknown[0]} — the names are {known}")
        rows = [i for name in names for i in places[name]]
        log_var = None if self.log_var is None else self.log_var[rows]
        classes = None if self.classes is None else [self.classes[i] for i in rows]
        return Codes([self.names[i] for i in rows], self.mean[rows], log_var, classes)


def save(path: str, codes: Codes) -> None:
    """Write latent vectors as `.npz` or `.csv`; standard output, pipes and devices get `.csv`."""
    write(path, packed(codes) if Path(path).suffix.lower() == ".npz" else table(codes).encode())


def packed(codes: Codes) -> bytes:
    arrays = {"name": np.array(codes.names), "mean": codes.mean.astype(np.float32)}
    if codes.log_var is not None:
        arrays["log_var"] = codes.log_var.astype(np.float32)
    if codes.classes is not None:
        arrays["class"] = np.array(codes.classes)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def table(codes: Codes) -> str:
    """The text of a `.csv` file; nine digits represent every float32 exactly."""
    parts = {"mean": codes.mean, "log_var": codes.log_var}
    parts = {name: array.astype(np.float32) for name, array in parts.items() if array is not None}
    known = [] if codes.classes is None else ["class"]
    numbers = np.concatenate(list(parts.values()), axis=1)
    head = ["name", *known, *(f"{name}_{i}" for name, array in parts.items() for i in range(array.shape[1]))]
    rows = (
        [name, *([codes.classes[i]] if known else []), *(f"{value:.9g}" for value in row)]
        for i, (name, row) in enumerate(zip(codes.names, numbers, strict=True))
    )
    return csv_text(head, rows)


def load(path: Path | str, dims: int) -> Codes:
    """Read latent vectors of `dims` dimensions; the format is recognised by content."""

    def check_dims(has):
        if has != dims:
            raise UserError(f"{path} has vectors of {has} dims, the model has {dims} — use the model that encoded them")

    try:
        with opened(path, LARGEST) as file, np.errstate(over="ignore"), warnings.catch_warnings(action="error"):
            codes = unpacked(file) if file.peek(2).startswith(b"PK") else parsed(file, check_dims)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)} — check the name") from None
    except Exception as error:  # NumPy and zipfile raise nearly anything on damaged files
        why = textwrap.shorten(reason(error), 100, placeholder=" …")
        raise UserError(f"{path} contains no latent vectors: {why} — create one with encode.py") from None
    if not len(codes.mean):
        raise UserError(f"{path} contains no rows — encode at least one image")
    check_dims(codes.mean.shape[1])
    if not np.isfinite(codes.mean).all():
        raise UserError(f"{path} contains infinite values or NaN — compute them again")
    return codes


def unpacked(file):
    """The rows of an `.npz` file."""
    check_directory(file, LONGEST_LINE)
    with np.load(file, allow_pickle=False) as archive:
        if sum(entry.file_size for entry in archive.zip.infolist()) > LARGEST:
            raise ValueError(f"it claims more than {LARGEST / 2**20:.0f} MiB")
        arrays = {name: archive[name] for name in ("name", "class", "mean", "log_var") if name in archive}
    if "mean" not in arrays:
        raise ValueError("it has no array 'mean'")
    for name, values in arrays.items():
        if name in ("name", "class"):
            arrays[name] = np.atleast_1d(values)
        elif values.dtype.kind not in "fiu" or values.ndim not in (1, 2):
            raise ValueError(f"its array {name!r} is not a table of numbers")
        else:
            arrays[name] = np.atleast_2d(values).astype(np.float32, copy=False)
        if len(arrays[name]) > MOST_ROWS:
            raise ValueError(f"it has more than {MOST_ROWS:,} rows")
    words = {name: list(map(str, arrays.pop(name))) for name in ("name", "class") if name in arrays}
    return codes_of(words, arrays)


def parsed(file, check_dims):
    """The rows of a `.csv` file, parsed one by one: as text they would take twenty times the memory."""
    if os.fstat(file.fileno()).st_size > LARGEST_TABLE:
        raise ValueError(f"it is larger than {LARGEST_TABLE / 2**20:.0f} MiB; .npz may have {LARGEST / 2**20:.0f}")
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        rows = csv.reader(iter(lambda: text.readline(LONGEST_LINE), ""))
        head = next(rows, [])
        columns = {name: i for i, name in enumerate(head)}
        parts = {name: columns_of(columns, name) for name in ("mean", "log_var")}
        if not parts["mean"]:
            raise ValueError("it has no columns mean_0, mean_1, …")
        check_dims(len(parts["mean"]))  # before any row is read
        values = {name: array.array("f") for name, places in parts.items() if places}
        words = {name: [] for name in ("name", "class") if name in columns}
        for number, row in enumerate(rows, 1):
            if number > MOST_ROWS:
                raise ValueError(f"it has more than {MOST_ROWS:,} rows")
            if not row:
                continue
            if len(row) != len(head):
                raise ValueError(f"row {number} has {len(row)} columns instead of {len(head)}")
            for name, numbers in values.items():
                try:
                    numbers.extend([float(row[i]) for i in parts[name]])
                except ValueError as error:
                    raise ValueError(f"row {number}: {error}") from None
            for name, column in words.items():
                column.append(row[columns[name]])
    return codes_of(words, {name: np.array(values[name]).reshape(-1, len(parts[name])) for name in values})


def codes_of(words, arrays):
    """Latent vectors from columns of text and arrays of numbers, if they have the same number of rows."""
    mean, log_var = arrays["mean"], arrays.get("log_var")
    if log_var is not None and log_var.shape != mean.shape:
        raise ValueError("'mean' and 'log_var' differ in shape")
    for name, column in words.items():
        if len(column) != len(mean):
            raise ValueError(f"it has {len(mean)} rows in 'mean' and {len(column)} in {name!r}")
    return Codes(words.get("name") or [str(i) for i in range(len(mean))], mean, log_var, words.get("class"))


def columns_of(columns, name):
    """The positions of the columns `name_0`, `name_1` …"""
    count = sum(column.removeprefix(f"{name}_").isdecimal() for column in columns if column.startswith(f"{name}_"))
    try:
        return [columns[f"{name}_{i}"] for i in range(count)]
    except KeyError as error:
        raise ValueError(f"the column {error.args[0]} is missing") from None
