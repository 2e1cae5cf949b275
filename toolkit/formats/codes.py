"""Files of latent vectors: what encode.py writes and generate.py decodes, so that people can calculate in between.

`.npz` holds the arrays `name`, `class`, `mean` and `log_var`; `.csv` a line for each image with the columns `name`,
`class`, `mean_0` …, `log_var_0` …. Only the means must be there: rows without a name are called by their number, and
what was calculated has no variance. Nothing is unpickled.
"""

import array
import csv
import io
import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.errors import UserError
from toolkit.files.reading import check_directory, opened
from toolkit.files.writing import reason, write
from toolkit.wording import csv_text

ENDINGS = (".npz", ".csv")
LARGEST = 2**27  # bytes of a file, packed or unpacked; 160,000 images with 64 dims have 83 MB
LARGEST_TABLE = 2**25  # bytes of a .csv file, which takes long to read
LONGEST_LINE = 2**20  # bytes, of a line of a .csv file or of the directory of an archive
MOST_ROWS = 2**20


class Codes(NamedTuple):
    """Latent vectors of some images."""

    names: list[str]
    mean: np.ndarray  # (N, D) float32
    log_var: np.ndarray | None = None  # (N, D)
    classes: list[str] | None = None  # the name of each one's class

    def chosen(self, names: Sequence[str]) -> "Codes":
        """The rows of some names, in their order."""
        rows: list[int] = []
        for name in names:
            found = [i for i, known in enumerate(self.names) if known == name]
            if not found:
                known = ", ".join(self.names[:5]) + (", …" if self.names[5:] else "")
                raise UserError(f"there is no row named {name} — the names are {known}")
            rows += found
        log_var = None if self.log_var is None else self.log_var[rows]
        classes = None if self.classes is None else [self.classes[i] for i in rows]
        return Codes([self.names[i] for i in rows], self.mean[rows], log_var, classes)


def save(path: str, codes: Codes) -> None:
    """Write latent vectors as `.npz`, or as `.csv`, which standard output, pipes and devices get too."""
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
    """The text of a `.csv` file; nine digits bring every float32 back."""
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
    """Read latent vectors for a model of so many dimensions; what the file holds decides its format."""
    try:
        with opened(path, LARGEST) as file:
            codes = unpacked(file) if file.peek(2).startswith(b"PK") else parsed(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)} — check the name") from None
    except Exception as error:  # NumPy and zipfile raise nearly anything on damaged files
        why = textwrap.shorten(reason(error), 100, placeholder=" …")
        raise UserError(f"{path} holds no latent vectors: {why} — encode.py writes such files") from None
    if not len(codes.mean):
        raise UserError(f"{path} holds no rows — encode some images into it")
    if codes.mean.shape[1] != dims:
        has = codes.mean.shape[1]
        raise UserError(f"{path} holds vectors of {has} dims, the model has {dims} — take the model that encoded them")
    if not np.isfinite(codes.mean).all():
        raise UserError(f"{path} holds values that are infinite or no numbers — calculate them again")
    return codes


def unpacked(file):
    check_directory(file, LONGEST_LINE)
    with np.load(file, allow_pickle=False) as archive:
        if sum(entry.file_size for entry in archive.zip.infolist()) > LARGEST:
            raise ValueError(f"it claims more than {LARGEST / 2**20:.0f} MiB")
        arrays = {name: archive[name] for name in ("name", "class", "mean", "log_var") if name in archive}
    if "mean" not in arrays:
        raise ValueError("it has no array 'mean'")
    for name in arrays.keys() & {"mean", "log_var"}:
        if arrays[name].dtype.kind not in "fiu":
            raise ValueError(f"its array {name!r} does not hold numbers")
        arrays[name] = np.atleast_2d(arrays[name]).astype(np.float32, copy=False)
    mean, log_var = arrays["mean"], arrays.get("log_var")
    if mean.ndim != 2 or not mean.shape[1]:
        raise ValueError("its array 'mean' is not a table of rows")
    if log_var is not None and log_var.shape != mean.shape:
        raise ValueError("its arrays 'mean' and 'log_var' differ in shape")
    check_rows(len(mean))
    words = {name: list(map(str, np.atleast_1d(arrays[name]))) for name in arrays.keys() & {"name", "class"}}
    for name, column in words.items():
        if len(column) != len(mean):
            raise ValueError(f"it has {len(mean)} rows in 'mean' and {len(column)} in {name!r}")
    return Codes(words.get("name") or numbers(len(mean)), mean, log_var, words.get("class"))


def numbers(count):
    """Names of rows that have none."""
    return [str(i) for i in range(count)]


def parsed(file):
    """The rows of a `.csv` file, one after the other: as words they would take twenty times their room."""
    if os.fstat(file.fileno()).st_size > LARGEST_TABLE:
        raise ValueError(f"it is larger than {LARGEST_TABLE / 2**20:.0f} MiB; .npz may have {LARGEST / 2**20:.0f}")
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        rows = csv.reader(iter(lambda: text.readline(LONGEST_LINE), ""))
        head = next(rows, [])
        columns = {name: i for i, name in enumerate(head)}
        parts = {name: columns_of(columns, name) for name in ("mean", "log_var")}
        if not parts["mean"]:
            raise ValueError("it has no columns mean_0, mean_1, …")
        if parts["log_var"] and len(parts["log_var"]) != len(parts["mean"]):
            raise ValueError(f"it has {len(parts['mean'])} columns of mean and {len(parts['log_var'])} of log_var")
        values = {name: array.array("f") for name in parts}
        words = {name: [] for name in ("name", "class") if name in columns}
        for number, row in enumerate(filter(None, rows), 1):
            if len(row) != len(head):
                raise ValueError(f"row {number} has {len(row)} columns instead of {len(head)}")
            check_rows(number)
            for name, wanted in parts.items():
                values[name].extend(numbers_of(row, head, wanted, number))
            for name, found in words.items():
                found.append(row[columns[name]])
    mean, log_var = (
        np.array(values[name], np.float32).reshape(-1, len(wanted)) if wanted else None
        for name, wanted in parts.items()
    )
    return Codes(words.get("name") or numbers(len(mean)), mean, log_var, words.get("class"))


def check_rows(count):
    if count > MOST_ROWS:
        raise ValueError(f"it has more than {MOST_ROWS:,} rows")


def columns_of(columns, name):
    """Where the columns `name_0`, `name_1` … are."""
    count = sum(column.removeprefix(f"{name}_").isdecimal() for column in columns if column.startswith(f"{name}_"))
    for i in range(count):
        if f"{name}_{i}" not in columns:
            raise ValueError(f"the column {name}_{i} is missing")
    return [columns[f"{name}_{i}"] for i in range(count)]


def numbers_of(row, head, wanted, number) -> Iterator[float]:
    """The numbers in some columns of a row."""
    for column in wanted:
        try:
            yield float(row[column])
        except ValueError:
            raise ValueError(f"{head[column]} of row {number} is {row[column][:20]!r}, no number") from None
