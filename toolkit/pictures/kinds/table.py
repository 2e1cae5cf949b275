"""The table of kinds of pictures, in the order of the help page."""

from dataclasses import make_dataclass
from types import ModuleType
from typing import NamedTuple

from toolkit.pictures import explorer
from toolkit.pictures.kinds import (
    beside,
    comparison,
    curves,
    film,
    interpolate,
    latents,
    manifold,
    nearest,
    report,
    samples,
    traversal,
)


class PictureKind(NamedTuple):
    name: str
    words: str  # one line
    file: ModuleType  # with `draw`, `animate` or `write_page`
    needs: tuple[str, ...] = ("data", "label")  # what visualize.py loads, and its flags
    Options: type | None = None


ALL = ("data", "label", "sampler")
ROWS = (
    PictureKind("traversal", "one row per latent dimension, from -3 to 3; .gif animates it", traversal),
    PictureKind("interpolate", "interpolation between images; .gif animates it", interpolate),
    PictureKind("manifold", "the plane of the two latent dimensions with the largest KL", manifold),
    PictureKind("latents", "latent means of the test images, coloured by class", latents, ("data",)),
    PictureKind("samples", "a sheet of samples, by class if the model has classes", samples, ("sampler", "label")),
    PictureKind("nearest", "samples beside the training pictures most like them", nearest, ALL),
    PictureKind("reconstructions", "test images, their reconstructions, and the error", comparison, ("data",)),
    PictureKind("compare", "several models beside each other; .html is a page", beside, ("models", *ALL)),
    PictureKind("curves", "loss, reconstruction and KL of runs, by epoch", curves, ("runs",)),
    PictureKind("training", "animation of samples over the epochs, as .gif", film, ("runs",)),
    PictureKind("explorer", "an interactive page, as one HTML file", explorer, ("data",)),
    PictureKind("report", "all of these, with metrics, in one HTML file", report, ALL),
)


def kinds(shared: dict[str, tuple[type, ...]]) -> dict[str, PictureKind]:
    """The kinds by name, each with its own options and the `shared` options of what it shows."""

    def options_of(kind: PictureKind) -> type:
        own = [kind.file.Options] if hasattr(kind.file, "Options") else []
        parts = (*own, *(part for need in kind.needs for part in shared[need]))
        return make_dataclass("Options", (), bases=parts, frozen=True)

    return {kind.name: kind._replace(Options=options_of(kind)) for kind in ROWS}
