"""Words that messages and pages are made of."""

from pathlib import Path


def counted(count: int, noun: str) -> str:
    """A number and a noun: `1 epoch`, `2 epochs`, `10,000 images`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


# Characters that act on a terminal instead of being shown: control characters but tab and line feed, and those that
# turn the direction of what follows or break its line.
ACTING = {
    number: f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
    for number in (*range(9), *range(11, 32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}


def visible(text: str) -> str:
    """The same with characters that act on a terminal as escapes: `\\x1b[31mred`."""
    return text.translate(ACTING)


def ending_in_words(path: Path | str) -> str:
    """What a file name ends in: `ends in .txt`, `has no extension`."""
    ending = Path(path).suffix.lower()
    return f"ends in {ending}" if ending else "has no extension"
