"""Bars that show long pieces of work. They go to stderr, so they also show while stdout is piped into a file."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any


def bar(total: int | None, title: str, unit: str = " images", done: int = 0) -> Any:
    """A bar that counts to `total` from `done` if stderr is a terminal, and shows nothing elsewhere."""
    from tqdm import tqdm

    stream = getattr(sys.stderr, "plain", sys.stderr)  # a bar moves the cursor, which commands let nobody else do
    # The time left comes before what a narrow terminal cuts off.
    return tqdm(
        total=total,
        initial=done,
        desc=title,
        unit=unit,
        unit_scale=unit == "B",
        leave=False,
        bar_format="{desc}: {percentage:3.0f}% |{bar}| {remaining} left, {n_fmt}/{total_fmt}, {rate_fmt}{postfix}",
        dynamic_ncols=True,
        file=stream,
        disable=stream is None or not stream.isatty(),
    )


class Bars:
    """Bars for pieces of work that follow one another: in its block, `watch(work, done, total)` moves the bar of one.

    `done` may be a fraction; a bar counts whole numbers.
    """

    def __enter__(self):
        self.work, self.shown, self.done = None, None, 0.0
        return self.watch

    def watch(self, work: str, done: float, total: int) -> None:
        if work != self.work:
            self.close()
            self.work, self.shown, self.done = work, bar(total, work), 0.0
        self.done += done
        self.shown.update(int(self.done + 1e-6) - self.shown.n)

    def close(self, *_: Any) -> None:
        if self.shown is not None:
            self.shown.close()

    __exit__ = close


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """What libraries say about odd files, in C such as libtiff or in Python, goes nowhere; bars still show."""
    with os.fdopen(os.dup(2), "w") as stream, open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            with redirect_stderr(stream):
                yield
        finally:
            os.dup2(stream.fileno(), 2)
