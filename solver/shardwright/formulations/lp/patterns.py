"""The fleet as a linear program over columns with island patterns: prices of segments.

Relaxed against ``cpsat/patterns.py``: whole replicas and whole islands. Its duals price
a segment of z GPUs of class k. Sizes that no column has are priced as high as the
island's value allows: prices only have to keep, for every island type,

    max over multisets P that fit of  sum of pi_{k,z} over z in P  =  V_(k,free),

and then sum_j price_j n_j <= sum over islands of V for every fleet, whatever LP it
came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shardwright.formulations.cpsat.patterns import (
    Column,
    FleetRows,
    maximal_patterns,
)
from shardwright.problem import Problem

_ROUNDING = 1.0 + 1e-12


@dataclass(frozen=True)
class SegmentPrices:
    """LP value and the duals of its rows, in the goal's unit.

    segment[k][z]; gpu, cost: of a GPU and of a micro-USD per hour in the fleet rows;
    rate: what a mtok/s earns.
    """

    value: float
    segment: tuple[tuple[float, ...], ...]
    gpu: float
    cost: float
    rate: float


def knapsack(prices: Sequence[float], free: int) -> list[float]:
    """Most value of segments on 0..free GPUs."""
    best = [0.0] * (free + 1)
    for room in range(1, free + 1):
        best[room] = max(
            (
                best[room - z] + prices[z]
                for z in range(1, min(room, len(prices) - 1) + 1)
            ),
            default=0.0,
        )
        best[room] = max(best[room], best[room - 1])
    return best


def island_values(
    problem: Problem, segment: Sequence[Sequence[float]]
) -> dict[tuple[int, int], float]:
    """V of every island type."""
    return {
        (k, free): knapsack(segment[k], free)[free] for k, free in problem.island_types
    }


def raised(
    problem: Problem, segment: Sequence[dict[int, float]]
) -> tuple[tuple[float, ...], ...]:
    """Prices for every size, as large as the values of the islands allow.

    The larger the prices of sizes that are not worth an island's place, the fewer
    designs look good.
    """
    found = []
    for k in range(len(problem.classes)):
        room = max((f for c, f in problem.island_types if c == k), default=0)
        prices = [0.0] * (room + 1)
        for z, price in segment[k].items():
            prices[z] = max(0.0, price)
        frees = [f for c, f in problem.island_types if c == k]
        values = {f: knapsack(prices, f)[f] for f in frees}
        known = sorted(segment[k], key=lambda z: -prices[z] / z)
        for z in [*known, *(z for z in range(room, 0, -1) if z not in segment[k])]:
            prices[z] = max(prices[z], _largest(prices, z, values))
        found.append(tuple(prices))
    return tuple(found)


def _largest(prices: list[float], z: int, values: dict[int, float]) -> float:
    """The largest price of size z that raises no island's value."""
    others = [*prices]
    others[z] = 0.0
    most = float("inf")
    for free, value in values.items():
        best = knapsack(others, free)
        for times in range(1, free // z + 1):
            most = min(most, (value - best[free - times * z]) / times)
    return max(0.0, most) if most < float("inf") else prices[z]


def segment_prices(
    problem: Problem, columns: Sequence[Column], rows: FleetRows, goal: str
) -> SegmentPrices | None:
    """Solve with GLOP; None when infeasible. Goals throughput, gpus, cost."""
    from ortools.linear_solver import pywraplp

    lp = pywraplp.Solver.CreateSolver("GLOP")
    top = lp.infinity()
    counts = [lp.NumVar(0, top, "") for _ in columns]
    demand: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for j, column in enumerate(columns):
        for part, times in sorted(Counter(column.signature).items()):
            demand.setdefault(part, []).append((j, times))
    packing = {}
    for part, uses in sorted(demand.items()):
        packing[part] = lp.Constraint(-top, 0)
        for j, times in uses:
            packing[part].SetCoefficient(counts[j], times)
    islands_rows = {}
    for (k, free), islands in problem.island_types.items():
        whole = islands_rows[k, free] = lp.Constraint(0, len(islands))
        sizes = [z for c, z in packing if c == k]
        for pattern in maximal_patterns(sizes, free):
            y = lp.NumVar(0, top, "")
            whole.SetCoefficient(y, 1)
            for z, times in Counter(pattern).items():
                packing[k, z].SetCoefficient(y, -times)
    b = problem.bounds
    rate = _row(lp, counts, [c.rate_mtok_per_s for c in columns])
    rates = [x for x in (b.rate_mtok_per_s, rows.min_rate) if x is not None]
    if rates:
        rate.SetLb(max(rates))
    gpus = _row(lp, counts, [c.gpus for c in columns])
    caps = [x for x in (problem.usable_gpus, rows.max_gpus) if x is not None]
    gpus.SetUb(min(caps))
    cost = _row(lp, counts, [c.cost_micro_usd_per_hour for c in columns])
    costs = [x for x in (b.max_cost_micro_usd_per_hour, rows.max_cost) if x is not None]
    if costs:
        cost.SetUb(min(costs))
    weights = {
        "throughput": [c.rate_mtok_per_s for c in columns],
        "gpus": [c.gpus for c in columns],
        "cost": [c.cost_micro_usd_per_hour for c in columns],
    }[goal]
    objective = lp.Objective()
    for var, weight in zip(counts, weights, strict=True):
        objective.SetCoefficient(var, float(weight))
    objective.SetOptimizationDirection(goal == "throughput")
    if lp.Solve() != pywraplp.Solver.OPTIMAL:
        return None
    sign = 1.0 if goal == "throughput" else -1.0
    segment: list[dict[int, float]] = [{} for _ in problem.classes]
    for (k, z), row in packing.items():
        segment[k][z] = max(0.0, sign * row.dual_value())
    gpu, each = max(0.0, sign * gpus.dual_value()), max(0.0, sign * cost.dual_value())
    earned = abs(rate.dual_value())
    needs = [
        (c.signature, _need(c, goal, gpu, each, earned, weight))
        for c, weight in zip(columns, weights, strict=True)
    ]
    values = {t: max(0.0, sign * r.dual_value()) for t, r in islands_rows.items()}
    smooth = _smooth(problem, needs, values)
    return SegmentPrices(
        objective.Value(),
        raised(problem, segment) if smooth is None else smooth,
        gpu,
        each,
        earned,
    )


def _need(
    column: Column, goal: str, gpu: float, cost: float, rate: float, weight: int
) -> float:
    """What the segments of a column must be priced at least."""
    own = gpu * column.gpus + cost * column.cost_micro_usd_per_hour
    if goal == "throughput":
        return column.rate_mtok_per_s - own
    return rate * column.rate_mtok_per_s - weight - own


_SMOOTH_ROOM = 10


def _smooth(
    problem: Problem,
    needs: Sequence[tuple[tuple[tuple[int, int], ...], float]],
    values: dict[tuple[int, int], float],
) -> tuple[tuple[float, ...], ...] | None:
    """Of the optimal duals those closest to linear in z; None for large islands.

    Duals of the pattern program are degenerate: a size that no column has may be priced
    anywhere, and a price of nothing lets every design look good.
    """
    from ortools.linear_solver import pywraplp

    rooms = [
        max((f for c, f in problem.island_types if c == k), default=0)
        for k in range(len(problem.classes))
    ]
    if max(rooms) > _SMOOTH_ROOM:
        return None
    lp = pywraplp.Solver.CreateSolver("GLOP")
    unit = max(values.values(), default=0.0) or 1.0
    price = {
        (k, z): lp.NumVar(0, lp.infinity(), "")
        for k, room in enumerate(rooms)
        for z in range(1, room + 1)
    }
    for (k, free), value in values.items():
        for pattern in maximal_patterns(range(1, free + 1), free):
            row = lp.Constraint(-lp.infinity(), value / unit * _ROUNDING)
            for z, times in Counter(pattern).items():
                row.SetCoefficient(price[k, z], times)
    for signature, need in needs:
        if need > 0:
            row = lp.Constraint(need / unit / _ROUNDING, lp.infinity())
            for part, times in Counter(signature).items():
                row.SetCoefficient(price[part], times)
    objective = lp.Objective()
    for (k, z), variable in price.items():
        per_gpu = max(values.get((k, f), 0.0) / f for c, f in values if c == k)
        if per_gpu <= 0:
            continue
        near = lp.NumVar(0, 1, "")
        row = lp.Constraint(0, lp.infinity())
        row.SetCoefficient(variable, unit / (per_gpu * z))
        row.SetCoefficient(near, -1)
        objective.SetCoefficient(near, 1)
    objective.SetMaximization()
    if lp.Solve() != pywraplp.Solver.OPTIMAL:
        return None
    return tuple(
        (
            0.0,
            *(
                max(0.0, price[k, z].solution_value() * unit)
                for z in range(1, room + 1)
            ),
        )
        for k, room in enumerate(rooms)
    )


def _row(lp: Any, counts: Sequence[Any], weights: Sequence[int]) -> Any:
    row = lp.Constraint(-lp.infinity(), lp.infinity())
    for var, weight in zip(counts, weights, strict=True):
        row.SetCoefficient(var, float(weight))
    return row
