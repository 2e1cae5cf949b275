"""Flags made from dataclasses: every field that is an option (toolkit/options.py) is a flag.

Flags are spelled with underscores and work with hyphens too. Only typed values are kept, so that the dataclasses alone
hold the defaults. `-h` shows the most used flags, `--help-all` all but the spellings of earlier systems.
"""

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import toolkit
from toolkit.errors import UserError
from toolkit.options import GROUPS, Option, Row, default_text_of, flag_of, help_of, options_of, read_value, unit_of
from toolkit.wording import did_you_mean

T = TypeVar("T")
Declared = tuple[type, ...]  # the dataclasses of a command's options
Field = tuple[str, Any, Option]  # name, default, declaration

HELP_ALL = "--help-all"
HELP = {"-h", "--help", HELP_ALL, "--version"}
WIDTH, COLUMN = 80, 22  # of a help page, and of the flags in it

OUTPUTS = ("outfile", "outdir", "json")
MEANT = {  # wrong flags, and the options they may mean: the first that the command has is suggested
    **{name[0]: (name,) for name in ("model", "nsamples", "epochs", "dataset", "batchsize", "seed", "label")},
    **{"i": ("images", "image"), "z": ("latent_dims",), "o": OUTPUTS, "output": OUTPUTS, "device": ("cpu",)},
}
NAMED = {  # what a word without a flag probably names, the option for it, and the endings of such words
    ("the output", "outfile"): (".png", ".gif", ".html", ".csv"),
    ("pictures", "images"): (".png", ".gif", ".jpg", ".jpeg", ".webp", ".heic"),
    ("the output", "json"): (".json",),
    ("the model", "model"): ("", ".npz", ".safetensors", ".pth"),
}
ARGPARSE = {  # messages of argparse, and ours
    r"^argument ([^:]+): ": r"\1 ",
    r"expected (at least )?one argument": "needs a value",
    r"ignored explicit argument .*": "takes no value",
    r"^the following arguments are required: (.*)": r"missing: \1",
}


@dataclass(frozen=True)
class Typed:
    """The values of the flags that a person typed, by the names of the options."""

    values: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)  # replace those of the options
    program: str = ""  # what starts the command: `python train.py`
    options: Mapping[str, Option] = field(default_factory=dict)

    def of(self, declared: type[T]) -> T:
        """A dataclass of options: typed values, and defaults for the rest."""
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
    """Parse flags; `document` is the docstring of a command: examples, one per line, and below them what it does.

    `given` are values from a file, checked like typed values, which override them; `defaults` replace those of options;
    `translate` turns flags of earlier systems into today's. Options that choose a row of a table are read first, as a
    row may have flags of its own.
    """
    words, given, defaults = words_of(argv), dict(given or {}), dict(defaults or {})
    if HELP & set(words) or not (words or all(default is not ... for _, default, _ in selectors(declared))):
        print(help_page(document, words, declared))
        raise SystemExit(0)
    parts = (*declared, *(row.Options for row in chosen(words, declared, defaults | given).values()))
    parser = Parser(program_of(document), fields_of(parts), owners(declared))
    typed = parser.parse(words)
    values = translate(given | typed)
    for name in sorted(values.keys() - parser.options.keys()):
        parser.refuse(f"--{name}")
    check_conditions(values, values.keys() | defaults.keys(), parser.options)
    return Typed(values, defaults, parser.prog, parser.options)


def program_of(document: str) -> str:
    """How a command is started: `python train.py`."""
    return " ".join(document.split()[:2])


def fields_of(parts: Collection[type | None]) -> list[Field]:
    """All options of these dataclasses."""
    return [option for part in parts if part for option in options_of(part)]


def words_of(argv: list[str] | None) -> list[str]:
    """The command line as words, flags with underscores."""
    return [underscored(word) for word in (sys.argv[1:] if argv is None else map(str, argv))]


def typed_value(words: list[str], *spellings: str) -> str | None:
    """The last value of a flag, before parsing: `--lr 0.1` or `--lr=0.1`."""
    flags, value = [f"--{spelling}" for spelling in spellings], None
    for before, word in zip(["", *words], words, strict=False):
        flag, _, after = word.partition("=")
        value = (after or value) if flag in flags else word if before in flags else value
    return value


def chosen(words: list[str], declared: Declared, others: dict[str, Any] | None = None) -> dict[str, Row]:
    """The rows that the command line selects: `--arch resnet` → its row. With `others`, also rows selected by those
    values or by defaults."""
    found, options = {}, [*fields_of(declared), *(option for _, option in row_options(declared))]
    no_flags = {"", "--help", *(f"--{name}" for name, _, known in options if not known.kind)}  # no value follows them
    for name, default, known in selectors(declared):
        rows, value = known.rows(), typed_value(words, name, *known.aliases)
        if known.positional:
            pairs = zip(["", *words], words, strict=False)
            places = (word for before, word in pairs if before in no_flags or "=" in before or before[:2] != "--")
            value = next((word for word in places if word in rows), None)
        if value is None and others is not None:
            value = others.get(name, default)
        if isinstance(value, str) and value in rows:
            found[way_of(name, known, value)] = rows[value]
    return found


