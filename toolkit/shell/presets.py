"""Options of train.py from a file (--config) or from a trained model (--like)."""

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

from toolkit.architectures import ARCHITECTURES
from toolkit.errors import UserError
from toolkit.files import records
from toolkit.files.reading import contents
from toolkit.files.writing import reason
from toolkit.formats import checkpoint
from toolkit.options import checked, option, path
from toolkit.shell.data import trained_on
from toolkit.shell.earlier import DECODERS, translated
from toolkit.shell.opening import find_model
from toolkit.shell.parser import HELP, HELP_ALL, Typed, fields_of, parse, row_options, typed_value, words_of
from toolkit.training.plan import DECIDED, RECIPES, remembered
from toolkit.wording import did_you_mean, ending_in_words

LARGEST, LONGEST_LINE = 2**16, 1000  # bytes of a file of options, and of a line; tomllib is quadratic in a key's dots


@dataclasses.dataclass(frozen=True)
class PresetOptions:
    config: str | None = option(None, "options from FILE, .toml or .json", "output", kind=path)
    like: str | None = option(None, "use this model's options", "output", kind=path, unit="MODEL")


def parse_with_presets(document: str, argv: list[str] | None, *declared: type) -> Typed:
    """Parse flags. Options in a --config file count as typed; those of a --like model replace the defaults.

    Precedence: command line, then --config, then --like.
    """
    words = words_of(argv)
    if HELP & set(words):
        return parse(document, argv, *declared)
    file, model = (typed_value(words, name) for name in ("config", "like"))
    given = read(Path(path.read(file)), declared) if file else {}
    asked = given | {name: v for name in ("dataset", "recipe", "arch", "decoder") if (v := typed_value(words, name))}
    if "arch" not in asked and asked.get("decoder") in DECODERS:
        asked["arch"] = given["arch"] = DECODERS[asked["decoder"]]
    model = path.read(model) if model else given.get("like")
    defaults = options_like(model, asked) if model else {}
    defaults = by_recipe(asked.get("recipe", defaults.get("recipe"))) | defaults
    return parse(document, argv, *declared, given=given, defaults=defaults, translate=translated)


def by_recipe(name: str | None) -> dict[str, Any]:
    """The options of the model that a recipe sets, besides those of its training."""
    return {option: value for option, value in RECIPES.get(name, {}).items() if option not in DECIDED}


def options_like(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The non-default options of a model's training.

    If another recipe or architecture is given, its own defaults apply.
    """
    place = find_model(name)
    facts = checkpoint.read(place).facts
    if "options" not in facts:
        raise UserError(f"{name} does not contain its training options — give the flags")
    try:
        plan = remembered(facts["options"])
    except (ValueError, KeyError, UserError) as error:
        why = str(error).partition(" — ")[0]
        raise UserError(f"the options in {name} are not valid in this version ({why}) — give the flags") from None
    options, before = plan.changed(), plan.options()
    if "dataset" not in asked:
        options["dataset"] = trained_on(place, facts.get("dataset"))
    renewed = {name for name in ("recipe", "arch") if asked.get(name, before[name]) != before[name]}
    own = ARCHITECTURES[before["arch"]].Options
    of_architecture = ["max_filters", *(name for name, _, _ in fields_of([own]))]
    of_recipe = by_recipe(asked["recipe"]) if "recipe" in renewed else ()
    dropped = [*(DECIDED if renewed else ()), *of_recipe, *(of_architecture if "arch" in renewed else ())]
    return {name: value for name, value in options.items() if name not in dropped}


def read(file: Path, declared: tuple[type, ...]) -> dict[str, Any]:
    """Read the options in a file, checked like flags."""
    options = [*fields_of(declared), *(option for _, option in row_options(declared))]
    known = {word: each for each in options for word in (each[0], *each[2].aliases) if word != "config"}
    values = {}
    for key, value in parsed(file).items():
        spelling = key.replace("-", "_")
        if spelling not in known:
            hint = did_you_mean(spelling, known) or f" — python train.py {HELP_ALL} lists the options"
            raise UserError(f"{file} has an unknown key {key!r}{hint}")
        name, _, about = known[spelling]
        if value is None or (about.kind is None and value is False):
            continue  # as if it were not there
        try:
            values[name] = checked(about, value)
        except ValueError as error:
            ways = "" if "—" in str(error) else f" — python train.py {HELP_ALL} lists its values"
            raise UserError(f"{file}: {key} {error}{ways}") from None
    return values


def parsed(file):
    """Read the keys and values of a file."""
    if file.is_dir():
        raise UserError(f"{file} is a folder — name a .toml or .json file")
    try:
        data = contents(file, LARGEST)
        if file.suffix.lower() == ".json":
            values = records.parsed(data)
        elif file.suffix.lower() == ".toml":
            try:
                import tomllib
            except ImportError:
                raise UserError(f"{file}: TOML needs Python 3.11 or newer — write the same as .json") from None
            if max(map(len, data.splitlines()), default=0) > LONGEST_LINE:
                raise ValueError(f"a line has more than {LONGEST_LINE} characters")
            values = tomllib.loads(data.decode())
        else:
            raise UserError(f"{file} {ending_in_words(file)} — write .toml or .json")
    except OSError as error:
        raise UserError(f"cannot read {file}: {reason(error)} — check the name") from None
    except (ValueError, RecursionError) as error:
        why = textwrap.shorten(str(error), 200, placeholder=" …")
        raise UserError(f"{file} is not {file.suffix[1:].upper()}: {why} — correct it") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} is a list or a single value — write option names with their values")
    return values
