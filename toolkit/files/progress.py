"""Progress on a terminal: a bar, or the elapsed time, once work takes longer than a second.

It goes to stderr, so it also shows while stdout goes to a file. A thread draws the innermost of the open bars, so one
appears even while a single call computes. `erase` removes it before anything else is printed.
"""

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from typing import TextIO

APPEARS, STEP = 1.0, 0.2  # seconds of work before the first bar appears, and between two drawings
# The time left comes first, because a narrow terminal cuts off the end.
COUNTING = "{desc}: {percentage:3.0f}% |{bar}| {remaining} left, {rate_fmt}{postfix}"
WAITING = "{desc} … {elapsed}{bar}"  # a bar without a total is blank

open_bars: list["Bar"] = []  # the innermost comes last
drawn: set[TextIO] = set()  # terminals whose last line is a bar
lock = threading.RLock()


class Bar:
    """Counts to `total` from `done`; without a total it shows the elapsed time."""

    def __init__(self, stream: TextIO, total: int | None, title: str, unit: str, done: int):
        self.stream, self.total, self.title, self.unit = stream, total, title, unit
        self.first = self.n = done
        self.note, self.start = "", time.monotonic()

    def update(self, count: float = 1) -> None:
        self.n += count

    def text(self, columns: int) -> str:
        """The bar as one line."""
        from tqdm import tqdm  # only when a bar is drawn, as help pages and short commands have none

        done = round(min(self.n, self.total or self.n))
        passed, ascii = time.monotonic() - self.start, "utf" not in (self.stream.encoding or "").lower()
        more = {"initial": self.first, "prefix": self.title, "postfix": self.note, "ascii": ascii}
        more |= {"unit": self.unit, "unit_scale": self.unit == "B"}
        more["bar_format"] = COUNTING if self.total else WAITING
        return tqdm.format_meter(done, self.total, passed, max(1, columns), **more)


@contextmanager
def bar(total: int | None, title: str, unit: str = " images", done: int = 0) -> Iterator[Bar]:
    """A bar for the work in its block; it shows only if stderr is a terminal."""
    stream = getattr(sys.stderr, "plain", sys.stderr)
    made = Bar(stream, total, title, unit, done)
    if not is_terminal(stream) or os.environ.get("TERM") == "dumb":
        yield made
        return
    with lock:
        open_bars.append(made)
        if len(open_bars) == 1:
            threading.Thread(target=draw, args=(made,), daemon=True).start()
    try:
        yield made
    finally:
        with lock:
            open_bars.remove(made)
            erase()


def shown(work: Sequence, title: str) -> Iterator:
    """The items of some work, one after the other, with a bar."""
    with bar(len(work), title, unit=" steps") as made:
        for item in work:
            yield item
            made.update()


def draw(outermost: Bar) -> None:
    """Draw the innermost bar that has lasted, again and again until the outermost is closed."""
    while True:
        time.sleep(STEP)
        with lock, suppress(OSError, ValueError):
            if outermost not in open_bars:
                return
            now = time.monotonic()
            lasting = [one for one in open_bars if now - one.start >= STEP]
            if lasting and now - outermost.start >= APPEARS:
                stream = lasting[-1].stream
                stream.write(f"\r{lasting[-1].text(columns(stream) - 1)}\x1b[K")
                stream.flush()
                drawn.add(stream)


def erase() -> None:
    """Clear the line of a bar, so that something else can be printed there."""
    with lock, suppress(OSError, ValueError):
        while drawn:
            stream = drawn.pop()
            stream.write("\r\x1b[K")
            stream.flush()


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def columns(stream: TextIO) -> int:
    """The width of a terminal; 80 if unknown."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Discard what libraries print about odd files, in C such as libtiff or in Python; bars still show."""
    erase()
    with os.fdopen(os.dup(2), "w") as stream, open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            with redirect_stderr(stream):
                yield
        finally:
            os.dup2(stream.fileno(), 2)
