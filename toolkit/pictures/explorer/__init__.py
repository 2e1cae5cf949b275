"""A model that anybody can play with: one HTML file with the model in it, which the browser runs.

The page itself is the files beside this one, put together as they are: page.html, style.css, and the scripts. What they
are told of the model is JSON and one compressed block of arrays. Nothing is loaded from elsewhere.
"""

import base64
import html
import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from toolkit import datasets
from toolkit.architectures import layers
from toolkit.errors import UserError
from toolkit.formats.description import checkpoint_rows
from toolkit.model.inputs import GREY, PIXELS, resize_matrix
from toolkit.options import count, option
from toolkit.pictures.charts import colour
from toolkit.pictures.explorer import network
from toolkit.pictures.kinds.latents import plane_of
from toolkit.pictures.subject import Subject

FOLDER = Path(__file__).parent
SCRIPTS = ("bytes.js", "network.js", "model.js", "pictures.js", "map.js", "film.js", "page.js")
MOST_IMAGES, MOST_BYTES = 1000, 2**21  # test images in a page


@dataclass(frozen=True)
class Options:
    nsamples: int | None = option(
        None, "test images in the page", "pictures", kind=count, unit="N", default_text="up to 1000"
    )
    half: bool = option(False, "weights in half precision, for half the size; prints what that changes", "output")


def write_page(subject: Subject, options: Any) -> str:
    """The page; it has no test images if the data set cannot be loaded and no flag named it."""
    try:
        subject.test  # noqa: B018
    except UserError as error:
        if options.dataset or options.data_dir or options.limit:
            raise
        print(f"Warning: the page has no test images and no map: {error}", file=sys.stderr)
        subject.load = None
    made = make(Path(subject.name).stem, subject, options.nsamples, options.half)
    size = f"{len(made.page.encode(errors='replace')) / 1e6:.2f} MB"
    print(f"Size: {size}{', in half precision: ' + made.rounding if made.rounding else ''}")
    return made.page


class Explorer(NamedTuple):
    page: str
    rounding: str  # what half precision changes, in words; empty without it


def make(title: str, subject: Subject, count: int | None = None, half: bool = False) -> Explorer:
    """The page; with the first `count` test images, or without any if the subject has no data."""
    model, checkpoint = subject.model, subject.checkpoint
    network.check_fit(model)
    test = None if subject.load is None else first_images(subject.test, model.config.channels, count)
    name = datasets.public_name(checkpoint.dataset or subject.dataset)  # of what it was trained on
    shown = network.folded(model, half)
    encoder, decoder = layers(shown)
    arrays: list[np.ndarray] = []
    about = {
        "title": title,
        "rows": [("Model", title), *checkpoint_rows(checkpoint)],
        "dataset": name.removeprefix("folder:"),
        "size": model.config.image_size,
        "channels": model.config.channels,
        "dims": model.config.latent_dims,
        "classes": checkpoint.class_names,
        "mean": model.likelihood.mean_of,
        "binary": PIXELS[model.config.binarize].binary,
        "prior": prior(model),
        **of_dataset(name),
        "encoder": network.described(encoder, arrays),
        "decoder": network.described(decoder, arrays),
    }
    named = {}
    if checkpoint.sampler:
        about["mixture"] = checkpoint.sampler.words
        named |= {f"mixture_{name}": array for name, array in checkpoint.sampler.arrays().items()}
    if about["drawn"]:
        named["resize"] = resize_matrix(about["drawn"]["side"], model.config.image_size)
    if test is not None:
        about |= of_images(subject, test, named)
    kept = np.float16 if half else np.float32
    block, about["arrays"] = packed([array.astype(kept) for array in arrays], named)
    return Explorer(put_together(title, about, block), rounding(subject, shown, test) if half else "")


def prior(model: Any) -> dict[str, Any]:
    """What the page draws from without a fitted prior: the standard normal of each dimension."""
    dims = model.config.latent_dims
    return {"words": model.prior.words, "middle": [0] * dims, "spread": [1] * dims}


def of_dataset(dataset: str) -> dict[str, Any]:
    """How pictures are made like those of a data set: digits are drawn, and of other pictures the middle is cut out."""
    row, _ = datasets.look_up(dataset)
    drawn = {"side": row.drawn[0], "box": row.drawn[1]} if row and row.drawn else None
    return {"drawn": drawn, "crop": row.crop if row else 1}


def first_images(test: Any, channels: int, count: int | None) -> Any:
    """The test images that a page holds, as few as make it no larger than a mail may be."""
    size = test.images[:1].size * min(channels, test.images.shape[3]) // test.images.shape[3]
    count = count or min(MOST_IMAGES, MOST_BYTES // size)
    labels = None if test.labels is None else np.asarray(test.labels[:count])
    return test._replace(images=np.asarray(test.images[:count]), labels=labels)


def of_images(subject: Subject, test: Any, named: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a page is told of test images; their arrays are put into `named`."""
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


def rounding(subject: Subject, rounded: Any, test: Any) -> str:
    """What half precision changes, tried on vectors from the prior of the training and on the images of the page."""
    classes = subject.model.config.num_classes
    labels = np.arange(network.TRIED_ON) % classes if classes else None
    z = subject.model.prior.sample(network.TRIED_ON, mx.random.key(0), 1.0, labels)
    return network.rounding_error(subject.model, rounded, z, labels, test)


# Putting together


def packed(weights: list[np.ndarray], named: dict[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """Arrays as one compressed block in base64, and where in it each lies: weights by number, others by name."""
    pieces, table, start = [], {}, 0
    for name, array in [*enumerate(weights), *named.items()]:
        table[str(name)] = {"type": array.dtype.name, "shape": array.shape, "start": start}
        pieces.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
        start += len(pieces[-1])
    return base64.b64encode(zlib.compress(b"".join(pieces), 9)).decode(), table


def put_together(title: str, about: dict[str, Any], block: str) -> str:
    """The page as text. Names may hold anything, so no `<` of theirs is left where it could end a script."""
    page = (FOLDER / "page.html").read_text()
    told = json.dumps(about, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    for mark, text in (
        ("{title}", html.escape(title)),
        ("{style}", (FOLDER / "style.css").read_text()),
        ("{script}", "\n".join((FOLDER / name).read_text() for name in SCRIPTS)),
        ("{about}", told),
        ("{block}", block),
    ):
        before, _, after = page.partition(f"<!--{mark}-->")
        page = before + text + after
    return page
