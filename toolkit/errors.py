"""Mistakes that a person can fix, which toolkit/shell/command.py turns into one line on stderr; and warnings."""

import sys


class UserError(Exception):
    """Says in one line what is wrong and what to do about it."""


class RankError(UserError):
    """What one of several ranks alone cannot do; it says so itself, wherever it runs."""


def warn(message: str) -> None:
    """Print a warning on stderr; a terminal shows it in colour (toolkit/shell/command.py)."""
    print(f"Warning: {message}", file=sys.stderr)
