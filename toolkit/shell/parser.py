"""Flags made from dataclasses: every field that is an option (toolkit/options.py) is a flag.

Flags are spelled with underscores and work with hyphens too. Help lists one name per flag; the spellings of earlier
systems are in one line at its end. Only what a person typed is kept, so that the dataclasses alone hold the defaults.
"""

import argparse
import difflib
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import toolkit
from toolkit.errors import UserError
from toolkit.options import GROUPS, Option, Row, choices_of, default_text_of, help_of, options_of

T = TypeVar("T")


@dataclass(frozen=True)
class Typed:
    """The values of the flags that a person typed, by the names of their options; behind them others, as defaults."""

    values: dict[str, Any]
    base: dict[str, Any] = field(default_factory=dict)

    def of(self, declared: type[T]) -> T:
        """A dataclass of options with what was typed, and defaults for the rest."""
        names = {name for name, _, _ in options_of(declared)}
        return declared(**{name: value for name, value in (self.base | self.values).items() if name in names})

    def __contains__(self, name: str) -> bool:
        return name in self.values


def parse(document: str, argv: list[str] | None, *declared: type, given: dict[str, Any] | None = None) -> Typed:
    """Parse flags; `document` is the docstring of a command: the line to type, and below it what that does.

    Options that choose a row of a table are read first, from the flags or else from `given`, as a row may have flags of
    its own. Its help page shows those alone. If a row must be chosen and nothing is typed, the table is printed.
    """
    words = [underscored(word) for word in (sys.argv[1:] if argv is None else map(str, argv))]
    if not words and any(known.positional and default is ... for _, default, known in selectors(declared)):
        parser = Parser(document, declared)
        print(f"{parser.format_usage()}\n{parser.description}")
        raise SystemExit(0)
    if {"-h", "--help"} & set(words):
        for way, row in chosen(words, declared).items():
            if row.Options:
                about = f"{row.words}\n\nFlags that it shares with others: {program_of(document)} -h"
                Parser(f"{program_of(document)} {way}\n\n{about}", (row.Options,), way).print_help()
                raise SystemExit(0)
        Parser(document, declared).print_help()
        raise SystemExit(0)
    rows = chosen(words, declared, given or {}).values()
    parser = Parser(document, (*declared, *(row.Options for row in rows if row.Options)))
    parser.owners = owners(declared)
    return parser.parse(words)


def chosen(words: list[str], declared: tuple[type, ...], given: dict[str, Any] | None = None) -> dict[str, Row]:
    """The rows that words choose, by how: `--arch resnet` → its row. With `given` those of other options too, by their
    values there or their defaults."""
    found = {}
    rows_of = [row.Options for _, _, known in selectors(declared) for row in known.rows().values() if row.Options]
    switches = {f"--{name}" for part in (*declared, *rows_of) for name, _, known in options_of(part) if not known.kind}
    for name, default, known in selectors(declared):
        rows, flags = known.rows(), [f"--{spelling}" for spelling in (name, *known.aliases)]
        value = None if given is None else given.get(name, default)
        for before, word in zip(["", *words], words, strict=False):
            flag, _, after = word.partition("=")
            if known.positional:
                is_value = before.startswith("--") and "=" not in before and before not in {"--help", *switches}
                if word in rows and not is_value:
                    value = word
                    break  # a later one is a value of a flag that takes several
            elif flag in flags and after:
                value = after
            elif before in flags:
                value = word
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


def check_conditions(typed: Typed, declared: Iterable[type]) -> None:
    """Stop where an option was typed that means nothing beside the others."""
    for name, _, known in (option for part in declared for option in options_of(part)):
        if name not in typed:
            continue
        if known.only_with and not any(other in typed for other in known.only_with):
            raise UserError(f"--{name} has no effect without --{' or --'.join(known.only_with)} — leave it out")
        for other in known.not_with:
            if other in typed:
                raise UserError(f"--{name} has no effect with --{other} — leave it out")


def program_of(document: str) -> str:
    """What starts a command: `python train.py`."""
    return " ".join(document.split()[:2])


