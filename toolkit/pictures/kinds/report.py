"""All pictures and metrics of a model in one HTML page that needs nothing else: images inside, no scripts.

The explorer, a page of scripts, is included in a frame.
"""

import base64
import html
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.formats.description import checkpoint_rows, model_rows
from toolkit.metrics.measure import measure
from toolkit.metrics.words import rows
from toolkit.model.inference import CHUNK
from toolkit.options import option, sample_count
from toolkit.pictures import explorer
from toolkit.pictures.card import command_of
from toolkit.pictures.images import png
from toolkit.pictures.kinds import comparison, curves, interpolate, latents, manifold, samples, traversal
from toolkit.pictures.subject import Subject
from toolkit.wording import counted, shown_name

LARGEST_FRAME = 6_000_000  # bytes

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0.2rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
p.about { color: #555; margin-top: 0; } figure { margin: 0; } figcaption { color: #555; font-size: 0.9rem; }
img { max-width: 100%; height: auto; display: block; margin: 0.5rem 0; }
table { border-collapse: collapse; width: 100%; } td { padding: 0.25rem 0.8rem 0.25rem 0; border-top: 1px solid #ddd; }
th { font-weight: 600; padding: 0.25rem 0; border-top: 1px solid #ddd; text-align: left; }
th[scope="col"] { border: 0; text-align: right; } td.value:last-child { padding-right: 0; }
table.run { overflow-wrap: anywhere; }
table.run td:first-child { white-space: nowrap; color: #555; vertical-align: top; }
pre { background: #f5f5f3; padding: 0.7rem 0.9rem; border-radius: 8px; white-space: pre-wrap; overflow-wrap: anywhere; }
iframe { width: 100%; height: 46rem; border: 1px solid #ddd; border-radius: 8px; margin-top: 0.6rem; }
summary { cursor: pointer; }
td.value { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } td.meaning { color: #555; }
@media print { .explorer { display: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
@media (max-width: 40rem) {
  iframe { height: 90vh; }
  tr { display: grid; grid-template-columns: 1fr auto; border-top: 1px solid #ddd; padding: 0.25rem 0; }
  table.run tr { grid-template-columns: 1fr; }
  td { border: 0; padding: 0; } td.meaning { grid-column: 1 / -1; font-size: 0.9rem; }
}
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="mlx-vae page">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="about">{about}</p>
{body}
</body>
</html>
"""


@dataclass(frozen=True)
class Options(traversal.ImageOptions):
    importance_samples: int = option(20, "samples per image for log p(x)", "sampling", kind=sample_count)


def write_page(subject: Subject, options: Options) -> str:
    if options.image is not None:
        subject.image(options.image)  # an invalid one fails here, not at the end
    test, train = subject.test, None if subject.test.labels is None else subject.load("train")
    metrics = measure(subject.model, test, train, options.importance_samples, subject.sampler.seed, CHUNK)
    sections = [("Metrics", table(metrics))]
    sections += [*pictures(subject, options.image), *playground(subject), training(subject)]
    return page_of(f"VAE of {subject.title}", description(subject), sections)


def page_of(title: str, about: str, sections: Sequence[tuple[str, str]]) -> str:
    """A page with sections, which have a title and HTML."""
    body = "\n".join(f"<h2>{html.escape(name)}</h2>\n{content}" for name, content in sections)
    return PAGE.format(title=html.escape(title), style=STYLE, about=html.escape(about), body=body)


def figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{html.escape(caption)}</figcaption></figure>"


def image(picture: Any, words: str) -> str:
    source = "data:image/png;base64," + base64.b64encode(png(picture)).decode()
    return f'<img src="{source}" alt="{html.escape(words)}">'


def rows_of(table: Sequence[Sequence[str]]) -> str:
    """A table of texts with a head row and a head column."""
    head, *rows = [[html.escape(cell) for cell in row] for row in table]
    lines = ["".join(f'<th scope="col">{cell}</th>' for cell in head)]
    for first, *others in rows:
        lines.append(f'<th scope="row">{first}</th>' + "".join(f'<td class="value">{cell}</td>' for cell in others))
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def description(subject: Subject) -> str:
    """A paragraph about the model, its training and this report."""
    parts = "; ".join(f"{title.lower()}: {words}" for title, words in model_rows(subject.model))
    trained = shown_name(subject.checkpoint.dataset or subject.dataset)
    if subject.checkpoint.epoch is not None:
        trained += f" for {counted(subject.checkpoint.epoch, 'epoch')}"
    made = f"Made on {date.today().isoformat()} on {subject.device}."
    return f"{subject.name}: trained on {trained}, shown on {shown_name(subject.dataset)}; {parts}. {made}"


def table(metrics: dict[str, Any]) -> str:
    """The metrics of evaluate.py as a table."""
    lines = [
        f'<tr><td>{html.escape(name)}</td><td class="value">{html.escape(value)}</td>'
        f'<td class="meaning">{html.escape(meaning)}</td></tr>'
        for name, value, meaning in rows(metrics)
    ]
    return f"<p>On {counted(metrics['images'], 'test image')}.</p>\n<table>\n" + "\n".join(lines) + "\n</table>"


def training(subject: Subject) -> tuple[str, str]:
    """The training: the command, and the model's metadata."""
    line = command_of(subject.checkpoint)
    rows = ((html.escape(title), html.escape(words)) for title, words in checkpoint_rows(subject.checkpoint))
    cells = [f"<tr><td>{title}</td><td>{words}</td></tr>" for title, words in rows]
    typed = f"<p>Command that trained this model:</p>\n<pre>{html.escape(line)}</pre>\n" if line else ""
    return "How it was trained", f'{typed}<table class="run">\n' + "\n".join(cells) + "\n</table>"


def playground(subject: Subject) -> Iterator[tuple[str, str]]:
    """The explorer in a collapsed frame; empty for models that would make the report too large to e-mail."""
    with suppress(UserError):
        page = explorer.make(Path(subject.name).stem, subject).page
        if len(page) <= LARGEST_FRAME:
            frame = f'<iframe title="Explorer" loading="lazy" srcdoc="{html.escape(page)}"></iframe>'
            opened = "<summary>Explore the model in your browser</summary>"
            yield "Explorer", f'<details class="explorer">{opened}{frame}</details>'


def pictures(subject: Subject, which: int | str | None) -> Iterator[tuple[str, str]]:
    """All pictures of a model, its data and its run, with captions."""
    kinds = {
        samples: samples.Options(nsamples=96),
        comparison: comparison.Options(nsamples=16),
        traversal: traversal.Options(image=which),
        interpolate: interpolate.Options(),
        latents: None,
        manifold: manifold.Options(rows=14),
        curves: None,
    }
    for kind, options in kinds.items():
        with suppress(UserError):  # with too few images or dimensions, or a broken log, only that picture is left out
            shown = kind.draw(subject.runs if kind is curves else subject, options)
            caption = subject.caption(kind.CAPTION, which if kind is traversal else None)
            yield kind.TITLE, figure(image(shown, kind.TITLE), caption)
