"""Bars that show long pieces of work, on a terminal only."""

import sys


def bar(total, title, unit=" images"):
    """A bar that counts to `total` on a terminal, and keeps quiet elsewhere."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        unit_scale=unit == "B",
        leave=False,
        dynamic_ncols=True,
        disable=not (sys.stdout.isatty() and sys.stderr.isatty()),
    )


class Bars:
    """Bars for works that follow one another: in its block, `watch(work, done, total)` moves the bar of a work."""

    def __enter__(self):
        self.work, self.shown = None, None
        return self.watch

    def watch(self, work, done, total):
        if work != self.work:
            self.close()
            self.work, self.shown = work, bar(total, work)
        self.shown.update(done)

    def close(self):
        if self.shown is not None:
            self.shown.close()

    def __exit__(self, *_):
        self.close()
