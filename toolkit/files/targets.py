"""The rule for what a command may replace; docs/formats.md explains it.

Files that are often made again (pictures, pages, metrics) carry a mark and replace only files of the same kind. Nothing
else is replaced: no model, no latent vectors, no file of the user. `--overwrite` skips the rule.
"""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from toolkit.errors import UserError
from toolkit.files.reading import opened
from toolkit.files.writing import is_stream
from toolkit.wording import ending_in_words

PICTURE, PAGE, METRICS, LIST = "picture", "page", "metrics", "list"
NEW, ANY = "", "file"  # NEW replaces nothing; ANY is for a run's own files
LIST_HEAD = "file,source"  # a .csv file cannot hold a mark
LOOK = 1024  # bytes at both ends of a file that are searched for the mark


def mark(kind: str) -> str:
    """The mark of a kind of file."""
    return f"mlx-vae {kind}"


MARK = re.compile(mark(f"({PICTURE}|{PAGE}|{METRICS})").encode())


def kind_of(path: Path | str) -> str:
    """The kind of a file made by this toolkit; empty for other files."""
    with opened(path) as file:
        start = file.read(LOOK)
        file.seek(max(0, os.fstat(file.fileno()).st_size - LOOK))
        found = MARK.search(start) or MARK.search(file.read(LOOK))
    return LIST if start.startswith(LIST_HEAD.encode()) else found[1].decode() if found else ""


def check_target(path: Path | str, kind: str = NEW, inputs: Iterable[Path | str] = ()) -> None:
    """Raise UserError if writing a file of a kind would lose data; `inputs` are files that the command reads."""
    if is_stream(path):
        return
    try:
        there = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        folder = next(folder for folder in Path(os.path.abspath(path)).parents if os.path.exists(folder))
        if not os.access(folder, os.W_OK):
            raise UserError(f"cannot write {path}: {folder} is read-only — choose another place") from None
        return
    if stat.S_ISDIR(there.st_mode):
        raise UserError(f"{path} is a folder — name a file")
    if any(os.path.exists(name) and os.path.samestat(there, os.stat(name)) for name in inputs):
        why = "is an input of this command"
    elif is_read_only(path):
        why = "is read-only"
    elif not there.st_size or kind == ANY or (kind and kind_of(path) == kind):
        return
    else:
        why = f"exists and is not a {kind} file made by this toolkit" if kind else "exists"
    raise UserError(f"{path} {why} — choose another name, or replace it with --overwrite")


def check_ending(path: Path | str, endings: Iterable[str]) -> None:
    """Raise UserError if a file name has the wrong extension; pipes and devices may have any name."""
    if Path(path).suffix.lower() not in endings and not is_stream(path):
        raise UserError(
            f"{path} {ending_in_words(path)} — name one that ends in {' or '.join(', '.join(endings).rsplit(', ', 1))}"
        )


def is_read_only(path: Path | str) -> bool:
    """Whether a file is write-protected, also for root, who could write it."""
    return not os.stat(path).st_mode & 0o222 or not os.access(path, os.W_OK)
