"""JSON for a file, and from one, validated against a TypedDict.

    class Entry(TypedDict):
        epoch: Whole
        loss: float

    entry = record(Entry, b'{"epoch": 1, "loss": 31.4, "more": "is kept"}')

Invalid data raises ValueError with the name of the field.
"""

import functools
import json
import math
import types
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

T = TypeVar("T")
MOST_PARTS = 2**21  # quotes, brackets and commas: each value takes up to twenty times its size in the file
LARGEST = 1e100  # of numbers; sums and squares of them are finite
Whole = Annotated[int, lambda number: number >= 0]
Scalars = dict[str, str | int | float | bool | None]


def record(declared: type[T], text: bytes | str) -> T:
    """The JSON object in a text. Undeclared fields are kept."""
    value = parsed(text)
    if not isinstance(value, dict):
        raise ValueError("its metadata is not a JSON object")
    check(declared, value)
    return value


def as_json(value: Any) -> bytes:
    """A value as the content of a JSON file, with null instead of NaN and infinity, which JSON lacks."""

    def finite(value):
        if isinstance(value, dict):
            return {name: finite(one) for name, one in value.items()}
        if isinstance(value, list):
            return [finite(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return (json.dumps(finite(value), indent=2) + "\n").encode()


def parsed(text: bytes | str) -> Any:
    """Parse JSON; rejects unreasonable numbers, nesting and sizes."""
    marks = (b'"', b"[", b"{", b",") if isinstance(text, bytes) else ('"', "[", "{", ",")
    if sum(map(text.count, marks)) > MOST_PARTS:
        raise ValueError("its JSON has far too many parts")
    try:
        return json.loads(text, parse_constant=fraction, parse_int=integer, parse_float=fraction)
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None


def check(declared: Any, value: dict[str, Any]) -> None:
    """Raise ValueError if a field is missing or has the wrong type."""
    if missing := declared.__required_keys__ - value.keys():
        raise ValueError(f"its metadata lacks {min(missing)}")
    for name, fits in tests_of(declared).items():
        if name in value and not fits(value[name]):
            raise ValueError(f"its metadata says {str(value[name])[:40]!r} of its {name}")


@functools.cache
def tests_of(declared: Any) -> dict[str, Callable[[Any], bool]]:
    """For each field of a TypedDict, the test of its values."""
    return {name: test_of(kind) for name, kind in get_type_hints(declared, include_extras=True).items()}


def test_of(kind: Any) -> Callable[[Any], bool]:
    """Whether a value has a type: plain, list, tuple, dictionary, TypedDict, union, or annotated with tests."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        fits, subset = test_of(parts[0]), parts[1]
        return lambda value: fits(value) and subset(value)
    if is_typeddict(kind):
        return lambda value: isinstance(value, dict) and check(kind, value) is None
    tests = [test_of(part) for part in parts]
    if origin in (Union, types.UnionType):
        return lambda value: any(fits(value) for fits in tests)
    if origin is list:
        return lambda value: isinstance(value, list) and all(map(tests[0], value))
    if origin is tuple:
        return lambda value: (
            isinstance(value, list)
            and len(value) == len(tests)
            and all(fits(each) for fits, each in zip(tests, value, strict=True))
        )
    if origin is dict:
        return lambda value: isinstance(value, dict) and all(map(tests[1], value.values()))
    accepted = (int, float) if kind is float else kind
    return lambda value: isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))


def integer(text: str) -> int:
    if len(text) > 18:
        raise ValueError(f"{text[:18]}… has more than 64 bits")
    return int(text)


def fraction(text: str) -> float:
    if not math.fabs(number := float(text)) <= LARGEST:
        raise ValueError(f"{text[:40]} is too large or not a number")
    return number
