"""What an option is: one field of a frozen dataclass.

    beta: float = option(1.0, "weight of the KL term", "objective", kind=weight)

Flags and help pages (toolkit/shell/parser.py), the state of a run and the check when it is resumed
(toolkit/training/plan.py), and the tables in docs/ are generated from it. Only the standard library is imported here,
so help pages appear at once.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from toolkit.wording import did_you_mean

# The groups of a help page, in the order in which a newcomer needs them.
GROUPS = "data, model, objective, optimisation, sampling, pictures, output, general".split(", ")


class Kind(NamedTuple):
    """The values that an option takes. `read` makes one from text; its ValueError continues the name of the option."""

    read: Callable[[str], Any]
    types: tuple[type, ...]  # allowed for a value from a file
    unit: str = ""  # the placeholder in help: `--beta X`
    noun: str = "text"
    is_file: bool = False  # or a folder


class Row(Protocol):
    """A row of a table that an option selects from, with a frozen dataclass of its own options."""

    name: str
    words: str
    Options: type | None


class Option(NamedTuple):
    """Everything about an option except its name and default, which the field has."""

    help: str | Callable[[], str]
    group: str
    kind: Kind | None = None  # None for a switch
    unit: str = ""  # if it differs from the kind's
    choices: Collection[str] | Callable[[], Collection[str]] = ()
    rows: Callable[[], Mapping[str, Row]] | None = None  # the table from which it chooses a row, by name
    only_with: tuple[str, ...] = ()  # has no effect without one of these options
    not_with: tuple[str, ...] = ()  # has no effect with any of these
    uses_only: tuple[str, ...] = ()  # with it, only options of these groups have an effect
    common: bool = False  # is on the first page of help
    default_text: str | Callable[[], str] = ""  # the default in help, if it is only known later
    aliases: tuple[str, ...] = ()  # spellings of earlier systems
    positional: bool = False
    several: bool = False  # takes one or more values
    bare: str = ""  # the value of the flag alone
    hidden: bool = False  # works, but is not listed in help
    changeable: bool = False  # by a resumed run


def option(default: Any, help: str | Callable[[], str], group: str, **more: Any) -> Any:
    """A dataclass field that declares an option; `more` are other fields of Option. False as default makes a switch."""
    known = Option(help, group, **({} if default is False else {"kind": text}) | more)
    return dataclasses.field(default=default, metadata={"option": known})


def with_conditions(declared: type, **conditions: tuple[str, ...]) -> type:
    """The same options with additional conditions: `with_conditions(DataOptions, not_with=("images",))`."""
    fields = [
        (name, Any, dataclasses.field(default=default, metadata={"option": known._replace(**conditions)}))
        for name, default, known in options_of(declared)
    ]
    return dataclasses.make_dataclass(declared.__name__, fields, bases=(declared,), frozen=True)


def options_of(declared: Any) -> list[tuple[str, Any, Option]]:
    """Name, default and Option of every option field of a dataclass."""
    fields = [field for field in dataclasses.fields(declared) if "option" in field.metadata]
    return [(field.name, field.default, field.metadata["option"]) for field in fields]


def choices_of(known: Option) -> tuple[str, ...]:
    if known.rows:
        return tuple(known.rows())
    return tuple(known.choices() if callable(known.choices) else known.choices)


def flag_of(name: str, known: Option | None = None) -> str:
    """How an option is typed: its flag or, if positional, its placeholder: `RUN_NAME`."""
    return unit_of(name, known) if known and known.positional else f"--{name}"


def unit_of(name: str, known: Option) -> str:
    """The placeholder for a value in help: a unit, a few choices, or the option's name."""
    choices = f"{{{','.join(map(str, choices_of(known)))}}}"
    return known.unit or (choices if 2 < len(choices) < 18 - len(name) else known.kind.unit) or name.upper()


def help_of(name: str, options: Mapping[str, Option], brief: bool = False) -> str:
    """The help text of one of `options`: what it does, its choices, and unless `brief`, what it needs or excludes."""
    known = options[name]
    text, choices = known.help() if callable(known.help) else known.help, () if known.rows else choices_of(known)
    if known.rows and not known.positional:  # positional rows are a table above the flags
        rows = "; ".join(f"{row.name}: {row.words}" for row in known.rows().values())
        rows = ", ".join(known.rows()) if brief else rows
        text = ". ".join(filter(None, (text, rows)))
    elif any(str(choice) not in text for choice in choices) and unit_of(name, known)[0] != "{":
        text += f": {', '.join(map(str, choices))}"
    if brief:
        return text
    needs, excludes = (
        " or ".join(flag_of(other, options[other]) for other in names if other in options and not options[other].hidden)
        for names in (known.only_with, known.not_with)
    )
    return (f"with {needs}: " if needs else "") + text + (f"; not with {excludes}" if excludes else "")


