"""python docs/tables.py

Write the tables of flags into these pages, between the lines `<!-- flags of train.py -->` and `<!-- end -->`. They are
made of the same dataclasses as the flags; a test compares.
"""

import importlib
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from toolkit.options import GROUPS, Row, default_text_of, flag_of, help_of, options_of  # noqa: E402
from toolkit.shell.parser import selectors  # noqa: E402

MARKED = re.compile(r"(<!-- (flags|earlier flags) of (\w+)\.py -->\n).*?(<!-- end -->)", re.S)


def table(command: str) -> str:
    """The flags of a command by group: name, default, meaning."""
    declared = importlib.import_module(command).options()
    options = [option for part in declared for option in options_of(part)]
    ways: dict[str, str] = {}
    for row in rows_of(declared):
        own = [option for option in options_of(row.Options) if option not in options] if row.Options else []
        options += own
        ways |= {name: f"{row.name}: " for name, _, _ in own}
    named = {name: known for name, _, known in options}
    lines = ["| flag | default | |", "|---|---|---|"]
    for group in GROUPS:
        members = [option for option in options if option[2].group == group and not option[2].hidden]
        if members:
            lines.append(f"| **{group}** | | |")
        for name, default, known in members:
            meaning = ways.get(name, "") + help_of(name, named)
            lines.append(f"| `{flag_of(name, known)}` | {default_text_of(default, known)} | {meaning} |")
    return "\n".join(lines) + "\n"


def rows_of(declared: tuple[type, ...]) -> list[Row]:
    """All rows that options choose."""
    return [row for _, _, known in selectors(declared) for row in known.rows().values()]


def earlier_table(command: str) -> str:
    """The spellings of earlier systems that a command takes, and what each means today."""
    lines = ["| flag | means |", "|---|---|"]
    declared = importlib.import_module(command).options()
    for part in dict.fromkeys([*declared, *(row.Options for row in rows_of(declared) if row.Options)]):
        for name, _, known in options_of(part):
            lines += [f"| `--{spelling}` | `--{name}` |" for spelling in known.aliases]
            if known.hidden:
                lines.append(f"| `--{name}` | {re.sub('--[a-z_]+', lambda flag: f'`{flag[0]}`', known.help)} |")
    return "\n".join(lines) + "\n"


def filled(page: str) -> str:
    """The text of a page with its tables made anew."""
    makers = {"flags": table, "earlier flags": earlier_table}
    return MARKED.sub(lambda found: found[1] + makers[found[2]](found[3]) + found[4], page)


def main() -> None:
    for path in sorted(DOCS.glob("*.md")):
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
