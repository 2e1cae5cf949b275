"""Which parameters of a test belong to the fast subset, `pytest -m "not slow"`."""

import pytest


def slow_but(fast, values):
    """The values of a parameter, all but one marked as slow."""
    return [value if value == fast else pytest.param(value, marks=pytest.mark.slow) for value in values]
