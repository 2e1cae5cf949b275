"""The letters of charts: Pillow's own font, and where it lacks a letter one of the system's."""

import functools
import unicodedata

from PIL import ImageFont

# Fonts with many letters that Linux and macOS come with, by the names of their files.
SYSTEM = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "FreeSans.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Helvetica.ttc"),
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def lettering(words: str, size: int) -> tuple[Font, str]:
    """A font that has all letters of the words, and the words; without one, with other letters for those it lacks."""
    for name in (None, *SYSTEM):
        face = font(name, 20)
        if face is not None and all(has(name, character) for character in words):
            return font(name, size), words
    return font(None, size), "".join(nearest(character) for character in words)


@functools.cache
def font(name: str | None, size: int) -> Font | None:
    """A font of the system, or Pillow's own; None where it is not installed."""
    if name is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.cache
def has(name: str | None, character: str) -> bool:
    """Whether a font has a glyph of its own for a character."""
    face = font(name, 20)
    return character.isspace() or bytes(face.getmask(character)) != bytes(face.getmask("\U0010ffff"))


@functools.cache
def nearest(character: str) -> str:
    """The character of Pillow's own font that comes nearest: without its accent, in lower case, or a question mark."""
    for choice in (character, unicodedata.normalize("NFKD", character)[:1], character.casefold()):
        if all(has(None, letter) for letter in choice):
            return choice
    return "?"
