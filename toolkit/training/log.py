"""The log of a run: a JSON object a line for each epoch, behind one that names the files that could not be read."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.files.reading import contents
from toolkit.files.writing import reason

LARGEST = 2**26  # bytes; an epoch has some 600


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The epochs of a log, one after the other, each checked; an error where it is missing or damaged."""
    try:
        for line in contents(path, LARGEST).decode().splitlines():
            entry = json.loads(line)
            if entry["epoch"] == 0:
                continue
            values = [part[key] for part in (entry, entry["test"]) for key in ("loss", "reconstruction", "kl")]
            if not all(math.isfinite(value) for value in (entry["epoch"], entry["images_per_second"], *values)):
                raise ValueError
            yield entry
    except OSError as error:
        raise UserError(
            f"cannot read the log {path}: {reason(error)} — name a run's folder or log with --logs"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the log of a run, or is damaged — name a run's folder or log") from None


def read(path: Path | str) -> list[dict[str, Any]]:
    """All epochs of a log, or of that in a run's folder; at least one."""
    path = Path(path)
    path = path / "log.jsonl" if path.is_dir() else path
    if not (found := list(entries(path))):
        raise UserError(f"{path} has no epoch yet — train at least one")
    return found


def read_until(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The first epochs of a log, to resume a run: what a crash left behind them is done again.

    A damaged log costs only itself: what cannot be read, and all behind it, is left out.
    """
    found = []
    with suppress(UserError):
        found.extend(entry for entry in entries(path) if entry["epoch"] <= epochs)
    return found


def packed(log: list[dict[str, Any]], skipped: dict[str, Any]) -> bytes:
    """The bytes of a log."""
    first = [{"epoch": 0, "skipped": skipped}] if any(skipped.values()) else []
    return "".join(json.dumps(line) + "\n" for line in first + log).encode()
