"""One goal at a time, the earlier goals as rows."""

from __future__ import annotations

from shardwright.formulations.cpsat.engine import EngineRun
from shardwright.formulations.cpsat.variables import Program


def optimise(p: Program, goal: str, maximise: bool) -> None:
    """max or min of the goal's expression; integers only."""
    if maximise:
        p.model.maximize(p.goal(goal))
    else:
        p.model.minimize(p.goal(goal))


def keep(p: Program, goal: str, value: int, maximise: bool) -> None:
    """An earlier goal stays at the value that was proven for it."""
    if maximise:
        p.model.add(p.goal(goal) >= value)
    else:
        p.model.add(p.goal(goal) <= value)


def hint(p: Program, run: EngineRun) -> None:
    """Start from the values of the last run, auxiliary variables included."""
    p.model.clear_hints()
    for index, value in enumerate(run.values):
        p.model.add_hint(p.model.get_int_var_from_proto_index(index), value)
