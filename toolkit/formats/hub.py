"""Model folders as the Hugging Face Hub expects them: `model.safetensors` and `config.json`, and a card for people.

Such a folder is accepted wherever a model is, and `hf:org/name` downloads one if huggingface_hub is installed. Our own
`model.safetensors` contains everything in `config.json`, which is for other programs, and for weights whose metadata a
tool has dropped.
"""

import json
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.files import records, targets
from toolkit.files.reading import contents
from toolkit.files.targets import ANY, check_target
from toolkit.files.writing import reason

PREFIX = "hf:"
LARGEST = 2**22  # bytes of config.json
MODEL, CONFIG, CARD, PICTURE = "model.safetensors", "config.json", "README.md", "samples.png"
TYPE = {"model_type": "vae", "library_name": "mlx"}


def is_name(model: str) -> bool:
    """Whether a name refers to a model on the Hub."""
    return model.startswith(PREFIX)


def is_folder(path: Path) -> bool:
    """Whether a path is a model folder."""
    return (path / MODEL).is_file()


def check_folder(path: Path, model: str) -> None:
    """Raise UserError unless a model folder is new, empty or already a model folder."""
    try:
        facts_of(contents(path / CONFIG, LARGEST))
    except (OSError, ValueError):
        if path.is_dir() and any(not name.startswith(".") for name in os.listdir(path)):
            ways = "name a new one, or replace its files with --overwrite"
            raise UserError(f"{path} contains files other than those of a model — {ways}") from None
    for name, kind in ((MODEL, ANY), (CONFIG, ANY), (PICTURE, targets.PICTURE)):
        check_target(path / name, kind, [model, Path(model, name)])


def config_text(config: dict[str, Any], class_names: Sequence[str]) -> bytes:
    """The bytes of `config.json`: the configuration and the class names."""
    labels = {str(i): name for i, name in enumerate(class_names)}
    return (json.dumps(TYPE | config | ({"id2label": labels} if labels else {}), indent=2) + "\n").encode()


def facts_of(text: bytes) -> dict[str, Any]:
    """The configuration and the class names of a `config.json`; raises ValueError if it is not ours."""
    values = records.parsed(text)
    if not isinstance(values, dict) or {name: values.pop(name, None) for name in TYPE} != TYPE:
        raise ValueError(f"its {CONFIG} is of another kind of model")
    labels = values.pop("id2label", {})
    return {"config": values} | ({"class_names": [labels[str(i)] for i in range(len(labels))]} if labels else {})


def fetch(name: str) -> Path:
    """Download a model, `hf:org/name` or `hf:org/name@revision`; returns its folder in the package's cache."""
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository):
        raise UserError(f"{name} is not a name of a model on the Hub — write hf:org/name")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=[MODEL, CONFIG]))
    except ImportError:
        raise UserError(f"{name} needs huggingface_hub — pip install huggingface_hub") from None
    except Exception as error:  # of the network, the name or the permissions, in many classes
        why = textwrap.shorten(reason(error), 120, placeholder=" …")
        raise UserError(f"cannot fetch {name}: {why} — check the name and the network") from None
