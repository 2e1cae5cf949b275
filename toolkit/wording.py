"""Words that messages and pages are made of."""

from pathlib import Path


def counted(count: int, noun: str) -> str:
    """A number and a noun: `1 epoch`, `2 epochs`, `10,000 images`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def ending_in_words(path: Path | str) -> str:
    """What a file name ends in: `ends in .txt`, `has no extension`."""
    ending = Path(path).suffix.lower()
    return f"ends in {ending}" if ending else "has no extension"
