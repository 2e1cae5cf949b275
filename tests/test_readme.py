"""The README and the commands agree: every line in it parses, every flag is in it."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
LINES = re.findall(r"python (train|generate|reconstruct|evaluate|visualize|convert)\.py ?([^`\n]*)", README)


@pytest.mark.parametrize("command, flags", LINES)
def test_every_line_parses(command, flags):
    importlib.import_module(command).parse(shlex.split(flags))


@pytest.mark.parametrize("command", ["train", "generate", "reconstruct", "evaluate", "visualize", "convert"])
def test_every_flag_is_explained(run, command):
    _, usage, _ = run(command, "-h")
    section = README.split(f"### `{command}.py`")[1].split("\n## ")[0].split("\n### ")[0]
    flags = set(re.findall(r"--[a-z_]+", usage.split("options:")[1])) - {"--help"}
    assert len(LINES) > 10 and flags
    assert flags <= set(re.findall(r"--[a-z_]+", section))


def test_pictures_and_files_are_there():
    root = Path(__file__).parent.parent
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in README.splitlines() if line.startswith("#")}
    for name in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert name[1:] in headings if name.startswith("#") else (root / name).exists(), name