def selectors(declared: Declared) -> list[Field]:
    """The options that select a row of a table."""
    return [option for option in fields_of(declared) if option[2].rows]


def way_of(name: str, known: Option, row: str) -> str:
    """The words that select a row."""
    return row if known.positional else f"--{name} {row}"


def row_options(declared: Declared) -> list[tuple[str, Field]]:
    """The options that only rows of tables have, each with what selects its row: `--arch resnet`."""
    rows = [
        (way_of(name, known, row.name), row) for name, _, known in selectors(declared) for row in known.rows().values()
    ]
    return [(way, option) for way, row in rows for option in fields_of([row.Options])]


def owners(declared: Declared) -> dict[str, str]:
    """The flags of single rows, and what selects each: `--depth` → `--arch resnet`."""
    found: dict[str, list[str]] = {}
    for way, (name, _, known) in row_options(declared):
        for spelling in (name, *known.aliases):
            found.setdefault(f"--{spelling}", []).append(way)
    return {flag: " or ".join(filter(None, [", ".join(ways[:-1]), ways[-1]])) for flag, ways in found.items()}


def check_conditions(values: Mapping[str, Any], present: Collection[str], options: Mapping[str, Option]) -> None:
    """Raise UserError if an option has no effect because of others, or without another; `present` are all options with
    values, from any source."""
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
    """Raise UserError for typed options that have no effect with another option's value."""
    for name in names:
        if name in typed:
            raise UserError(f"--{name} has no effect with {on} — leave it out")


class Parser(argparse.ArgumentParser):
    """An argument parser for options, which fails in one line."""

    def __init__(self, program: str, options: list[Field], owners: Mapping[str, str]):
        super().__init__(prog=program, argument_default=argparse.SUPPRESS, allow_abbrev=False, add_help=False)
        self.options, self.owners = {name: known for name, _, known in options}, owners
        for option in options:
            self.add(*option)

    def add(self, name: str, default: Any, known: Option) -> None:
        """Add the flag of an option, and its earlier spellings."""
        about: dict[str, Any] = {"action": "store_true"}
        if known.kind:
            about = {"type": self.reader(known), "metavar": unit_of(name, known)}
            about |= {"nargs": "+"} if known.several else {"nargs": "?", "const": known.bare} if known.bare else {}
        if known.positional:
            about |= {} if default is ... else {"nargs": "*" if known.several else "?"}
            self.add_argument(name, **about)
        for spelling in (*([] if known.positional else [name]), *known.aliases):
            self.add_argument(f"--{spelling}", dest=name, **about)

    def reader(self, known: Option) -> Callable[[str], Any]:
        """The function that argparse calls with the text of a value."""

        def read(text: str) -> Any:
            try:
                return read_value(known, text)
            except ValueError as error:
                hint = self.hint_at_name(text) if known.positional and known.rows and "." in text else ""
                raise argparse.ArgumentTypeError(f"is missing{hint}" if hint else str(error)) from None

        return read

    def parse(self, words: list[str]) -> dict[str, Any]:
        """The typed values, by the names of the options."""
        for flag in (word.split("=")[0] for word in words):
            if flag in self.owners and flag not in self._option_string_actions:
                self.refuse(flag)
        found, unknown = self.parse_known_args(words)
        if unknown:
            flag, _, value = unknown[0].partition("=")
            self.refuse(flag, value or dict(zip(words, words[1:], strict=False)).get(flag, ""))
        return {name: value for name, value in vars(found).items() if value is not None}

    def refuse(self, flag: str, value: str = "") -> None:
        """Raise UserError for an unknown flag, or one of a row that was not selected."""
        if owner := self.owners.get(flag):
            self.error(f"{flag} is an option of {owner} — leave it out, or add {owner}")
        hint = self.hint_at_flag(flag, value) if flag[:1] == "-" else self.hint_at_name(flag)
        self.error(f"{flag} is not a flag{hint}")

    def hint_at_flag(self, flag: str, value: str) -> str:
        """The flag that a wrong one probably means."""
        name, flags = flag.lstrip("-"), [f"--{name}" for name, known in self.options.items() if not known.hidden]
        if name == "device" and "cpu" in self.options and value != "cpu":
            return " — leave it out: a GPU is used if there is one"
        meant = [
            f"--{other}"
            for other in MEANT.get(name, (name,))
            if other in self.options and not self.options[other].positional
        ]
        return f" — did you mean {meant[0]}?" if meant else did_you_mean(flag, flags)

    def hint_at_name(self, word: str) -> str:
        """What a word without a flag probably names."""
        ending = os.path.splitext(word)[1].lower()
        for (what, name), endings in NAMED.items():
            if ending in endings and name in self.options and not word.isdecimal():
                return f" — for {what}, use --{name} {word}"
        return ""

    def error(self, message: str) -> None:
        for pattern, words in ARGPARSE.items():
            message = re.sub(pattern, words, message)
        raise UserError(message + ("" if "—" in message else f" — see {self.prog} {HELP_ALL}"))


