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

from collections.abc import Callable, Sequence

from shardwright.problem import Figures, Fleet, Problem

MAXIMISED = frozenset({"throughput"})

_VALUES: dict[str, Callable[[Sequence[Figures]], int]] = {
    "gpus": lambda figures: sum(sum(f.gpus) for f in figures),
    "cost": lambda figures: sum(f.cost_micro_usd_per_hour for f in figures),
    "throughput": lambda figures: sum(f.rate_mtok_per_s for f in figures),
    "tpot": lambda figures: max(f.times.tpot_ns for f in figures),
    "ttft": lambda figures: max(f.times.ttft_ns for f in figures),
}

ALL_GOALS = frozenset(_VALUES)


def goal_value(goal: str, figures: Sequence[Figures]) -> int:
    """Value of one goal for the replicas of a fleet."""
    return _VALUES[goal](figures)


def fleet_values(problem: Problem, fleet: Fleet) -> tuple[int, ...]:
    """Values of all goals of the problem."""
    figures = [problem.figures(r.design) for r in fleet.replicas]
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
    figures = [problem.figures(r.design) for r in fleet.replicas]
    designs_fit = all(
        problem.design_fits(r.design, f)
        for r, f in zip(fleet.replicas, figures, strict=True)
    )
    return designs_fit and _packed(problem, fleet) and fleet_rows_fit(problem, figures)


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
    """Rules request_rate, spare_gpus, max_gpus, max_cost_usd_per_hour, fix.dp."""
    b = problem.bounds
    gpus = goal_value("gpus", figures)
    return (
        bool(figures)
        and gpus <= problem.usable_gpus
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
