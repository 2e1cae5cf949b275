"""The one exception for mistakes that a person can fix; toolkit/shell/command.py turns it into one line on stderr."""


class UserError(Exception):
    """Says in one line what is wrong and what to do about it."""


class RankError(UserError):
    """What one of several ranks alone cannot do; it says so itself, wherever it runs."""
