"""Options of train.py that are not typed: a file of them, or those with which a model was trained."""

import argparse
import dataclasses
import json
import textwrap
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.files import records
from toolkit.files.reading import contents
from toolkit.files.writing import reason
from toolkit.options import Option, option, options_of, path
from toolkit.shell.data import trained_on
from toolkit.shell.opening import find_model
from toolkit.shell.parser import Typed, did_you_mean, reader
from toolkit.wording import ending_in_words

LARGEST = 2**20  # bytes of a file of options


@dataclasses.dataclass(frozen=True)
class PresetOptions:
    config: str | None = option(
        None, "options from a file, .toml or .json; flags win over it", "output and resuming", kind=path, unit="FILE"
    )
    like: str | None = option(
        None,
        "train as this model was; flags and --config win over its options",
        "output and resuming",
        kind=path,
        unit="MODEL",
    )


def preset(typed: Typed, declared: tuple[type, ...]) -> Typed:
    """Flags with the options of the file that they name; what was typed wins over it."""
    if file := typed.of(PresetOptions).config:
        return dataclasses.replace(typed, values=read(Path(file), declared) | typed.values)
    return typed


def alike(typed: Typed) -> Typed:
    """Flags with the options of the model that they name behind them, as other defaults.

    A recipe or an architecture that is typed anew brings its own defaults.
    """
    from toolkit.formats import checkpoint
    from toolkit.training.plan import RECIPES, remembered
    from vae import ModelConfig

    if not (name := typed.of(PresetOptions).like):
        return typed
    place = find_model(name)
    facts = checkpoint.read(place).facts
    if "options" not in facts:
        raise UserError(f"{name} does not say how it was trained — give the flags")
    try:
        options = remembered(facts["options"]).options()
    except (ValueError, KeyError, UserError) as error:
        why = str(error).partition(" — ")[0]
        raise UserError(f"the options in {name} are none of this version ({why}) — give the flags") from None
    if "dataset" not in typed:
        options["dataset"] = trained_on(place, facts.get("dataset"))
    renewed = {name for name in ("recipe", "arch") if typed.values.get(name, options[name]) != options[name]}
    of_architecture = [name for name, default, _ in options_of(ModelConfig) if default is None]
    followed = [*(RECIPES["fast"] if renewed else ()), *(of_architecture if "arch" in renewed else ())]
    return dataclasses.replace(typed, base={name: v for name, v in options.items() if name not in followed})


def read(file: Path, declared: tuple[type, ...]) -> dict[str, Any]:
    """The options in a file, checked as flags are: names as flags have them, values as they are typed."""
    known = {
        spelling: (name, about)
        for part in declared
        for name, _, about in options_of(part)
        for spelling in (name, *about.aliases)
        if name != "config"
    }
    values = {}
    for key, value in parsed(file).items():
        spelling = key.replace("-", "_")
        if spelling not in known:
            hint = did_you_mean(spelling, list(known)) or " — python train.py -h lists the options"
            raise UserError(f"{file} has an unknown key {key!r}{hint}")
        name, about = known[spelling]
        try:
            if (taken := value_of(about, value)) is not None:
                values[name] = taken
        except argparse.ArgumentTypeError as error:
            ways = "" if "—" in str(error) else " — write what the flag takes"
            raise UserError(f"{file}: {key}: {error}{ways}") from None
    return values


def value_of(about: Option, value: Any) -> Any:
    """A value of a file as the flag would have it; None where it is as if nothing stood there."""
    shown = json.dumps(value, default=str, ensure_ascii=False)[:40]
    if value is None or (about.kind is None and value is False):
        return None
    if about.kind is None:
        if value is not True:
            raise argparse.ArgumentTypeError(f"{shown} is neither true nor false")
        return True
    if isinstance(value, bool) or not isinstance(value, about.kind.types):
        raise argparse.ArgumentTypeError(f"{shown} is of another kind")
    return reader(about)(str(value))


def parsed(file):
    """The keys and values of a file."""
    try:
        data = contents(file, LARGEST)
        if file.suffix.lower() == ".json":
            values = records.parsed(data)
        elif file.suffix.lower() == ".toml":
            try:
                import tomllib
            except ImportError:
                raise UserError(f"{file}: TOML needs Python 3.11 or newer — write the same as .json") from None
            values = tomllib.loads(data.decode())
        else:
            raise UserError(f"{file} {ending_in_words(file)} — write .toml or .json")
    except OSError as error:
        raise UserError(f"cannot read {file}: {reason(error)} — check the name") from None
    except (ValueError, RecursionError) as error:
        why = textwrap.shorten(str(error), 200, placeholder=" …")
        raise UserError(f"{file} is not {file.suffix[1:].upper()}: {why} — correct it") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} is a list or a single value — write names of options, each with its value")
    return values
