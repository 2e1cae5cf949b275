"""python docs/tables.py

Regenerate the flag tables in these pages, between the lines `<!-- flags of train.py -->` and `<!-- end -->`. Tables and
flags come from the same dataclasses; a test compares them.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from toolkit.options import GROUPS, Option, default_text_of, flag_of, help_of, options_of  # noqa: E402
from toolkit.shell.parser import selectors, way_of  # noqa: E402

MARKED = re.compile(r"(<!-- (flags|earlier flags) of (\w+)\.py -->\n).*?(<!-- end -->)", re.S)


def table(command: str) -> str:
    """The flags of a command by group: name, default, meaning; below them those that only some rows of a table have."""
    declared = importlib.import_module(command).options()
    options = [option for part in declared for option in options_of(part)]
    sections = {group: [option for option in options if option[2].group == group] for group in GROUPS}
    rows_of: dict = {}
    for name, _, known in selectors(declared):
        for row in known.rows().values():
            for option in options_of(row.Options) if row.Options else ():
                rows_of.setdefault(option, []).append(f"`{way_of(name, known, row.name)}`")
    for option, ways in rows_of.items():
        sections.setdefault(", ".join(ways), []).append(option)
    named = {name: known for name, _, known in [*options, *rows_of]}
    lines = ["| flag | default | |", "|---|---|---|"]
    for title, members in sections.items():
        shown = [row_of(*option, named | {option[0]: option[2]}) for option in members if not option[2].hidden]
        lines += [f"| **{title}** | | |", *shown] if shown else []
    return "\n".join(lines) + "\n"


def row_of(name: str, default: Any, known: Option, named: dict[str, Option]) -> str:
    return f"| `{flag_of(name, known)}` | {default_text_of(default, known)} | {help_of(name, named)} |"


def earlier_table(command: str) -> str:
    """The spellings of earlier systems that a command takes, and what each means today."""
    lines = ["| flag | means |", "|---|---|"]
    declared = importlib.import_module(command).options()
    rows = (row.Options for _, _, known in selectors(declared) for row in known.rows().values() if row.Options)
    options = {option: None for part in (*declared, *rows) for option in options_of(part)}  # each once
    named = {name: known for name, _, known in options}
    for name, _, known in options:
        lines += [f"| `--{spelling}` | `--{name}` |" for spelling in known.aliases]
        if known.hidden:
            meaning = re.sub("--[a-z_]+", lambda flag: f"`{flag[0]}`", help_of(name, named))
            lines.append(f"| `--{name}` | {meaning} |")
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
