"""The house as DESIGN section 7 draws it: rooms, their order, their sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "solver" / "shardwright"
ROOMS = (
    "schema",
    "ingest",
    "cost",
    "experts",
    "problem",
    "formulations",
    "search",
    "plan",
    "check",
    "outcome",
    "alternatives",
    "solve",
    "simulate",
    "audit",
    "explain",
    "resilience",
    "planning",
    "emit",
    "report",
    "cli",
)
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("ortools", "pulp", "highspy", "rich", "typer", "ruamel")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 80
FACE = ("__init__", "_version", "_callable")
"""Modules of the package itself: any room may use the private ones."""


def room_of(path: Path) -> str:
    """The first name below the package: a folder, or a module such as solve.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def in_rooms() -> list[Path]:
    """Modules of the rooms; the package's own face is not one."""
    return [path for path in MODULES if room_of(path) not in FACE]


def imported_rooms(path: Path) -> Iterator[str]:
    """Rooms that a module imports anywhere, functions and type checks included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield from _rooms(_absolute(path, node), names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from _rooms(alias.name, [])


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    above = path.relative_to(PACKAGE.parent).parts[: -node.level]
    return ".".join([*above, *([node.module] if node.module else [])])


def _rooms(module: str, names: list[str]) -> Iterator[str]:
    parts = module.split(".")
    if parts[0] == "shardwright":
        yield from [parts[1]] if len(parts) > 1 else names


@pytest.mark.parametrize("path", in_rooms(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_data_flows_down_through_the_rooms(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{path} is in no room"
    for imported in imported_rooms(path):
        if imported not in FACE:
            assert ROOMS.index(imported) <= ROOMS.index(room), (
                f"{path.relative_to(ROOT)} imports the later room {imported}"
            )


def test_the_checker_imports_only_schemas_and_the_standard_library() -> None:
    for path in (p for p in MODULES if room_of(p) == "check"):
        assert set(imported_rooms(path)) <= {"check", "schema", *FACE}, path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name in _top_names(path, node):
                    assert name == "shardwright" or name in sys.stdlib_module_names


def _top_names(path: Path, node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [_absolute(path, node).split(".")[0]]
    return [alias.name.split(".")[0] for alias in node.names]


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import shardwright", HEAVY),
        ("import shardwright.cli", tuple(name for name in HEAVY if name != "typer")),
        ("import shardwright.plan", HEAVY),
        ("import shardwright.check", (*HEAVY, "numpy")),
    ],
)
def test_engines_are_imported_only_when_needed(
    statement: str, heavy: tuple[str, ...]
) -> None:
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert not loaded & set(heavy)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_nothing_is_read_from_outside_the_repository() -> None:
    outside = "/".join(("..", "shared"))
    folders = ("solver", "models", "instances", "benchmarks", "examples", "docs")
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".yaml", ".json", ".toml"):
                assert outside not in path.read_text(encoding="utf-8"), path
