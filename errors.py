"""The one exception for what a person can mend; cli.py turns it into one line on stderr."""


class UserError(Exception):
    """Says in one line what is wrong and what to do about it."""
