"""The bar that shows a long piece of work, on a terminal only."""

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
