"""README, docs and commands agree: every command parses, flag tables are up to date, links and recipes work."""

import doctest
import importlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import toolkit
from docs import tables
from toolkit.metrics import words
from toolkit.shell.opening import ROOT
from toolkit.shell.parser import HELP, parse

COMMANDS = ("train", "generate", "reconstruct", "encode", "evaluate", "visualize", "convert", "doctor")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
RECIPES = re.split(r"(?m)^## (Add .*)$", PAGES["docs/contributing.md"])[1:]  # title, text, title, …
LINES = sorted(
    {
        line
        for text in (page.partition("\n## Recipes")[0] for page in PAGES.values())  # the recipes are run below
        for line in re.findall(rf"python ({'|'.join(COMMANDS)})\.py ?([^`\n]*)", text)
    }
)


@pytest.mark.parametrize("command, flags", LINES)
def test_every_line_parses(command, flags):
    declared = importlib.import_module(command).options()
    words = shlex.split(flags.split(" > ")[0], comments=True)
    if not HELP & set(words):
        parse(f"python {command}.py", words, *declared)


def test_there_are_lines_for_every_command():
    assert {command for command, _ in LINES} == set(COMMANDS) and len(LINES) > 20


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_flags_are_made_from_the_options(page):
    assert tables.filled(PAGES[page]) == PAGES[page], "run python docs/tables.py"


def test_every_command_has_its_table_once():
    marked = [found[1:3] for text in PAGES.values() for found in tables.MARKED.findall(text)]
    assert sorted(command for kind, command in marked if kind == "flags") == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_are_there(page):
    folder = (ROOT / page).parent
    prose = re.sub(r"(?m)^    .*$", "", PAGES[page])  # without code
    for name in re.findall(r"\]\(((?!http)[^)]+)\)", prose):
        path, _, heading = name.partition("#")
        target = (folder / path) if path else ROOT / page
        assert target.exists(), name
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", found.lower()).replace(" ", "-") for found in headings}
            assert heading in slugs, name


def test_the_readme_is_short():
    assert len(PAGES["README.md"].encode()) <= 10_000 and len(PAGES["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("page", ["README.md", "docs/formats.md"])
def test_the_python_of_a_page_runs(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(str(ROOT / page), module_relative=False)
    assert tried >= 3 and failed == 0


def test_versions_and_requirements_agree():
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{toolkit.__version__}"' in project
    assert f"## {toolkit.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    wanted = [line.replace('"', "'") for line in (ROOT / "requirements.txt").read_text().splitlines() if line]
    assert re.findall(r'^    "(.*)",$', project, re.M) == wanted


def test_the_metrics_shown_are_named_as_evaluate_names_them():
    """docs/metrics.md quotes the names and descriptions that evaluate.py prints."""
    metrics = {name: {"mean": 1.0, "standard_error": 0.1} for name in ("loss", "reconstruction", "kl", "elbo", "ssim")}
    metrics |= {"log_likelihood": metrics["kl"] | {"importance_samples": 20}, "likelihood": "Gaussian of variance 1/2"}
    metrics |= dict.fromkeys(("mean_squared_error", "psnr", "mutual_information", "marginal_kl"), 1.0)
    metrics |= {
        "constant": -2344.41,
        "images": 10000,
        "active_units": 8,
        "latent_dims": 8,
        "prior": "the standard normal",
    }
    metrics |= {"linear_probe": 0.9, "nearest_neighbours": 0.9}
    for name, _, meaning in words.rows(metrics):
        assert re.search(rf"^    {re.escape(name)} .*  {re.escape(meaning)}$", PAGES["docs/metrics.md"], re.M), name


# The recipes of docs/contributing.md

EDIT = re.compile(
    r"(?:(Create|Append to) `(?P<file>\S+)`"
    r"|In\s`(?P<in>\S+)`,\s(?P<how>replace|insert above|insert below)\sthe\s"
    r"(?:last line|line\sthat\sbegins\s`(?P<at>[^`]+)`)"
    r"(?:\swith)?):\n\n```python\n(?P<code>.*?)```",
    re.S,
)
RUN_ALL = """
import importlib, shlex, sys
import pytest
for line in sys.argv[1:]:
    _, program, *words = shlex.split(line)
    print("$", line, flush=True)
    if program == "-m":
        assert pytest.main(["-p", "no:cacheprovider", *words[1:]]) == 0, line
    elif program == "docs/tables.py":
        importlib.import_module("docs.tables").main()
    else:
        importlib.import_module(program.removesuffix(".py")).main(words)
"""


def apply(root, text):
    """Make the edits that a recipe prints, in a copy of the repository; returns their number."""
    edits = list(EDIT.finditer(text))
    for edit in edits:
        path = root / (edit["file"] or edit["in"])
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if edit[1]:
            assert (edit[1] == "Create") == (not path.exists()), path
            path.write_text("".join(lines) + ("\n\n" if lines else "") + edit["code"])
            continue
        places = [i for i, line in enumerate(lines) if not edit["at"] or line.strip().startswith(edit["at"])]
        assert len(places) == 1 or not edit["at"], (path, edit["at"])
        first = places[-1] + (edit["how"] == "insert below")
        lines[first : first + (edit["how"] == "replace")] = [edit["code"]]
        path.write_text("".join(lines))
    return len(edits)


@pytest.mark.slow
def test_recipes_run_as_printed(tmp_path):
    """All of them in one copy of the repository: the edits are made, then the commands are run in one process."""
    root = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("toolkit", "tests", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*.toml")]:
        shutil.copy(path, root)
    commands = []
    for title, text in zip(RECIPES[::2], RECIPES[1::2], strict=True):
        text = text.partition("\n## ")[0]
        assert apply(root, text) == text.count("```python"), f"{title}: an edit is not understood"
        assert (found := re.findall(r"(?m)^    (python .*)$", text)), title
        commands += found
    done = subprocess.run([sys.executable, "-c", RUN_ALL, *commands], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warn" not in done.stderr.lower()
