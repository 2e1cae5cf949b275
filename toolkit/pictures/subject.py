"""A model, its test split and values computed from both: the input of every kind of picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolkit.errors import UserError
from toolkit.formats import description
from toolkit.formats.checkpoint import Checkpoint
from toolkit.formats.labels import class_number
from toolkit.metrics.latents import kl_by_dimension
from toolkit.model import inference
from toolkit.model.inputs import batch
from toolkit.pictures import images, sampling
from toolkit.wording import public_name


class Shown(NamedTuple):
    """An image to start from."""

    pixels: np.ndarray  # (H, W, C) of bytes
    mean: np.ndarray  # (D,)
    label: int | None
    words: str  # what it is
    kl: np.ndarray  # (D,) of a picture file its own, of a test image the mean of all


def first_of(split: Any, count: int) -> Any:
    """The first `count` images of a split."""
    labels = None if split.labels is None else np.asarray(split.labels[:count])
    return split._replace(images=np.asarray(split.images[:count]), labels=labels)


@dataclass(eq=False)
class Subject:
    """A model, its test split, and values computed from both."""

    checkpoint: Checkpoint
    load: Callable[[str], Any] | None  # loads a split by name
    label: str | None = None
    sampler: sampling.Sampler | None = None  # how samples are drawn
    open_files: Callable[[list[str]], Any] | None = None  # loads picture files
    name: str = "model"
    dataset: str = ""  # display name of what `load` loads
    device: str = ""
    runs: Sequence[Path] = ()  # the folder of the model's run

    def __post_init__(self):
        self.model = self.checkpoint.model
        self.sampler = self.sampler or sampling.Sampler(self.model.prior)
        self.dataset = self.dataset or public_name(self.checkpoint.dataset or "mnist")
        if self.label != sampling.ALL or not self.model.config.decoder_classes:
            class_number(self.checkpoint, self.label)  # raises if there is no such class

    @property
    def title(self) -> str:
        """The model in a few words, with the class that is shown."""
        label = None if self.label == sampling.ALL else self.label
        return description.title(self.checkpoint, self.dataset, label)

    def caption(self, text: str, image: int | str | None = None) -> str:
        """A caption in which {sampler} and {rest} are filled in."""
        rest = "the others are 0" if image is None else f"the others are those of {self.image(image).words}"
        return text.format(sampler=self.sampler.words, rest=rest)

    @cached_property
    def test(self) -> Any:
        return self.load("test")

    @cached_property
    def latents(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and log-variances of all test images."""
        return inference.encode(self.model, self.test)

    @cached_property
    def kl(self) -> np.ndarray:
        """Mean KL of every dimension."""
        return kl_by_dimension(*self.latents)

    @cached_property
    def order(self) -> np.ndarray:
        """The dimensions in order of decreasing KL."""
        return np.argsort(-self.kl, kind="stable")

    def image(self, which: int | str) -> Shown:
        """A test image by its number, or a picture by its file."""
        if isinstance(which, str):
            split, number = self.open_files([which]), 0
            if len(split.images) > 1:
                raise UserError(f"{which} contains {len(split.images)} pictures — choose one of them")
            words, latents = split.names[0], inference.encode(self.model, split)
        else:
            split, number, words, latents = self.test, which, f"test image {which}", self.latents
            if not 0 <= which < len(split.images):
                raise UserError(f"there is no test image {which} — choose 0 to {len(split.images) - 1}")
        x, _, labels = batch(split, np.array([number]), self.model.config)
        label = None if labels is None else int(labels[0].item())
        return Shown(images.to_bytes(x)[0], latents[0][number], label, words, kl_by_dimension(*latents))

    def decode(self, z: np.ndarray, label: int | None = None) -> np.ndarray:
        """Latent vectors (N, D) → bytes; for a class-conditional model with --label or, without it, `label`."""
        if self.label is not None and self.label != sampling.ALL:
            label = class_number(self.checkpoint, self.label)
        labels = np.full(len(z), label or 0) if self.model.config.decoder_classes else None
        return images.to_bytes(inference.decode(self.model, np.asarray(z, np.float32), labels))

    def each_class(self) -> list["Subject"]:
        """This subject, or with `--label all` one per class."""
        if self.label != sampling.ALL:
            return [self]
        return [replace(self, label=name) for name in self.checkpoint.class_names]