def default_text_of(default: Any, known: Option) -> str:
    """The default of an option as text; empty if there is none to mention."""
    if known.default_text:
        return known.default_text() if callable(known.default_text) else known.default_text
    if known.kind is None or default in (None, (), ...):
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def read_value(known: Option, text: str) -> Any:
    """The value that a text stands for. A ValueError's message follows the name of the option."""
    value, choices = known.kind.read(text), choices_of(known)
    if choices and value not in choices:
        words = list(map(str, choices))
        raise ValueError(f"{shown(text)} is not one of {', '.join(words)}{did_you_mean(text, words)}")
    return value


def checked(known: Option, value: Any) -> Any:
    """A value from a file, converted; ValueError if the option does not accept it."""
    if known.kind is None:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {shown(value)}")
        return value
    if isinstance(value, bool) or not isinstance(value, known.kind.types):
        raise ValueError(f"needs {known.kind.noun}, not {shown(value)}")
    return read_value(known, str(value))


def shown(value: Any) -> str:
    """The beginning of a value, for an error."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return f"{text[:40]}…" if len(text) > 40 else text


def from_values(declared: Any, values: dict[str, Any]) -> Any:
    """A dataclass of the values in a file, each checked against its field; missing ones get defaults."""
    known = {name: (default, about) for name, default, about in options_of(declared)}
    fields = {field.name: field for field in dataclasses.fields(declared)}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(f"it has an unknown option {name[:40]!r}")
        try:
            default, about = known.get(name, (fields[name].default, None))
            if about and (value is not None or default is not None):
                checked(about, value)
            elif not about and type(value) is not type(default):
                raise ValueError(f"cannot be {shown(value)}")
        except ValueError as error:
            raise ValueError(f"its option {name} {error}") from None
    return declared(**values)


# Kinds


LARGEST = 1e30  # upper limit of numbers, so float32 and all file formats can hold them


def number(kind: type, least: float, below: float = LARGEST, *, above: bool = False, unit: str = "") -> Kind:
    """A number, at least `least` (or above it) and below `below`."""
    noun = "a whole number" if kind is int else "a number"

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.inf if text.isdecimal() else math.nan  # Python rejects numbers of 5,000 digits
        if value != value:
            raise ValueError(f"needs {noun}, not {shown(text)}")
        if value < least or (above and value == least):
            raise ValueError(f"must be above {least}" if above else f"must be {least} or more")
        if value >= below:
            raise ValueError(f"must be below {below:,}" if kind is int else f"must be below {below:g}")
        return value

    return Kind(read, (int,), unit or "N", noun) if kind is int else Kind(read, (int, float), unit or "X", noun)


def read_path(text: str) -> str:
    with suppress(UnicodeEncodeError):
        if b"\0" not in os.fsencode(read_word(text)):
            return os.path.expanduser(text)
    raise ValueError(f"must be a valid file name, not {shown(text)}")


def read_word(text: str) -> str:
    if not text.strip():
        raise ValueError("needs a name")
    return text


def read_run_name(text: str) -> str:
    """A folder or zip file of pictures, or the plain name of a run."""
    name = read_path(text)
    if not os.path.exists(name) and (name in (".", "..") or "/" in name):
        raise ValueError(f"must be a folder or zip file that exists, or a plain name, not {shown(text)}")
    return name


count = number(int, 1, 10**9)
whole = number(int, 0, 10**9)
passes = number(float, 0, 10**9, above=True)
rate = number(float, 0, above=True)
weight = number(float, 0)
minutes = number(float, 0, 10**6, above=True, unit="N")
in_epochs = number(float, 0, unit="EPOCHS")
sample_count = number(int, 0, 10**7, unit="K")
seed = number(int, 0, 2**32)
text = Kind(str, (str,), "NAME")
word = Kind(read_word, (str,), "NAME")
path = Kind(read_path, (str,), "FILE", is_file=True)
directory = Kind(read_path, (str,), "DIR", is_file=True)
run_name = Kind(read_run_name, (str,), "RUN_NAME")

DATASETS = "mnist, fashion-mnist, cifar-10, cifar-100, celeb-a, synthetic, or folder:PATH of pictures"
