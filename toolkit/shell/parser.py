"""Flags made from dataclasses: every field that is an option (toolkit/options.py) is a flag.

Flags are spelled with underscores and work with hyphens too. Help lists one name per flag, not the spellings of earlier
systems. Only what a person typed is kept, so that the dataclasses alone hold the defaults.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import toolkit
from toolkit.errors import UserError
from toolkit.options import GROUPS, Option, Row, choices_of, default_text_of, flag_of, help_of, options_of, unit_of

T = TypeVar("T")
HELP = {"-h", "--help", "--version"}


@dataclass(frozen=True)
class Typed:
    """The values of the flags that a person typed, by the names of their options."""

    values: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)  # that replace those of the options

    def of(self, declared: type[T]) -> T:
        """A dataclass of options with what was typed, and defaults for the rest."""
        names = {name for name, _, _ in options_of(declared)}
        return declared(**{name: value for name, value in (self.defaults | self.values).items() if name in names})

    def __contains__(self, name: str) -> bool:
        return name in self.values


def parse(
    document: str,
    argv: list[str] | None,
    *declared: type,
    given: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    translate: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Typed:
    """Parse flags; `document` is the docstring of a command: the line to type, and below it what that does.

    `given` are values from a file, checked as typed ones are, which win over them; `defaults` replace those of options;
    `translate` puts flags of earlier systems in today's. Options that choose a row of a table are read first, as a row
    may have flags of its own. Its help page shows those alone.
    """
    words, given, defaults = words_of(argv), dict(given or {}), dict(defaults or {})
    if not words and any(known.positional and default is ... for _, default, known in selectors(declared)):
        parser = Parser(document, declared)  # a row must be chosen: here is the table
        print(f"{parser.format_usage()}\n{parser.description}")
        raise SystemExit(0)
    if HELP & set(words):
        for way, row in chosen(words, declared).items():
            if row.Options:
                about = f"{row.words}\n\nFlags that it shares with others: {program_of(document)} -h"
                Parser(f"{program_of(document)} {way}\n\n{about}", (row.Options,), way=way).print_help()
                raise SystemExit(0)
        rows: dict[str, Row] = {}
    else:
        rows = chosen(words, declared, defaults | given)
    parser = Parser(document, (*declared, *(row.Options for row in rows.values() if row.Options)), owners(declared))
    typed = parser.parse(words)
    values = translate(given | typed)
    for name in sorted(values.keys() - parser.options.keys()):
        parser.refuse(f"--{name}")
    check_conditions(values, values.keys() | defaults.keys(), parser.options)
    return Typed(values, defaults)


def words_of(argv: list[str] | None) -> list[str]:
    """The words of a command line, flags with underscores."""
    return [underscored(word) for word in (sys.argv[1:] if argv is None else map(str, argv))]


def typed_value(words: list[str], *spellings: str) -> str | None:
    """The last value of a flag, before there is a parser: `--lr 0.1` or `--lr=0.1`."""
    flags, value = [f"--{spelling}" for spelling in spellings], None
    for before, word in zip(["", *words], words, strict=False):
        flag, _, after = word.partition("=")
        value = (after or value) if flag in flags else word if before in flags else value
    return value


def chosen(words: list[str], declared: tuple[type, ...], others: dict[str, Any] | None = None) -> dict[str, Row]:
    """The rows that words choose, by how: `--arch resnet` → its row. With `others` those of other options too, by their
    values there or their defaults."""
    found = {}
    rows_of = [row.Options for _, _, known in selectors(declared) for row in known.rows().values() if row.Options]
    switches = {f"--{name}" for part in (*declared, *rows_of) for name, _, known in options_of(part) if not known.kind}
    for name, default, known in selectors(declared):
        rows, value = known.rows(), typed_value(words, name, *known.aliases)
        if known.positional:
            no_flags = {"", "--help", *switches}  # before a word that is no value of a flag
            pairs = zip(["", *words], words, strict=False)
            places = (word for before, word in pairs if before in no_flags or "=" in before or before[:2] != "--")
            value = next((word for word in places if word in rows), None)
        if value is None and others is not None:
            value = others.get(name, default)
        if isinstance(value, str) and value in rows:
            found[way_of(name, known, value)] = rows[value]
    return found


def selectors(declared: tuple[type, ...]) -> list[tuple[str, Any, Option]]:
    """The options that choose a row of a table."""
    return [option for part in declared for option in options_of(part) if option[2].rows]


def way_of(name: str, known: Option, row: str) -> str:
    """The words by which a row is chosen."""
    return row if known.positional else f"--{name} {row}"


def owners(declared: tuple[type, ...]) -> dict[str, str]:
    """The flags that rows have of their own, and what chooses each: `--depth` → `--arch resnet`."""
    found: dict[str, list[str]] = {}
    for name, _, known in selectors(declared):
        for row in known.rows().values():
            for own, _, about in options_of(row.Options) if row.Options else ():
                for spelling in (own, *about.aliases):
                    found.setdefault(f"--{spelling}", []).append(way_of(name, known, row.name))
    return {flag: " or ".join(filter(None, [", ".join(ways[:-1]), ways[-1]])) for flag, ways in found.items()}


def check_conditions(values: Mapping[str, Any], present: Collection[str], options: Mapping[str, Option]) -> None:
    """Stop where a value was given to an option that has no effect with the others, or without one; `present` are all
    that have values, from wherever."""
    for name in values:
        known, flag = options[name], flag_of(name, options[name])
        if known.only_with and not any(other in present for other in known.only_with):
            needs = " or ".join(flag_of(other, options[other]) for other in known.only_with)
            raise UserError(f"{flag} has no effect without {needs} — leave it out")
        for other in values:
            only = options[other].uses_only
            if other in known.not_with or (only and known.group not in only and other != name):
                check_effects(values, [name], flag_of(other, options[other]))


def check_effects(typed: Collection[str], names: Collection[str], on: str) -> None:
    """Stop where an option was typed that has no effect with what another one says."""
    for name in names:
        if name in typed:
            raise UserError(f"--{name} has no effect with {on} — leave it out")


def program_of(document: str) -> str:
    """What starts a command: `python train.py`."""
    return " ".join(document.split()[:2])


class Parser(argparse.ArgumentParser):
    """An argument parser for dataclasses of options, which fails in one line."""

    def __init__(
        self, document: str, declared: tuple[type, ...], owners: Mapping[str, str] | None = None, way: str = ""
    ):
        first, _, about = document.partition("\n")
        program = program_of(document)
        options = [option for part in declared for option in options_of(part)]
        self.options, self.owners = {name: known for name, _, known in options}, owners or {}
        self.usual = {name: default for name, default, _ in options}
        words = [word_of(name, default, known) for name, default, known in options if known.positional]
        tables = [
            table_of(word_of(*option), option[2].rows(), program)
            for option in options
            if option[2].positional and option[2].rows
        ]
        super().__init__(
            prog=program,
            usage=" ".join([program, *filter(None, [way]), *words, "[options]"]),
            description="\n".join([about.strip(), *tables, f"Example: {first}"]),
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=22, width=80),
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            add_help=False,
        )
        for title in GROUPS:
            members = [option for option in options if option[2].group == title]
            group = self.add_argument_group(title)
            for name, default, known in members:
                add(group, name, default, known)
        group.add_argument("-h", "--help", action="help", help="show this and exit")
        group.add_argument("--version", action="version", version=toolkit.__version__, help="print the version")
        chosen_by = [option for option in selectors(declared) if not option[2].positional]
        rows = [(name, known, row) for name, _, known in chosen_by for row in known.rows().values()]
        more = [f"more: {program} {way_of(name, known, row.name)} -h" for name, known, row in rows if row.Options]
        if any(known.hidden or known.aliases for known in self.options.values()):
            more[1:] = ["earlier flags: docs/compatibility.md"]
        self.epilog = "; ".join(more[:2])

    def parse(self, argv: list[str] | None = None) -> dict[str, Any]:
        """The values of what was typed, by the names of the options."""
        words = words_of(argv)
        for flag in (word.split("=")[0] for word in words):
            if flag in self.owners and flag not in self._option_string_actions:
                self.refuse(flag)
        found, unknown = self.parse_known_args(words)
        if unknown:
            self.refuse(unknown[0].split("=")[0])
        return {name: value for name, value in vars(found).items() if value is not None}

    def refuse(self, flag: str) -> None:
        """Stop at a flag that is none, or one of a row that was not chosen."""
        if owner := self.owners.get(flag):
            self.error(f"{flag} is an option of {owner} — leave it out, or choose that")
        shown = [other for a in self._actions if a.help != argparse.SUPPRESS for other in a.option_strings]
        self.error(f"{flag} is not a flag" + did_you_mean(flag, shown))

    def format_help(self) -> str:
        """The help page; what it says of a flag is only made here, as some of it takes imports."""
        for action in self._actions:
            if name := getattr(action, "described", None):
                action.help = help_text(name, self.usual[name], self.options)
        first, *groups = re.split(r"\n\n(?=[a-z ]+:\n)", super().format_help())
        return first + "\n\n" + "\n".join(groups)

    def error(self, message: str) -> None:
        raise UserError(message + ("" if "—" in message else f" — see {self.prog} -h"))


def add(group: Any, name: str, default: Any, known: Option) -> None:
    """Add the flag of an option, and its earlier spellings without a line in help."""
    about: dict[str, Any] = {"help": argparse.SUPPRESS if known.hidden else ""}
    if known.kind is None:
        about["action"] = "store_true"
    else:
        about |= {"type": reader(known), "metavar": unit_of(name, known)}
        if known.several:
            about["nargs"] = "+"
    if known.positional:
        if default is not ...:
            about["nargs"] = "*" if known.several else "?"
        action = group.add_argument(name, **about)
    else:
        action = group.add_argument(f"--{name}", dest=name, **about)
    action.described = None if known.hidden else name
    for spelling in known.aliases:
        group.add_argument(f"--{spelling}", dest=name, **about | {"help": argparse.SUPPRESS})


def reader(known: Option) -> Any:
    """What argparse calls with the text of a value: it says what is wrong in our words."""
    choices = [known.kind.read(str(choice)) for choice in choices_of(known)]

    def read(text: str) -> Any:
        try:
            value = known.kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if choices and value not in choices:
            words = list(map(str, choices))
            raise argparse.ArgumentTypeError(
                f"{text[:40]!r} is not one of {', '.join(words)}{did_you_mean(text, words)}"
            )
        return value

    return read


def did_you_mean(word: str, words: list[str]) -> str:
    """A hint at the nearest word, if one is near."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.7)
    return f" — did you mean {near[0]}?" if near else ""


def help_text(name: str, default: Any, options: Mapping[str, Option]) -> str:
    said, about = default_text_of(default, options[name]), help_of(name, options)
    return (f"{about} (default: {said})" if said else about).replace("%", "%%")


def table_of(word: str, rows: Mapping[str, Row], program: str) -> str:
    """The rows that a word chooses from, a line each."""
    width = max(map(len, rows))
    lines = [f"  {name:{width}s}  {row.words}" for name, row in rows.items()]
    return "\n".join([f"\n{word} is one of\n", *lines, f"\nFlags of one of them: {program} {word} -h\n"])


def word_of(name: str, default: Any, known: Option) -> str:
    shown = unit_of(name, known) + (" …" if known.several else "")
    return shown if default is ... else f"[{shown}]"


def underscored(word: str) -> str:
    """`--latent-dims=8` → `--latent_dims=8`; anything but a flag stays as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value