class Parser(argparse.ArgumentParser):
    """An argument parser for dataclasses of options, which fails in one line."""

    def __init__(self, document: str, declared: tuple[type, ...], way: str = ""):
        first, _, about = document.partition("\n")
        program = program_of(document)
        self.declared, self.owners = declared, {}
        options = [(name, default, known) for part in declared for name, default, known in options_of(part)]
        words = [word_of(name, default, known) for name, default, known in options if known.positional]
        tables = [
            table_of(word_of(*option), option[2].rows(), program)
            for option in options
            if option[2].positional and option[2].rows
        ]
        super().__init__(
            prog=program,
            usage=" ".join([program, *filter(None, [way]), *words, "[options]"]),
            description="\n\n".join([about.strip(), *tables, f"Example: {first}"]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            add_help=False,
        )
        earlier = []
        for title in GROUPS:
            members = [option for option in options if option[2].group == title]
            if not members:
                continue
            group = self.add_argument_group(title)
            for name, default, known in members:
                add(group, name, default, known)
                earlier += [f"--{spelling}" for spelling in (*([name] if known.hidden else ()), *known.aliases)]
        group = self.add_argument_group("help")
        group.add_argument("-h", "--help", action="help", help="show this and exit")
        group.add_argument(
            "--version", action="version", version=toolkit.__version__, help="print the version and exit"
        )
        if earlier:
            closing = f"Flags of earlier systems work as well (docs/compatibility.md): {', '.join(earlier)}."
            self.epilog = textwrap.fill(closing, 78, break_on_hyphens=False)

    def parse(self, argv: list[str] | None = None) -> Typed:
        argv = [underscored(word) for word in (sys.argv[1:] if argv is None else map(str, argv))]
        for flag in [word.split("=")[0] for word in argv]:
            if flag in self.owners and flag not in self._option_string_actions:
                self.error(f"{flag} is an option of {self.owners[flag]} — leave it out, or choose that")
        found, unknown = self.parse_known_args(argv)
        if unknown:
            shown = [flag for a in self._actions if a.help != argparse.SUPPRESS for flag in a.option_strings]
            self.error(f"{unknown[0]} is not a flag" + did_you_mean(unknown[0].split("=")[0], shown))
        typed = Typed({name: value for name, value in vars(found).items() if value is not None})
        check_conditions(typed, self.declared)
        return typed

    def format_help(self) -> str:
        """The help page; what it says of a flag is only made here, as some of it takes imports."""
        for action in self._actions:
            if described := getattr(action, "described", None):
                action.help = help_text(*described)
        return super().format_help()

    def error(self, message: str) -> None:
        raise UserError(message + ("" if "—" in message else f" — see {self.prog} -h"))


def add(group: Any, name: str, default: Any, known: Option) -> None:
    """Add the flag of an option, and its earlier spellings without a line in help."""
    about: dict[str, Any] = {"help": argparse.SUPPRESS if known.hidden else ""}
    if known.kind is None:
        about["action"] = "store_true"
    else:
        choices = choices_as_read(known)
        about["type"] = reader(known)
        about["metavar"] = known.unit or (f"{{{','.join(map(str, choices))}}}" if choices else name.upper())
        if known.several:
            about["nargs"] = "+"
    if known.positional:
        if default is not ...:
            about["nargs"] = "*" if known.several else "?"
        action = group.add_argument(name, **about)
    else:
        action = group.add_argument(f"--{name}", dest=name, **about)
    action.described = None if known.hidden else (default, known)
    for spelling in known.aliases:
        group.add_argument(f"--{spelling}", dest=name, **about | {"help": argparse.SUPPRESS})


def choices_as_read(known: Option) -> list[Any]:
    return [known.kind.read(str(choice)) for choice in choices_of(known)]


def reader(known: Option) -> Any:
    """What argparse calls with the text of a value: it says what is wrong in our words."""
    choices = choices_as_read(known)

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


def help_text(default: Any, known: Option) -> str:
    said = default_text_of(default, known)
    return (f"{help_of(known)} (default: {said})" if said else help_of(known)).replace("%", "%%")


def table_of(word: str, rows: Mapping[str, Row], program: str) -> str:
    """The rows that a word chooses from, a line each."""
    width = max(map(len, rows))
    lines = [f"  {name:{width}s}  {row.words}" for name, row in rows.items()]
    return "\n".join([f"{word} is one of\n", *lines, f"\nFlags of one of them: {program} {word} -h"])


def word_of(name: str, default: Any, known: Option) -> str:
    shown = known.unit or name.upper()
    return shown if default is ... else f"[{shown}]"


def underscored(word: str) -> str:
    """`--latent-dims=8` → `--latent_dims=8`; anything but a flag stays as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value
