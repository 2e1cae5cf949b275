"""JSON from files: what fits its declaration is read, and nothing else."""

from typing import TypedDict

import pytest

from toolkit.files import records
from toolkit.files.records import Scalars, Whole, record


class Inner(TypedDict):
    loss: float


class Outer(TypedDict, total=False):
    epoch: Whole
    name: str
    best: float | None
    images: tuple[Whole, Whole]
    classes: list[str]
    options: Scalars
    test: Inner
    done: bool


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"epoch": 0, "best": null, "images": [1, 2], "classes": [], "options": {"a": null}, "done": false}',
        '{"best": 1, "test": {"loss": 1, "more": [{}]}, "unknown": [[1]]}',
    ],
)
def test_what_fits_is_read(text):
    assert isinstance(record(Outer, text), dict)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"epoch": -1}',
        '{"epoch": 1.0}',
        '{"epoch": true}',
        '{"epoch": null}',
        '{"epoch": "1"}',
        '{"epoch": 9999999999999999999}',
        '{"epoch": ' + "9" * 5000 + "}",
        '{"best": NaN}',
        '{"best": -Infinity}',
        '{"best": 1e308}',
        '{"best": 1e999}',
        '{"unknown": NaN}',
        '{"images": [1]}',
        '{"images": [1, "2"]}',
        '{"classes": [1, 2]}',
        '{"classes": {"a": 1}}',
        '{"options": {"a": []}}',
        '{"options": {"a": {}}}',
        '{"test": {}}',
        '{"test": {"loss": "low"}}',
        '{"done": 1}',
        '{"unknown": ' + "[" * 100_000,
        '{"unknown": ' + '{"a":' * 100_000,
        '{"unknown": [' + "[]," * 2**21 + "[]]}",  # would take 150 MB
    ],
)
def test_what_does_not_fit_is_a_value_error(text):
    with pytest.raises(ValueError) as caught:
        record(Outer, text)
    assert len(str(caught.value)) < 200


def test_numbers_count_as_parts(monkeypatch):
    monkeypatch.setattr(records, "MOST_PARTS", 100)
    with pytest.raises(ValueError, match="far too many parts"):
        record(Outer, '{"more": [' + "0," * 100 + "0]}")
