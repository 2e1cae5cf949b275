"""Words that messages and pages are made of."""


def counted(count: int, noun: str) -> str:
    """A number and a noun: `1 epoch`, `2 epochs`, `10,000 images`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
