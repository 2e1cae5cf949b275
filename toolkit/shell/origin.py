"""The provenance of a file: command line, model and versions, without paths."""

import platform
import shlex
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import toolkit
from toolkit.files.reading import checksum_of
from toolkit.files.targets import PICTURE, mark
from toolkit.formats import hub
from toolkit.shell.opening import INCLUDED, ROOT, Opened
from toolkit.shell.parser import Typed
from toolkit.wording import as_text, public_name

PLACES = {"outfile", "outdir", "json", "data_dir", "cache_dir", "overwrite", "open"}  # no part of a result


def record(typed: Typed, opened: Opened | None, title: str, caption: str = "") -> dict[str, str]:
    """The text of a command's PNG files: title, caption, the command line that reproduces it, and versions."""
    made = {"Software": f"{mark(PICTURE)}; toolkit {toolkit.__version__}, mlx {version('mlx')}", "Title": title}
    made |= {"Description": caption} if caption else {}
    made |= {"Model": f"{name_of(opened)}, SHA-256 {checksum(opened)[:12]}"} if opened else {}
    return made | {"Command": command_line(typed, opened)}


def command_line(typed: Typed, opened: Opened | None) -> str:
    """The command line that does the same in a folder with the same files: file names without folders."""
    values = {name: value for name, value in typed.values.items() if name not in PLACES}
    if opened:
        values["model"] = name_of(opened)
    words = typed.program.split()
    for name, value in sorted(values.items(), key=lambda item: not typed.options[item[0]].positional):
        known = typed.options[name]
        several = value if known.several else () if known.kind is None else (value,)
        if name == "dataset":
            several = [public_name(value)]
        elif known.kind and known.kind.is_file and not (opened and name == "model"):
            several = [as_text(Path(each).name) if isinstance(each, str) else each for each in several]
        words += [*([] if known.positional else [f"--{name}"]), *map(str, several)]
    return shlex.join(words)


def name_of(opened: Opened) -> str:
    """A model's name for other machines; that of an included model works anywhere."""
    path = opened.path.absolute()
    if hub.is_name(opened.name):
        return opened.name
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT / INCLUDED) else as_text(path.name)


def checksum(opened: Opened) -> str:
    """The SHA-256 of a model's file."""
    with open(opened.path / hub.MODEL if opened.path.is_dir() else opened.path, "rb") as file:
        return checksum_of(file, like="")


def versions(*more: str) -> dict[str, str]:
    """The versions that a result depends on, and those of more packages, if they are installed."""
    found = {name: version(name) for name in ("mlx", "numpy")}
    for name in more:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"toolkit": toolkit.__version__, **found, "python": platform.python_version()}
