"""The rules of the house: imports point down the list of rooms, names do not repeat, ideas stay in their places."""

import ast
import os
import re

from toolkit.shell.opening import ROOT

# From the door to the cellar; a file may import what stands below its own line, and within its own room.
ROOMS = [
    "train generate reconstruct encode evaluate visualize convert doctor".split(),
    ["toolkit.notebook"],
    ["toolkit.shell"],
    ["toolkit.pictures"],
    ["toolkit.metrics"],
    ["toolkit.training"],
    ["toolkit.formats"],
    ["toolkit.architectures"],
    ["vae"],
    ["toolkit.datasets"],
    ["mnist"],
    ["toolkit.model"],
    ["toolkit.layers"],
    ["toolkit.machine"],
    ["toolkit.files"],
    ["toolkit.random", "toolkit.options", "toolkit.wording", "toolkit.errors"],
]
FILES = {
    path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in [*ROOT.glob("*.py"), *ROOT.glob("toolkit/**/*.py")]
}


def level(module):
    """The line of a module in the list; None for what is not ours."""
    for i, rooms in enumerate(ROOMS):
        if any(module == room or module.startswith(f"{room}.") for room in rooms):
            return i
    return None


def imported(path):
    """All modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES.values() or level(name) is not None else node.module for name in names)


def test_every_file_is_in_a_room():
    assert [name for name in FILES.values() if level(name) is None] == ["toolkit"]


def test_imports_point_down():
    seen = 0
    for path, name in FILES.items():
        if name == "toolkit":
            continue  # its version is asked for by others
        for other in imported(path):
            if (theirs := level(other)) is not None:
                seen += 1
                ours = level(name)
                same_room = theirs == ours and ROOMS[ours][0].startswith("toolkit.")
                assert theirs > ours or same_room, f"{name} imports {other}"
    assert seen > 100


def test_no_circles_within_a_room():
    graph = {name: {other for other in imported(path) if other in FILES.values()} for path, name in FILES.items()}

    def visit(name, above):
        assert name not in above, f"{' → '.join([*above, name])} is a circle"
        for other in graph[name] - {"toolkit"}:
            visit(other, (*above, name))

    for name in graph:
        visit(name, ())


def test_imports_stand_at_the_top_or_where_the_heavy_ones_of_a_command_begin():
    """Once in a command's main, so that help pages appear at once; visualize.py is yet to follow."""
    for path, name in FILES.items():
        if level(name) not in (0, 2) or name == "visualize":
            continue
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        inner = {of.name for of in functions for node in ast.walk(of) if isinstance(node, ast.Import | ast.ImportFrom)}
        assert inner <= ({"main"} if level(name) == 0 else {"parsed"}), f"{name} imports in {inner}"


def test_models_are_opened_without_pictures():
    for path, name in FILES.items():
        assert level(name) != 2 or not any(other.startswith("toolkit.pictures") for other in imported(path)), name


def test_the_root_holds_what_a_user_needs():
    allowed = {
        "train.py",
        "generate.py",
        "reconstruct.py",
        "encode.py",
        "evaluate.py",
        "visualize.py",
        "convert.py",
        "doctor.py",
        "vae.py",
        "mnist.py",
    }
    assert {path.name for path in ROOT.glob("*.py")} == allowed


def test_no_two_names_differ_by_an_ending():
    stems = sorted({path.stem for path in FILES} - {"__init__"})
    for a, b in zip(stems, stems[1:], strict=False):
        assert os.path.commonprefix([a, b]) not in (a, a[:-1]) or (a, b) == ("train", "trainer"), f"{a} and {b}"
    assert "utils" not in stems


def test_likelihoods_and_architectures_are_compared_in_their_own_files_only():
    names = "mse|bce|normal|conv|transpose|mlp|resnet|bounded"
    compared = re.compile(rf"""[=!]= ?["']({names})["']|["'](mse|bce|conv|mlp|resnet|bounded)["'] ?[=!]=""")
    for path in FILES:
        assert not compared.search(path.read_text()), path.name


def test_only_the_machine_and_the_forms_depend_on_the_device():
    asking = [name for path, name in FILES.items() if re.search(r"\bon_cpu\(\)", path.read_text())]
    assert set(asking) <= {
        "toolkit.machine.process",
        "toolkit.machine.device",
        "toolkit.layers.forms",
        "toolkit.training.trainer",
        "toolkit.metrics.checkup",
    }
    for name in ("vae.py", "toolkit/architectures/mlp.py"):
        assert not re.search(r"(?<![.\w])(split|join)\(", (ROOT / name).read_text())
