"""All pictures and figures of a model in one HTML page that needs nothing else: images inside, no scripts."""

import base64
import html
import io
from datetime import date

import numpy as np
from PIL import Image

import cli
import evaluate
import evaluation
import visualization
from progress import Bars

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0.2rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
p.about { color: #555; margin-top: 0; } figure { margin: 0; } figcaption { color: #555; font-size: 0.9rem; }
img { max-width: 100%; height: auto; display: block; margin: 0.5rem 0; }
table { border-collapse: collapse; width: 100%; } td { padding: 0.25rem 0.8rem 0.25rem 0; border-top: 1px solid #ddd; }
td.value { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } td.meaning { color: #555; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>{style}</style>
</head>
<body>
<h1>{name}</h1>
<p class="about">{about}</p>
{body}
</body>
</html>
"""


def make(subject, args, dataset, device_name, log):
    """The page as text."""
    sections = [("Figures", table(subject, args))]
    for title, caption, picture in pictures(subject, args, log):
        words = html.escape(title)
        sections.append((title, f'<figure><img src="{inlined(picture)}" alt="{words}">{caption_of(caption)}</figure>'))
    body = "\n".join(f"<h2>{html.escape(title)}</h2>\n{content}" for title, content in sections)
    name = html.escape(str(args.model))
    about = html.escape(description(subject, dataset, device_name))
    return PAGE.format(name=name, style=STYLE, about=about, body=body)


def description(subject, dataset, device_name):
    config, facts = subject.model.config, subject.facts
    kinds = {"conv": "convolutional", "transpose": "convolutional, transposed decoder", "mlp": "fully connected"}
    parts = [
        f"{kinds[config.arch]} variational autoencoder of {subject.model.parameter_count():,} parameters",
        f"{config.latent_dims} latent dimensions",
        f"{config.image_size}×{config.image_size} pixels" + (", coloured" if config.channels == 3 else ""),
        f"trained on {facts.get('dataset', dataset)}" + (f" for {facts['epoch']} epochs" if "epoch" in facts else ""),
        f"shown on {dataset}",
    ]
    if config.classes:
        parts.insert(1, f"conditional on {config.classes} classes")
    text = "; ".join(parts) + f". Made on {date.today().isoformat()} on {device_name}."
    return text[0].upper() + text[1:]


def table(subject, args):
    """The figures of evaluate.py as a table."""
    config = subject.model.config
    train = None if subject.test.labels is None else subject.load("train")
    with Bars() as watch:
        figures = evaluation.evaluate(
            subject.model, subject.test, train, args.importance_samples, args.seed, 250, watch
        )
    lines = [
        f'<tr><td>{html.escape(name)}</td><td class="value">{html.escape(value)}</td>'
        f'<td class="meaning">{html.escape(meaning)}</td></tr>'
        for name, value, meaning in evaluate.rows(figures)
    ]
    note = f"On {figures['images']} test images of {config.image_size}×{config.image_size} pixels."
    return f"<p>{note}</p>\n<table>\n" + "\n".join(lines) + "\n</table>"


def pictures(subject, args, log):
    """Title, caption and bytes of every picture that this model has."""
    yield "Samples", "Codes drawn from the prior, decoded.", visualization.samples(subject, 96)
    caption = "Test images, their reconstructions from the mean code, and what differs (white is no difference)."
    yield "Reconstructions", caption, visualization.reconstructions(subject, 16)
    base = "the middle of the prior" if args.image is None else f"the code of test image {args.image}"
    caption = f"Each row changes one dimension from −3 to 3, most used first, the others are those of {base}."
    yield "Latent dimensions", caption, visualization.traversal_page(subject, args.image)
    caption = "From one test image to another, straight and along the sphere."
    yield "Interpolation", caption, visualization.interpolate_page(subject)
    caption = "Mean codes of the test images; circles are one, two and three standard deviations of the prior."
    yield "Codes", caption, visualization.latents(subject)
    if subject.model.config.latent_dims > 1:
        caption = "The plane of the two most used dimensions, in equal shares of the prior."
        yield "Manifold", caption, visualization.manifold(subject, 14)
    if log is not None:
        try:
            drawn = visualization.curves([log])
        except cli.UserError:
            return  # a broken log costs the report its curves only
        yield "Training", "Figures of every epoch.", drawn


def caption_of(words):
    return f"<figcaption>{html.escape(words)}</figcaption>"


def inlined(image):
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    picture = np.asarray(image)
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
