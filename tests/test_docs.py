"""README, docs and commands agree: every line parses, every table of flags is today's, every link leads somewhere."""

import doctest
import importlib
import re
import shlex
from contextlib import suppress

import pytest

import toolkit
from docs import tables
from toolkit.metrics import words
from toolkit.shell.opening import ROOT
from toolkit.shell.parser import parse

COMMANDS = ("train", "generate", "reconstruct", "encode", "evaluate", "visualize", "convert")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
LINES = sorted(
    {line for text in PAGES.values() for line in re.findall(rf"python ({'|'.join(COMMANDS)})\.py ?([^`\n]*)", text)}
)


@pytest.mark.parametrize("command, flags", LINES)
def test_every_line_parses(command, flags):
    declared = importlib.import_module(command).options()
    with suppress(SystemExit):  # of a line that asks for help
        parse(f"python {command}.py", shlex.split(flags.split(" > ")[0], comments=True), *declared)


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


def test_the_python_of_the_readme_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried >= 3 and failed == 0


def test_versions_and_requirements_agree():
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{toolkit.__version__}"' in project
    assert f"## {toolkit.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    wanted = [line.replace('"', "'") for line in (ROOT / "requirements.txt").read_text().splitlines() if line]
    assert re.findall(r'^    "(.*)",$', project, re.M) == wanted


def test_the_metrics_shown_are_named_as_evaluate_names_them():
    """The words after the numbers, in docs/measure.md, are those of today."""
    metrics = {name: {"mean": 1.0, "standard_error": 0.1} for name in ("loss", "reconstruction", "kl", "elbo", "ssim")}
    metrics |= {"log_likelihood": metrics["kl"] | {"importance_samples": 50}, "likelihood": "Gaussian of variance 1/2"}
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
        assert re.search(rf"^    {re.escape(name)} .*  {re.escape(meaning)}$", PAGES["docs/measure.md"], re.M), name