# Help


def help_page(document: str, words: list[str], declared: Declared) -> str:
    """The output of `-h`, `--help-all` and `--version`; if a row with options is selected, only these."""
    program, shared = program_of(document), fields_of(declared)
    if "--version" in words:
        return toolkit.__version__
    for way, row in chosen(words, declared).items():
        if row.Options:
            about = f"{row.words}\n\nShared flags: {program} -h"
            places = [word_of(*each) for each in options_of(row.Options) if each[2].positional]
            return page(" ".join([program, way, *places]), about, sections((row.Options,)), GENERAL)
    examples, _, about = document.strip().partition("\n\n")
    positional = {word_of(*each): each[2].rows for each in shared if each[2].positional}
    tables = [table_of(word, rows(), program) for word, rows in positional.items() if rows]
    about = "\n\n".join(filter(None, [about.strip(), *tables, textwrap.indent(examples, "  ")]))
    usage = " ".join([program, *positional])
    usual = fields_of((*declared, *(row.Options for row in chosen([], declared, {}).values())))
    common = [each for each in usual if each[2].common]
    common.sort(key=lambda each: (each[1] is not ..., GROUPS.index(each[2].group)))
    if common and HELP_ALL not in words:
        return page(usage, about, {("most used flags",): common}, f"all flags: {program} {HELP_ALL}", brief=True)
    earlier = "\n\nearlier flags: docs/compatibility.md"
    earlier *= any(known.hidden or known.aliases for _, _, known in shared)
    return page(usage, about, sections(declared), GENERAL) + earlier


GENERAL = f"""\
help:
  -h, --help          show the most used flags
  {HELP_ALL}          show all flags
  --version           print the version"""


def sections(declared: Declared) -> dict[tuple[str, ...], list[Field]]:
    """The options of a command by group, then the options of single rows by what selects them."""
    found = {(group,): [option for option in fields_of(declared) if option[2].group == group] for group in GROUPS}
    ways: dict[Field, list[str]] = {}
    for way, option in row_options(declared):
        ways.setdefault(option, []).append(way)
    for option, of in ways.items():
        found.setdefault(tuple(of), []).append(option)
    return {titles: members for titles, members in found.items() if members}


def page(usage: str, about: str, titled: dict[tuple[str, ...], list[Field]], end: str, brief: bool = False) -> str:
    """A page of help: options under titles; `brief` omits how they depend on each other."""
    options = {name: known for members in titled.values() for name, _, known in members}
    lines = [f"usage: {usage} [options]", "", about, ""]
    for titles, members in titled.items():
        lines += textwrap.wrap(", ".join(titles), WIDTH, break_on_hyphens=False)
        lines[-1] += ":"
        for name, default, known in members:
            if not known.hidden:
                lines += entry(name, default, known, options | {name: known}, brief)
    return "\n".join([*lines, *([""] if brief else []), end])


def entry(name: str, default: Any, known: Option, options: Mapping[str, Option], brief: bool) -> list[str]:
    """The lines of an option: its flag and help."""
    flag, unit = flag_of(name, known), unit_of(name, known) if known.kind else ""
    left = "  " + (flag if known.positional else f"{flag} {unit}".strip()) + (" …" if known.several else "")
    said, about = default_text_of(default, known), help_of(name, options, brief)
    text = f"{about} (default: {said})" if said else about
    right = [" " * COLUMN + line for line in textwrap.wrap(text, WIDTH - COLUMN, break_on_hyphens=False)]
    return [left, *right] if len(left) > COLUMN - 2 else [left + right[0][len(left) :], *right[1:]]


def table_of(word: str, rows: Mapping[str, Row], program: str) -> str:
    """The rows of a table, one per line."""
    width = max(map(len, rows))
    lines = [f"  {name:{width}s}  {row.words}" for name, row in rows.items()]
    return "\n".join([f"{word} is one of", *lines, f"Flags of one {word}: {program} {word} -h"])


def word_of(name: str, default: Any, known: Option) -> str:
    shown = unit_of(name, known) + (" …" if known.several else "")
    return shown if default is ... else f"[{shown}]"


def underscored(word: str) -> str:
    """`--latent-dims=8` → `--latent_dims=8`; other words and --help-all are unchanged."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    flag = "--" + name.replace("-", "_") + equals + value
    return HELP_ALL if flag == HELP_ALL.replace("-a", "_a") else flag
