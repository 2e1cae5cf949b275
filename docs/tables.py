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

from toolkit.options import GROUPS, choices_of, default_text_of, help_of, options_of  # noqa: E402

MARKED = re.compile(r"(<!-- (flags|earlier flags) of (\w+)\.py -->\n).*?(<!-- end -->)", re.S)


def table(command: str) -> str:
    """The flags of a command by group: name, default, meaning."""
    options = [option for declared in importlib.import_module(command).options() for option in options_of(declared)]
    lines = ["| flag | default | |", "|---|---|---|"]
    for group in GROUPS:
        members = [option for option in options if option[2].group == group and not option[2].hidden]
        if members:
            lines.append(f"| **{group}** | | |")
        for name, default, known in members:
            flag = f"`{known.unit or name.upper()}`" if known.positional else f"`--{name}`"
            meaning = help_of(known)
            if any(f"{choice}:" not in meaning for choice in choices_of(known)):
                meaning += f" ({', '.join(f'`{choice}`' for choice in choices_of(known))})"
            lines.append(f"| {flag} | {default_text_of(default, known)} | {meaning} |")
    return "\n".join(lines) + "\n"


def earlier_table(command: str) -> str:
    """The spellings of earlier systems that a command takes, and what each means today."""
    lines = ["| flag | means |", "|---|---|"]
    for declared in importlib.import_module(command).options():
        for name, _, known in options_of(declared):
            lines += [f"| `--{spelling}` | `--{name}` |" for spelling in known.aliases]
            if known.hidden:
                lines.append(f"| `--{name}` | {re.sub('--[a-z_]+', lambda flag: f'`{flag[0]}`', help_of(known))} |")
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
