"""Fonts for charts: Pillow's own, and a system font for missing glyphs."""

import functools
import itertools
import unicodedata

from PIL import ImageFont

from toolkit.wording import visible

# File names of fonts with many glyphs that are part of Linux and macOS.
SYSTEM = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "FreeSans.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Helvetica.ttc"),
)
PLAIN = {"−": "-", "β": "beta", "×": "x", "—": "-"}  # replacements if no font has the glyph

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def shortened(words: str, most: int = 40) -> str:
    """Words for a picture: one line, no control characters, long text shortened in the middle."""
    words = visible(words[:10_000]).replace("\t", " ").replace("\n", " ").encode("utf-8", "replace").decode()
    return words if len(words) <= most else f"{words[: most // 2 - 1]}…{words[-most // 2 :]}"


def lettering(words: str, size: int) -> list[tuple[Font, str]]:
    """Words in pieces, each with a font that has its glyphs; missing glyphs are replaced."""

    def face_of(character):
        return next((name for name in (None, *SYSTEM) if font(name, 20) and has(name, character)), "")

    pieces = []
    for name, letters in itertools.groupby(words, face_of):
        text = "".join(letters)
        pieces.append((font(name, size), text) if name != "" else (font(None, size), "".join(map(nearest, text))))
    return pieces


@functools.cache
def font(name: str | None, size: int) -> Font | None:
    """A font of the system, or Pillow's own; None if it is not installed."""
    if name is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.cache
def has(name: str | None, character: str) -> bool:
    """Whether a font has a glyph for a character."""
    face = font(name, 20)
    return character.isspace() or bytes(face.getmask(character)) != bytes(face.getmask("\U0010ffff"))


@functools.cache
def nearest(character: str) -> str:
    """The closest character in Pillow's own font: without accent, in lower case, or a question mark."""
    plain = PLAIN.get(character, character)
    for choice in (plain, unicodedata.normalize("NFKD", plain)[:1], plain.casefold()):
        if all(has(None, letter) for letter in choice):
            return choice
    return "?"
