"""Files of latent vectors: what encode.py writes and generate.py decodes, so that people can calculate in between.

`.npz` holds the arrays `name`, `class`, `mean` and `log_var`; `.csv` a line for each image with the columns `name`,
`class`, `mean_0` …, `log_var_0` …. Only the means must be there: rows without a name are called by their number, and
what was calculated has no variance. Nothing is unpickled.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.errors import UserError
from toolkit.files.writing import is_stream, reason, write
from toolkit.wording import ending_in_words

ENDINGS = (".npz", ".csv")


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


def check_name(path: str) -> None:
    """Stop where the ending of a file name is not one that is written."""
    if Path(path).suffix.lower() not in ENDINGS and not is_stream(path):
        raise UserError(f"{path} {ending_in_words(path)} — write .npz or .csv")


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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for i, (name, row) in enumerate(zip(codes.names, numbers, strict=True)):
        writer.writerow([name, *([codes.classes[i]] if known else []), *(f"{value:.9g}" for value in row)])
    return text.getvalue()


def load(path: Path | str, dims: int) -> Codes:
    """Read latent vectors for a model of so many dimensions; what the file holds decides its format."""
    try:
        data = Path(path).read_bytes()
        codes = unpacked(data) if data.startswith(b"PK") else parsed(data)
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)} — check the name") from None
    except Exception as error:  # NumPy and zipfile raise nearly anything on damaged files
        raise UserError(f"{path} holds no latent vectors: {reason(error)} — encode.py writes such files") from None
    if not len(codes.mean):
        raise UserError(f"{path} holds no rows — encode some images into it")
    if codes.mean.shape[1] != dims:
        has = codes.mean.shape[1]
        raise UserError(f"{path} holds vectors of {has} dims, the model has {dims} — take the model that encoded them")
    if not np.isfinite(codes.mean).all():
        raise UserError(f"{path} holds values that are infinite or no numbers — calculate them again")
    return codes


def unpacked(data):
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if "mean" not in arrays:
            raise ValueError("it has no array 'mean'")
        mean = np.atleast_2d(arrays["mean"]).astype(np.float32)
        if mean.ndim != 2:
            raise ValueError("its array 'mean' is not a table of rows")
        words = {}
        for name in ("name", "class"):
            words[name] = [str(word) for word in np.atleast_1d(arrays[name])] if name in arrays else None
            if words[name] is not None and len(words[name]) != len(mean):
                raise ValueError(f"it has {len(mean)} rows in 'mean' and {len(words[name])} in {name!r}")
        log_var = np.atleast_2d(arrays["log_var"]).astype(np.float32) if "log_var" in arrays else None
        if log_var is not None and log_var.shape != mean.shape:
            raise ValueError("its arrays 'mean' and 'log_var' differ in shape")
        return Codes(words["name"] or numbers(len(mean)), mean, log_var, words["class"])


def numbers(count):
    """Names of rows that have none."""
    return [str(i) for i in range(count)]


def parsed(data):
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    head = next(reader, [])
    columns = {name: i for i, name in enumerate(head)}
    rows = [row for row in reader if row]
    for number, row in enumerate(rows, 1):
        if len(row) != len(head):
            raise ValueError(f"row {number} has {len(row)} columns instead of {len(head)}")
    mean = block(columns, rows, "mean")
    if mean is None:
        raise ValueError("it has no columns mean_0, mean_1, …")
    log_var = block(columns, rows, "log_var")
    if log_var is not None and log_var.shape != mean.shape:
        raise ValueError(f"it has {mean.shape[1]} columns of mean and {log_var.shape[1]} of log_var")
    words = {name: [row[columns[name]] for row in rows] if name in columns else None for name in ("name", "class")}
    return Codes(words["name"] or numbers(len(rows)), mean, log_var, words["class"])


def block(columns, rows, name):
    """The columns `name_0`, `name_1` … as one array; None where there is none of them."""
    count = sum(column.removeprefix(f"{name}_").isdecimal() for column in columns if column.startswith(f"{name}_"))
    if not count:
        return None
    values = np.empty((len(rows), count), np.float32)
    for i in range(count):
        if (column := f"{name}_{i}") not in columns:
            raise ValueError(f"the column {column} is missing")
        for number, row in enumerate(rows):
            try:
                values[number, i] = float(row[columns[column]])
            except ValueError:
                raise ValueError(f"{column} of row {number + 1} is {row[columns[column]][:20]!r}, no number") from None
    return values
