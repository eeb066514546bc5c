"""One goal at a time, the earlier goals as rows; every goal is minimised."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shardwright.formulations.milp.rows import Terms
from shardwright.formulations.milp.variables import Program


def optimise(p: Program, goal: str) -> None:
    """min of the goal's expression (throughput negated)."""
    p.minimise(p.goal(goal))


def keep(p: Program, goal: str, value: int) -> None:
    """An earlier goal stays at the (signed) value that was proven for it."""
    p.whole_at_most(p.goal(goal), value, f"keep_{goal}")


def exclude(p: Program, names: Iterable[str]) -> None:
    """Not this very choice of arcs again, which exact arithmetic has judged:
    sum of x over the chosen - sum of x over the others <= chosen - 1."""
    chosen = set(names)
    terms: Terms = [(v, 1 if v.name in chosen else -1) for v in arc_variables(p)]
    p.whole_at_most(terms, len(chosen) - 1, "exclude")


def arc_variables(p: Program) -> list[Any]:
    """All arc variables of all slots."""
    return [x for s in p.slots for _, _, x in s.arcs()]
