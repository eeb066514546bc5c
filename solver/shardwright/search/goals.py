"""The goals in integers: sense, unit, and the value of a fleet.

| goal | sense | integer unit |
|---|---|---|
| gpus | min | GPUs |
| cost | min | micro-USD per hour |
| throughput | max | thousandths of an output token per second |
| tpot | min | ns, largest over the replicas |
| ttft | min | ns, largest over the replicas |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from shardwright.cost.law import served
from shardwright.problem import Figures, Fleet, PoolRole, Problem

MAXIMISED = frozenset({"throughput"})


def whole(roles: Iterable[PoolRole]) -> bool:
    """Rule pools_complete: prefill replicas have decode replicas, and none without."""
    present = set(roles)
    return ("prefill" in present) == ("decode" in present)


def _served(figures: Sequence[Figures]) -> int:
    return served((f.role, f.rate_mtok_per_s) for f in figures)


def _tpot(figures: Sequence[Figures]) -> int:
    return max((f.tpot_ns for f in figures if f.role != "prefill"), default=0)


_VALUES: dict[str, Callable[[Sequence[Figures]], int]] = {
    "gpus": lambda figures: sum(sum(f.gpus) for f in figures),
    "cost": lambda figures: sum(f.cost_micro_usd_per_hour for f in figures),
    "throughput": _served,
    "tpot": _tpot,
    "ttft": lambda figures: max(f.times.ttft_ns for f in figures),
}

ALL_GOALS = frozenset(_VALUES)


def goal_value(goal: str, figures: Sequence[Figures]) -> int:
    """Value of one goal for the replicas of a fleet."""
    return _VALUES[goal](figures)


def _rated(problem: Problem, fleet: Fleet) -> list[Figures]:
    """Figures of every replica; equal designs are evaluated once."""
    known = {d: problem.rated(d) for d in {r.design for r in fleet.replicas}}
    return [known[r.design] for r in fleet.replicas]


def fleet_values(problem: Problem, fleet: Fleet) -> tuple[int, ...]:
    """Values of all goals of the problem."""
    figures = _rated(problem, fleet)
    return tuple(goal_value(goal, figures) for goal in problem.goals)


def sense(goal: str) -> int:
    """+1 for a goal that is minimised, -1 for one that is maximised."""
    return -1 if goal in MAXIMISED else 1


def better(goals: Sequence[str], left: Sequence[int], right: Sequence[int]) -> bool:
    """Whether ``left`` is lexicographically strictly better than ``right``."""
    for goal, a, b in zip(goals, left, right, strict=True):
        if a != b:
            return sense(goal) * a < sense(goal) * b
    return False


def fleet_fits(problem: Problem, fleet: Fleet) -> bool:
    """Every rule of the fleet: designs, packing, rate, spares and budgets."""
    figures = _rated(problem, fleet)
    designs = {r.design: f for r, f in zip(fleet.replicas, figures, strict=True)}
    designs_fit = all(problem.design_fits(d, f) for d, f in designs.items())
    loaded = problem.percentiles is not None
    at_work = not loaded or all(f.rate_mtok_per_s > 0 for f in figures)
    return (
        designs_fit
        and at_work
        and _packed(problem, fleet)
        and fleet_rows_fit(problem, figures)
        and _survives_nodes(problem, fleet, figures)
    )


def survives_gpus(problem: Problem, rates: Sequence[int]) -> bool:
    """Rule survive for GPUs: without the k fastest replicas the load is served."""
    slowest_first = sorted(rates)
    return all(
        sum(slowest_first[: max(0, len(rates) - rule.count)]) >= rule.rate_mtok_per_s
        for rule in problem.bounds.survive
        if not rule.of_nodes
    )


def _survives_nodes(problem: Problem, fleet: Fleet, figures: Sequence[Figures]) -> bool:
    """Rule survive for nodes: at worst the k nodes that stop most, one by one."""
    lost: dict[str, int] = {}
    for replica, f in zip(fleet.replicas, figures, strict=True):
        islands = {v for run in replica.islands for v in run}
        for node in {problem.islands[v].node for v in islands}:
            lost[node] = lost.get(node, 0) + f.rate_mtok_per_s
    worst, total = sorted(lost.values(), reverse=True), _served(figures)
    return all(
        total - sum(worst[: rule.count]) >= rule.rate_mtok_per_s
        for rule in problem.bounds.survive
        if rule.of_nodes
    )


def _packed(problem: Problem, fleet: Fleet) -> bool:
    used = [0] * len(problem.islands)
    for replica in fleet.replicas:
        runs = replica.design.segment_runs()
        for islands, run in zip(replica.islands, runs, strict=True):
            units = [problem.units[replica.design.stages[i].unit] for i in run]
            if any(unit.islands != len(set(islands)) for unit in units):
                return False
            for island in islands:
                if any(u.gpu_class != problem.islands[island].gpu_class for u in units):
                    return False
                used[island] += sum(u.shape.gpus_per_island for u in units)
    return all(
        u <= island.free for u, island in zip(used, problem.islands, strict=True)
    )


def fleet_rows_fit(problem: Problem, figures: Sequence[Figures]) -> bool:
    """Rules pools_complete, request_rate, survive (GPUs), spare_gpus, max_gpus,
    max_cost_usd_per_hour, fix.dp."""
    b = problem.bounds
    gpus = goal_value("gpus", figures)
    return (
        bool(figures)
        and whole(f.role for f in figures)
        and gpus <= problem.usable_gpus
        and survives_gpus(problem, [f.rate_mtok_per_s for f in figures])
        and (b.replicas is None or len(figures) == b.replicas)
        and (
            b.rate_mtok_per_s is None
            or goal_value("throughput", figures) >= b.rate_mtok_per_s
        )
        and (
            b.max_cost_micro_usd_per_hour is None
            or goal_value("cost", figures) <= b.max_cost_micro_usd_per_hour
        )
    )
