"""The log of a run: one JSON object per epoch and line, after a line with the unreadable files if there were any."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from toolkit.errors import UserError
from toolkit.files.reading import contents
from toolkit.files.records import Whole, record
from toolkit.files.writing import reason

LARGEST = 2**25  # bytes; an epoch takes about 600
MOST = 50_000  # epochs in a chart


class Scores(TypedDict):
    loss: float
    reconstruction: float
    kl: float


class Entry(Scores):
    """The fields that readers of a log rely on; an entry has more."""

    epoch: Whole
    test: Scores
    images_per_second: float


class Skipped(TypedDict):
    """The first line of a log if some files could not be read."""

    epoch: Whole
    skipped: dict[str, list[tuple[str, str]]]


def entries(text: bytes) -> Iterator[dict[str, Any]]:
    """The checked entries of a log; ValueError if it is damaged."""
    before = 0
    for line in text.decode().splitlines():
        if line.startswith('{"epoch": 0, '):
            record(Skipped, line)
            continue
        entry = record(Entry, line)
        if entry["epoch"] <= before:
            raise ValueError("its epochs do not rise")
        before = entry["epoch"]
        yield entry


def read(path: Path | str) -> list[dict[str, Any]]:
    """All entries of a log, or of the log in a run's folder; at least one."""
    path = Path(path)
    path = path / "log.jsonl" if path.is_dir() else path
    try:
        if (text := contents(path, LARGEST)).count(b"\n") > MOST or text.count(b",") > 100 * MOST:
            raise UserError(f"{path} has more than {MOST:,} epochs, or {100 * MOST:,} values — name a shorter log")
        found = list(entries(text))
    except OSError as error:
        raise cannot_read(path, error, "name a run's folder or log with --logs") from None
    except ValueError:
        raise UserError(f"{path} is not the log of a run, or is damaged — name a run's folder or log") from None
    if not found:
        raise UserError(f"{path} has no epochs yet — train at least one")
    return found


def read_until(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The entries up to an epoch, to resume a run there.

    A damaged log does not stop the run: its first invalid line and all lines after it are dropped.
    """
    found = []
    try:
        text = contents(path, LARGEST)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:  # it exists, and would be overwritten
        raise cannot_read(path, error, "try again, or move it away") from None
    with suppress(ValueError):
        found.extend(entry for entry in entries(text) if entry["epoch"] <= epochs)
    return found


def cannot_read(path, error, remedy):
    return UserError(f"cannot read the log {path}: {reason(error)} — {remedy}")


def packed(log: list[dict[str, Any]], skipped: dict[str, Any]) -> bytes:
    """The bytes of a log."""
    first = [{"epoch": 0, "skipped": skipped}] if any(skipped.values()) else []
    return "".join(json.dumps(line) + "\n" for line in first + log).encode()
