"""Mistakes that a person can fix, which toolkit/shell/command.py turns into one line on stderr; and warnings."""

import sys


class UserError(Exception):
    """One line: what is wrong — what to do."""


class RankError(UserError):
    """An error of one rank alone, which prints it itself."""


def warn(message: str) -> None:
    """Print a warning on stderr; a terminal shows it in colour (toolkit/shell/command.py)."""
    print(f"Warning: {message}", file=sys.stderr)
