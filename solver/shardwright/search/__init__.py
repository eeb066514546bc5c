"""Strategies over the programs. ``solver(name)`` loads one; nothing else is loaded."""

from __future__ import annotations

from importlib import import_module

from shardwright.schema.errors import SolverUnavailable
from shardwright.search.base import Solver

_HOMES = {
    "default": ("decomposition", "DecompositionSolver", ()),
    "exhaustive": ("exhaustive", "ExhaustiveSolver", ()),
    "direct": ("direct", "DirectSolver", ()),
    "milp-highs": ("milp", "MilpSolver", ("milp-highs",)),
    "milp-cbc": ("milp", "MilpSolver", ("milp-cbc",)),
    "greedy": ("greedy", "GreedySolver", ()),
}

SOLVER_NAMES = tuple(_HOMES)


def solver(name: str) -> Solver:
    """The solver of that name; its engine is imported when it first solves."""
    if name not in _HOMES:
        raise SolverUnavailable(
            f"no solver is called {name!r}; there are {', '.join(SOLVER_NAMES)}"
        )
    module, cls, arguments = _HOMES[name]
    home = import_module(f"shardwright.search.{module}")
    found: Solver = getattr(home, cls)(*arguments)
    return found
