"""What ``doctor`` looks at: each finding is a name, a value, and whether it is fine."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from shardwright._version import __version__

Finding = tuple[str, str, bool]

_PACKAGES = (
    "ortools",
    "pulp",
    "highspy",
    "numpy",
    "pydantic",
    "ruamel.yaml",
    "tabulate",
    "typer",
    "rich",
)
_ENGINES = {
    "CP-SAT": "ortools.sat.python.cp_model",
    "GLOP": "ortools.linear_solver.pywraplp",
    "HiGHS": "highspy",
    "PuLP": "pulp",
}


def findings() -> list[Finding]:
    """Everything that is looked at, in order."""
    return [
        ("shardwright", __version__, True),
        ("python", platform.python_version(), sys.version_info >= (3, 11)),
        *(_package(name) for name in _PACKAGES),
        _clash(),
        *(_engine(name, module) for name, module in _ENGINES.items()),
        *_pulp_solvers(),
        _strategies(),
        *_catalogue(),
        _threads(),
    ]


def _package(name: str) -> Finding:
    try:
        return name, version(name), True
    except PackageNotFoundError:
        return name, "not installed", False


def _clash() -> Finding:
    """highspy from 1.15 on cannot share a process with ortools 9.15; 1.14 is wrong."""
    name = "ortools beside highspy"
    try:
        found = version("highspy")
    except PackageNotFoundError:
        return name, "highspy is not installed", False
    major, minor = (int(part) for part in found.split(".")[:2])
    if (1, 12) <= (major, minor) < (1, 14):
        return name, "these versions share a process", True
    return name, f"highspy {found} does not work here; 1.12 and 1.13 do", False


def _engine(name: str, module: str) -> Finding:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return name, str(error), False
    return name, "loads", True


def _pulp_solvers() -> Iterator[Finding]:
    try:
        pulp = importlib.import_module("pulp")
    except ImportError:
        return
    available = pulp.listSolvers(onlyAvailable=True)
    for name in ("PULP_CBC_CMD", "HiGHS"):
        there = name in available
        yield f"PuLP {name}", "available" if there else "not available", there


def _strategies() -> Finding:
    """Every name that ``--solver`` takes; each must load."""
    from shardwright.search import SOLVER_NAMES, solver

    broken = []
    for name in SOLVER_NAMES:
        try:
            solver(name)
        except ImportError as error:
            broken.append(f"{name}: {error}")
    found = "; ".join(broken) if broken else ", ".join(SOLVER_NAMES)
    return "strategies (--solver)", found, not broken


def _catalogue() -> Iterator[Finding]:
    from shardwright.ingest import names

    for kind, words in (
        ("llm", "models"),
        ("gpu", "GPU types"),
        ("calibration", "calibrations"),
    ):
        count = len(names(kind))
        yield f"catalogue: {words}", str(count), count > 0


def _threads() -> Finding:
    usable = len(os.sched_getaffinity(0))
    return "worker threads", f"{usable} usable of {os.cpu_count()} cores", usable > 0
