"""A model to play with: one HTML file that contains the model and runs it in the browser.

The page is assembled from the files in this folder: page.html, style.css and the scripts. They read the model from JSON
and one compressed block of arrays. Nothing is loaded from elsewhere.
"""

import base64
import html
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from toolkit import datasets
from toolkit.architectures import layers
from toolkit.errors import UserError, warn
from toolkit.formats.description import checkpoint_rows
from toolkit.model.inputs import GREY, PIXELS, resize_matrix
from toolkit.options import count, option
from toolkit.pictures.charts import colour
from toolkit.pictures.explorer import network
from toolkit.pictures.kinds.latents import plane_of
from toolkit.pictures.subject import Subject, first_of
from toolkit.wording import public_name, shown_name

FOLDER = Path(__file__).parent
SCRIPTS = ("bytes.js", "network.js", "model.js", "pictures.js", "map.js", "film.js", "page.js")
MOST_IMAGES, MOST_BYTES = 1000, 2**21  # test images in a page


@dataclass(frozen=True)
class Options:
    nsamples: int | None = option(None, "test images in the page", "pictures", kind=count, default_text="up to 1000")
    half: bool = option(False, "half-precision weights: half the file size; prints the effect", "output")


def write_page(subject: Subject, options: Any) -> str:
    """The page; without test images if no flag names a data set and the model's cannot be loaded."""
    try:
        subject.test  # noqa: B018
    except UserError as error:
        if options.dataset or options.data_dir or options.limit:
            raise
        warn(f"the page has no test images or map: {error}")
        subject.load = None
    explorer = make(Path(subject.name).stem, subject, options.nsamples, options.half)
    size = f"{len(explorer.page.encode(errors='replace')) / 1e6:.2f} MB"
    print(f"Size: {size}{', in half precision: ' + explorer.rounding if explorer.rounding else ''}")
    return explorer.page


class Explorer(NamedTuple):
    page: str
    rounding: str  # the effect of half precision in words; empty without it


def make(title: str, subject: Subject, count: int | None = None, half: bool = False) -> Explorer:
    """The page, with the first `count` test images, or none if the subject has no data."""
    model, checkpoint = subject.model, subject.checkpoint
    network.check_fit(model)
    test = None
    if subject.load:
        size = subject.test.images[:1][..., : model.config.channels].size  # by default, the page can be e-mailed
        test = first_of(subject.test, count or min(MOST_IMAGES, MOST_BYTES // size))
    dataset = public_name(checkpoint.dataset or subject.dataset)
    folded = network.fold_norms(model, half)
    encoder, decoder = layers(folded)
    row, _ = datasets.look_up(dataset)
    arrays: list[np.ndarray] = []
    about = {
        "title": title,
        "rows": [("Model", title), *checkpoint_rows(checkpoint)],
        "dataset": shown_name(dataset),
        "beta": checkpoint.options.get("beta"),
        "size": model.config.image_size,
        "channels": model.config.channels,
        "dims": model.config.latent_dims,
        "classes": checkpoint.class_names,
        "mean": model.likelihood.mean_of,
        "binary": PIXELS[model.config.binarize].binary,
        "middle": middle_of(model).tolist(),
        "drawn": {"side": row.drawn[0], "box": row.drawn[1]} if row and row.drawn else None,
        "fit": model.config.fit,
        "crop": row.crop if row else 1,
        "encoder": network.describe(encoder, arrays),
        "decoder": network.describe(decoder, arrays),
    }
    named = {}
    about["priors"] = [network.describe_prior(prior, arrays, named) for prior in checkpoint.priors]
    if about["drawn"]:
        named["resize"] = resize_matrix(about["drawn"]["side"], model.config.image_size)
    if test is not None:
        about |= describe_images(subject, test, named)
    kept = np.float16 if half else np.float32
    block, about["arrays"] = pack([array.astype(kept) for array in arrays], named)
    page = assemble(subject.title, about, block)
    return Explorer(page, network.rounding_error(model, folded, test) if half else "")


def middle_of(model: Any) -> np.ndarray:
    """The vector in the middle of the prior: a sample without noise."""
    labels = np.zeros(1, int) if model.config.decoder_classes else None
    return np.array(model.prior.sample(1, mx.random.key(0), 0.0, labels))[0]


def describe_images(subject: Subject, test: Any, named: dict[str, np.ndarray]) -> dict[str, Any]:
    """The page's facts about test images; puts their arrays into `named`."""
    pixels = test.images
    if subject.model.config.channels == 1 and pixels.shape[3] == 3:
        pixels = np.rint(pixels @ np.array(GREY)[:, None]).astype(np.uint8)
    means, _ = subject.latents
    named |= {"images": pixels, "means": means[: len(pixels)].astype(np.float32)}
    classes = () if test.labels is None else test.class_names
    if test.labels is not None:
        named["labels"] = test.labels.astype(np.uint16)
    about = {
        "names": list(classes),
        "colours": [colour(i, len(classes)) for i in range(len(classes))],
        "order": subject.order.tolist(),
        "kl": subject.kl.round(4).tolist(),
        "total": len(means),
    }
    if len(means) > 1:
        plane = plane_of(means)
        about["axes"] = plane.names
        named["places"] = plane.places[: len(pixels)].astype(np.float32)
        named["plane"] = np.vstack([plane.middle, plane.directions]).astype(np.float32)
    return about


def pack(weights: list[np.ndarray], named: dict[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """Arrays as one compressed block in base64, and a table of their places: weights by number, others by name."""
    pieces, table, start = [], {}, 0
    for name, array in [*enumerate(weights), *named.items()]:
        table[str(name)] = {"type": array.dtype.name, "shape": array.shape, "start": start}
        pieces.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
        start += len(pieces[-1])
    return base64.b64encode(zlib.compress(b"".join(pieces), 9)).decode(), table


def assemble(title: str, about: dict[str, Any], block: str) -> str:
    """The page as text. In JSON every `<` is escaped, so a name cannot end a script."""
    page = (FOLDER / "page.html").read_text()
    facts = json.dumps(about, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    for mark, text in (
        ("{title}", html.escape(title)),
        ("{style}", (FOLDER / "style.css").read_text()),
        ("{script}", "\n".join((FOLDER / name).read_text() for name in SCRIPTS)),
        ("{about}", facts),
        ("{block}", block),
    ):
        before, _, after = page.partition(f"<!--{mark}-->")
        page = before + text + after
    return page
