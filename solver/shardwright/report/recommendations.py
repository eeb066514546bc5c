"""Recommendations: each one is an alternative that was solved, with its figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shardwright.explain import changes
from shardwright.explain.breakeven import break_evens
from shardwright.explain.combined import combined_repairs
from shardwright.explain.repairs import more_gpus, single_repairs
from shardwright.explain.solving import Allowance, OutOfTime
from shardwright.plan.tables.summary import plan_degrees
from shardwright.plan.tables.text import number
from shardwright.plan.view import PlanView
from shardwright.schema.instance import Instance
from shardwright.schema.workload import Survive
from shardwright.solve import Solution


@dataclass(frozen=True)
class Recommendation:
    """What for, what to do, and what it gives; ``proven`` by the solver."""

    purpose: str
    action: str
    gives: str
    proven: bool


def recommendations(
    instance: Instance, solution: Solution, allowance: Allowance
) -> list[Recommendation]:
    """Repairs of an infeasible instance; headroom, growth and failures of another."""
    found: list[Recommendation] = []
    parts = _of_feasible if solution.plan is not None else _of_infeasible
    try:
        for one in parts(instance, allowance):
            found.append(one)
    except OutOfTime:
        pass
    return found


def _of_infeasible(
    instance: Instance, allowance: Allowance
) -> Iterator[Recommendation]:
    repairs, _ = single_repairs(instance, allowance, most=6)
    for repair in repairs or combined_repairs(instance, allowance, most=3):
        yield Recommendation(
            "make it feasible", repair.change, _words(repair.solution), repair.exact
        )


def _of_feasible(instance: Instance, allowance: Allowance) -> Iterator[Recommendation]:
    yield from _growth(instance, allowance)
    yield from _after_a_failure(instance, allowance)
    for one in break_evens(instance, allowance):
        yield Recommendation(
            "headroom", f"{one.field} {one.last}", "still holds", one.exact
        )


def _growth(instance: Instance, allowance: Allowance) -> Iterator[Recommendation]:
    """Twice the load: on what there is, else the fewest more nodes."""
    rate = instance.workload.request_rate_per_s
    if rate is None:
        return
    doubled = changes.with_workload(instance, request_rate_per_s=2 * rate)
    purpose = f"serve {2 * rate:g} requests/s"
    solution = allowance.solved(doubled)
    if solution.plan is not None:
        yield Recommendation(purpose, "nothing to buy", _words(solution), True)
        return
    repair = more_gpus(doubled, allowance)
    if repair is None:
        yield Recommendation(purpose, "more nodes alone do not suffice", "-", True)
        return
    yield Recommendation(purpose, repair.change, _words(repair.solution), repair.exact)


def _after_a_failure(
    instance: Instance, allowance: Allowance
) -> Iterator[Recommendation]:
    """Any GPU lost and the full rate still served, without a new plan."""
    if instance.workload.request_rate_per_s is None or instance.limits.survive:
        return
    if instance.pools != "mixed":
        return
    rule = (Survive(gpus=1),)
    safe = changes.with_limits(instance, survive=rule)
    purpose = "lose any GPU at full load"
    solution = allowance.solved(safe)
    if solution.plan is not None:
        action = "limits.survive: [{gpus: 1}]"
        yield Recommendation(purpose, action, _words(solution), True)
        return
    repair = more_gpus(safe, allowance)
    if repair is not None:
        words = f"{repair.change}, with limits.survive: [{{gpus: 1}}]"
        yield Recommendation(purpose, words, _words(repair.solution), repair.exact)


def _words(solution: Solution) -> str:
    view = solution.plan
    assert view is not None
    return f"{plan_degrees(view)}: {_figures(view)}"


def _figures(view: PlanView) -> str:
    total = view.metrics["total"]
    return (
        f"{total['gpus_used']} GPUs, {number(total['requests_per_s'], 2)} requests/s, "
        f"TPOT {number(total['tpot_ms'], 1)} ms"
    )
