"""The shape of the source: who may import whom, how long things may be, what has a test."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "vibnet"
FILES = sorted(SRC.rglob("*.py"))

ENGINE = {"errors", "config", "information", "layers", "graph", "methods"}
ENGINE |= {"cost", "surgery"}
MAY_IMPORT: dict[str, set[str]] = {  # top to bottom; a part is a file or a folder of src/vibnet
    "errors": set(),
    "config": {"errors"},
    "information": {"errors"},
    "layers": {"errors"},
    "graph": {"errors", "config", "layers"},
    "methods": {"errors", "config", "information", "graph"},
    "cost": {"errors", "config", "layers", "graph"},
    "surgery": ENGINE - {"surgery"},
    "train": ENGINE,
    "zoo": {"errors"},
    "recipes": ENGINE | {"train", "zoo"},
    "analysis": ENGINE | {"train", "zoo", "recipes"},
    "report": ENGINE | {"train", "zoo", "recipes"},
    "export": ENGINE,
    "cli": ENGINE | {"export", "train", "zoo", "recipes", "analysis", "report"},
}
GRAPH = "capture", "labels", "sites", "trial"  # each imports itself and those before it
MAY_PRINT = {"cli", "report"}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
# Limits raised in the open: "part/file.py" or "part/file.py:function" -> (limit, reason).
RAISED: dict[str, tuple[int, str]] = {}
OPTIONAL = ("torchvision", "timm", "transformers", "sklearn", "matplotlib")

each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SRC).as_posix())


def part_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def parts_imported(source: str, inside: tuple[str, ...] = ("vibnet",)) -> set[str]:
    """The parts of vibnet that a file imports; '.' is a relative or a whole-package import.

    `inside` names the package whose parts are asked for.
    """
    used, depth = set(), len(inside)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.level:
                used.add(".")
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        inner = [parts for name in names if (parts := name.split("."))[:depth] == [*inside]]
        used |= {name[depth] if len(name) > depth else "." for name in inner}
    return used


def long_functions(source: str, limit: int) -> dict[str, int]:
    """Functions with over `limit` lines of code; docstrings, blank lines and comments are free."""
    lines = source.splitlines()
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0]
        text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        docstring = range(first.lineno, (first.end_lineno or 0) + 1) if text else range(0)
        length = sum(
            bool(lines[i - 1].strip()) and not lines[i - 1].strip().startswith("#")
            for i in range(node.lineno, (node.end_lineno or 0) + 1)
            if i not in docstring
        )
        if length > limit:
            found[node.name] = length
    return found


def prints(source: str) -> list[int]:
    """The lines on which a file calls print."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]


def limit_of(name: str, usual: int) -> int:
    return RAISED.get(name, (usual, ""))[0]


def test_there_are_source_files_to_look_at():
    assert SRC / "zoo" / "networks.py" in FILES


def test_the_table_of_imports_has_no_cycle():
    list(TopologicalSorter(MAY_IMPORT).static_order())


def test_the_table_of_imports_names_only_its_own_parts():
    assert set.union(*MAY_IMPORT.values()) <= set(MAY_IMPORT)


@each_file
def test_every_source_file_belongs_to_a_part(path):
    assert part_of(path) in {*MAY_IMPORT, "__init__", "__main__"}


@each_file
def test_a_file_imports_only_what_its_part_may(path):
    part = part_of(path)
    if part in {"__init__", "__main__"}:
        allowed = set(MAY_IMPORT)
    else:
        allowed = MAY_IMPORT[part] | {part}
    assert parts_imported(path.read_text()) <= allowed


@each_file
def test_a_file_is_short(path):
    limit = limit_of(path.relative_to(SRC).as_posix(), MAX_FILE_LINES)
    assert len(path.read_text().splitlines()) <= limit


@each_file
def test_functions_are_short(path):
    name = path.relative_to(SRC).as_posix()
    found = long_functions(path.read_text(), MAX_FUNCTION_LINES)
    assert {f: n for f, n in found.items() if n > limit_of(f"{name}:{f}", 0)} == {}


@each_file
def test_a_file_has_its_twin_among_the_tests(path):
    if path.name != "__init__.py":
        twin = ROOT / "tests" / path.relative_to(SRC).parent / f"test_{path.name}"
        assert twin.is_file(), f"{twin.relative_to(ROOT)} is missing"


@each_file
def test_only_what_a_person_sees_prints(path):
    assert part_of(path) in MAY_PRINT or prints(path.read_text()) == []


def test_a_raised_limit_is_needed_and_has_its_reason():
    for name, (limit, reason) in RAISED.items():
        file, _, function = name.partition(":")
        source = (SRC / file).read_text()
        usual = MAX_FUNCTION_LINES if function else MAX_FILE_LINES
        found = long_functions(source, usual).get(function, 0)
        assert reason
        assert usual < (found if function else len(source.splitlines())) <= limit


@each_file
def test_the_folders_of_the_graph_build_on_those_before_them(path):
    *_, folder = path.relative_to(SRC).parts[:2]
    if path.relative_to(SRC).parts[0] == "graph" and folder in GRAPH:
        allowed = {"checks", *GRAPH[: GRAPH.index(folder) + 1]}
        assert parts_imported(path.read_text(), ("vibnet", "graph")) <= allowed


def test_importing_vibnet_imports_no_optional_dependency():
    code = f"import sys, vibnet; print([m for m in {OPTIONAL!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("from vibnet.graph.sites.sites import Site", {"graph"}),
        ("from vibnet import graph", {"graph"}),
        ("import vibnet.graph.sites.sites as s", {"graph"}),
        ("def f():\n    from vibnet import cost, zoo", {"cost", "zoo"}),
        ("import vibnet", {"."}),
        ("from . import graph", {"."}),
        ("from ..graph import sites", {"."}),
        ("import vibnetwork, torch", set()),
    ],
)
def test_an_import_is_seen_in_every_spelling(source, parts):
    assert parts_imported(source) == parts


def test_long_functions_and_prints_are_seen():
    body = '    """Two\n    lines."""\n    # why\n\n' + "    print(1)\n" * 5
    assert long_functions("def f():\n" + body, 5) == {"f": 6}
    assert long_functions("def f():\n" + body, 6) == {}
    assert prints("def f():\n" + body) == [6, 7, 8, 9, 10]
