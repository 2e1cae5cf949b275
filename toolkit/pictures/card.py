"""The card of a model for the Hugging Face Hub: its README.md, and the sheet of samples that it shows."""

import numpy as np

from toolkit.errors import UserError
from toolkit.formats import hub
from toolkit.formats.checkpoint import Checkpoint
from toolkit.formats.description import model_rows, title
from toolkit.pictures.kinds.samples import CAPTION, Options, draw
from toolkit.pictures.layout import framed
from toolkit.pictures.sampling import Sampler
from toolkit.pictures.subject import Subject
from toolkit.training.plan import command, remembered
from toolkit.wording import counted, shown_name

SAMPLES = 64
DATASETS = {  # their names on the Hub
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar-10": "uoft-cs/cifar10",
    "cifar-100": "uoft-cs/cifar100",
}
METRICS = {"loss": "Loss: reconstruction + KL", "reconstruction": "Reconstruction", "kl": "KL"}

CARD = """---
license: {license}
library_name: mlx
pipeline_tag: unconditional-image-generation
tags:
- mlx
- vae
- variational-autoencoder
{datasets}---

# {name}: {title}

A variational autoencoder for MLX, trained on {trained}.

![Samples]({picture})

*Samples from {prior}.*

## Use

With the toolkit that trained it, pass `--model` this folder, or `hf:` and its name on the Hub:

```bash
python generate.py --model hf:ORG/NAME --outfile samples.png
python reconstruct.py --model hf:ORG/NAME --images a.jpg
```

`{config}` holds the configuration; `{model}` holds the weights, the fitted prior and everything listed below.

## Model

{model_table}
"""


def make(name: str, checkpoint: Checkpoint, license: str) -> str:
    """The text of the card, without what the model's file does not contain."""
    dataset = checkpoint.dataset or ""
    trained = shown_name(dataset) or "unknown data"
    if checkpoint.epoch is not None:
        trained += f" for {counted(checkpoint.epoch, 'epoch')}"
    page = CARD.format(
        license=license,
        datasets=f"datasets:\n- {DATASETS[dataset]}\n" if dataset in DATASETS else "",
        name=plain(name),
        title=plain(title(checkpoint)),
        trained=plain(trained),
        picture=hub.PICTURE,
        prior=checkpoint.prior.words,
        config=hub.CONFIG,
        model=hub.MODEL,
        model_table=table(model_rows(checkpoint.model)),
    )
    test = [(METRICS[key], f"{checkpoint.test[key]:.2f}") for key in METRICS if key in checkpoint.test]
    if test:
        page += f"\n## Metrics\n\nIn nats per image, means over the test split.\n\n{table(test)}\n"
    if command := command_of(checkpoint):
        page += f"\n## Training\n\n```bash\n{command}\n```\n"
    return page


def command_of(checkpoint: Checkpoint) -> str:
    """The command that trained the model; empty if its file does not contain it."""
    try:
        line = command(remembered(checkpoint.options)) if checkpoint.options else ""
    except (KeyError, ValueError, UserError):
        return ""
    return line if line.isprintable() else ""


def samples(checkpoint: Checkpoint) -> np.ndarray:
    """The sheet of samples; for a class-conditional model, one row per class."""
    subject = Subject(checkpoint, None, sampler=Sampler(checkpoint.prior))
    shown = draw(subject, Options(nsamples=max(SAMPLES, 4 * checkpoint.model.config.num_classes)))
    return framed(shown, f"Samples: {subject.title}", subject.caption(CAPTION))


def table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {title} | {plain(words)} |" for title, words in rows)])


def plain(words: str) -> str:
    """Text escaped for Markdown, in one line."""
    return " ".join(words.split()).replace("|", "\\|").replace("<", "&lt;")
