"""Why not another degree: the best plan with each choice fixed, and what it loses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shardwright.explain.solving import Allowance, OutOfTime
from shardwright.plan.tables.summary import plan_degrees
from shardwright.problem.context import context_degrees
from shardwright.schema.instance import Instance
from shardwright.schema.result import Result
from shardwright.solve import Solution


@dataclass(frozen=True)
class Alternative:
    """The best plan with one degree fixed; None: none keeps all rules."""

    choice: str
    degrees: str | None
    values: tuple[tuple[str, float | None, str], ...]
    proven: bool


def alternatives(
    instance: Instance, best: Solution, allowance: Allowance
) -> list[Alternative]:
    """Every other tp, pp, dp, ep and cp worth asking, the best plan of each."""
    found = []
    try:
        for name, value in _choices(instance, best):
            fix = instance.fix.model_copy(update={name: value})
            solution = allowance.solved(instance.model_copy(update={"fix": fix}))
            view = solution.plan
            found.append(
                Alternative(
                    f"{name.upper()}{value}",
                    None if view is None else plan_degrees(view),
                    objective_values(solution.result) if view else (),
                    solution.status.value in ("OPTIMAL", "INFEASIBLE"),
                )
            )
    except OutOfTime:
        pass
    return found


def objective_values(result: Result) -> tuple[tuple[str, float | None, str], ...]:
    """(goal, value, unit) of every goal."""
    return tuple((g.name, g.value, g.unit) for g in result.objectives)


def _choices(instance: Instance, best: Solution) -> Iterator[tuple[str, int]]:
    """Powers of two that the best plan does not use and that is not fixed already."""
    assert best.plan is not None
    replicas = best.plan.document.replicas()
    used = {
        "tp": {s.shape.tp for r in replicas for s in r.stages},
        "pp": {len(r.stages) for r in replicas},
        "dp": {len(replicas)},
        "ep": {s.shape.ep for r in replicas for s in r.stages},
    }
    island = max(instance.cluster.island_size(g) for g in instance.cluster.nodes)
    gpus = sum(g.count * g.gpus for g in instance.cluster.nodes)
    tops = {"tp": island, "pp": min(8, gpus), "dp": min(8, gpus)}
    if max(context_degrees(instance), default=1) > 1:
        used["cp"] = {s.shape.cp for r in replicas for s in r.stages}
        tops["cp"] = max(context_degrees(instance))
    if any(s.expert_slots for r in replicas for s in r.stages):
        tops["ep"] = min(gpus, 64)
    for name, top in tops.items():
        value = 1
        while value <= top:
            if value not in used[name] and getattr(instance.fix, name) is None:
                yield name, value
            value *= 2
