"""User errors, which toolkit/shell/command.py prints as one line on stderr; and warnings."""

import sys


class UserError(Exception):
    """One line: what is wrong — what to do."""


class RankError(UserError):
    """An error of a single rank, which prints it itself."""


def warn(message: str) -> None:
    """Print a warning on stderr; a terminal shows it in colour (toolkit/shell/command.py)."""
    print(f"Warning: {message}", file=sys.stderr)
