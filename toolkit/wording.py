"""Text for messages, pages and file names."""

import difflib
import os
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def counted(count: float, noun: str) -> str:
    """A number and a noun: `1 epoch`, `0.5 epochs`, `10,000 images`."""
    return f"{count:,} ".replace(".0 ", " ") + noun + ("" if count == 1 else "s")


def plain(value: object) -> str:
    """The value of an option as people type it: `2.0` → `2`."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A hint at the nearest of `words`, if one is near: ` — did you mean beta?`."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.7)
    return f" — did you mean {near[0]}?" if near else ""


# Characters that control a terminal: control characters except tab and line feed, and Unicode characters that change
# the direction of text or break lines.
ACTING = {
    number: f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
    for number in (*range(9), *range(11, 32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}


def duration(seconds: float) -> str:
    """A duration in words: `8 s`, `2:05`, `1:02:05`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def wrapped(text: str, width: int) -> str:
    """The same with long lines broken at spaces; lines that begin with `python` stay whole, to be copied."""

    def fill(line):
        further = " " * (len(line) - len(line.lstrip()) + 2)
        line = "".join(c + "\0" * (unicodedata.east_asian_width(c) in "WF") for c in line)  # these take two columns
        text = textwrap.fill(line, width, subsequent_indent=further, break_long_words=False, break_on_hyphens=False)
        return text.replace("\0", "")

    return "\n".join(line if line.lstrip().startswith("python ") else fill(line) for line in text.split("\n"))


def visible(text: str) -> str:
    """The same with control characters as escapes: `\\x1b[31mred`."""
    return text.translate(ACTING)


def ending_in_words(path: Path | str) -> str:
    """The extension of a file name in words: `ends in .txt`, `has no extension`."""
    ending = Path(path).suffix.lower()
    return f"ends in {ending}" if ending else "has no extension"


def by_value(values: dict[str, Any]) -> list[str]:
    """Values with their names, grouped by value: `32 for resnet and bounded`."""
    same = {value: [name for name, v in values.items() if v == value] for value in values.values()}
    return [f"{value} for {' and '.join(names)}" for value, names in same.items()]


def csv_text(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """The text of a .csv file."""
    return "".join(",".join(map(csv_field, row)) + "\n" for row in (head, *rows))


def csv_field(text: str) -> str:
    """A field of a .csv file, quoted if needed; Python's csv does not quote a carriage return."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set('",\r\n') else text


def as_text(name: str) -> str:
    """The name of a file as valid text: bytes that are not UTF-8 become `?`."""
    return name.encode("utf-8", "replace").decode()


USUAL = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "celeb-a": "CelebA", "synthetic": "synthetic digits"}


def public_name(dataset: str) -> str:
    """The full name of a data set without its path, for shared files: `folder:/me/pets` → `folder:pets`."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}:{as_text(Path(os.path.abspath(path)).name) or 'root'}" if colon else dataset


def shown_name(dataset: str) -> str:
    """The full name of a data set as people write it: `cifar-10` → `CIFAR-10`, `folder:/me/pets` → `pets`."""
    name = public_name(dataset).removeprefix("folder:").removesuffix(".zip")
    return USUAL.get(dataset) or name.replace("cifar-", "CIFAR-")


def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Unique names, ignoring case and avoiding those taken: a second `a.png` becomes `a-2.png`."""
    used, counts, made = set(map(as_one, taken)), Counter(), []
    for name in names:
        path, other = Path(name), name
        while as_one(other) in used:
            counts[as_one(name)] += 1
            other = str(path.with_name(f"{path.stem}-{counts[as_one(name)] + 1}{path.suffix}"))
        used.add(as_one(other))
        made.append(other)
    return made


def as_one(name: str) -> str:
    """A key equal for names that some file systems do not distinguish: `A` and `a`, composed and decomposed `ä`."""
    return unicodedata.normalize("NFC", name.casefold())


def file_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Unique names of PNG files in one folder, from names of any kind: `cats/1 x.jpg` → `cats_1 x.png`."""
    plain = (re.sub(r"[^\w.,+() -]+", "_", re.sub(r"\.\w{1,5}$", "", name)).lstrip(". ") for name in names)
    return distinct([f"{name.encode()[:100].decode(errors='ignore') or 'image'}.png" for name in plain], taken)
