"""B: how many replicas of which column, on which island patterns (MILP).

The twin of ``formulations/cpsat/patterns.py``, over the same columns and patterns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shardwright.formulations.cpsat.patterns import (
    Column,
    FleetRows,
    maximal_patterns,
)
from shardwright.formulations.milp.engine import Backend, Limits, run
from shardwright.formulations.milp.rows import Rows, Terms, minimisation
from shardwright.problem import Problem
from shardwright.schema.result import Status


@dataclass
class _Fleet(Rows):
    """n per column; y per island type and pattern."""

    problem: Problem
    columns: Sequence[Column]
    counts: list[Any] = field(default_factory=list)

    def total(self, figure: str, sign: int = 1) -> Terms:
        """sum of a figure of the columns times n."""
        return [
            (n, sign * getattr(c, figure))
            for n, c in zip(self.counts, self.columns, strict=True)
        ]


def best_fleet(
    problem: Problem,
    columns: Sequence[Column],
    rows: FleetRows,
    goal: str,
    limits: Limits,
    *,
    backend: Backend = "highs",
) -> tuple[int, list[int]] | None:
    """Optimal value of gpus, cost or throughput over the columns, and n per column;
    None when no fleet of them keeps the rows."""
    program = build(problem, columns, rows, goal)
    while True:
        found = run(program.lp, limits, backend)
        if found.status is Status.INFEASIBLE:
            return None
        if found.status is not Status.OPTIMAL:
            raise TimeoutError("the pattern program was not proven in time")
        counts = [found.value(n) for n in program.counts]
        if not refuse(program, rows, counts):
            figures = (getattr(c, _FIGURES[goal]) for c in columns)
            return sum(n * f for n, f in zip(counts, figures, strict=True)), counts


_FIGURES = {
    "gpus": "gpus",
    "cost": "cost_micro_usd_per_hour",
    "throughput": "rate_mtok_per_s",
}


def build(
    problem: Problem, columns: Sequence[Column], rows: FleetRows, goal: str
) -> _Fleet:
    """The program with every fleet row."""
    program = _Fleet(minimisation("fleet"), problem, columns)
    most = max(problem.usable_gpus, 0)
    program.counts = [program.integer(f"n_{j}", most) for j in range(len(columns))]
    gpu_used_once(program)
    fleet_rows(program, rows)
    program.minimise(program.total(_FIGURES[goal], -1 if goal == "throughput" else 1))
    return program


def gpu_used_once(p: _Fleet) -> None:
    """sum_j #(k,z in j) n_j <= sum_P #(z in P) y_P;  sum_P y_P <= islands of a type."""
    need: dict[tuple[int, int], list[tuple[Any, float]]] = {}
    for n, column in zip(p.counts, p.columns, strict=True):
        for segment, times in sorted(Counter(column.signature).items()):
            need.setdefault(segment, []).append((n, times))
    room: dict[tuple[int, int], list[tuple[Any, float]]] = {}
    for (k, free), islands in p.problem.island_types.items():
        sizes = [z for gpu_class, z in need if gpu_class == k]
        patterns = maximal_patterns(sizes, free)
        ys = [
            p.integer(f"y_{k}_{free}_{i}", len(islands)) for i in range(len(patterns))
        ]
        for y, pattern in zip(ys, patterns, strict=True):
            for z, times in sorted(Counter(pattern).items()):
                room.setdefault((k, z), []).append((y, -times))
        p.at_most([(y, 1) for y in ys], len(islands), "islands")
    for segment, uses in sorted(need.items()):
        p.at_most([*uses, *room.get(segment, [])], 0, "gpu_used_once")


def fleet_rows(p: _Fleet, rows: FleetRows) -> None:
    """request_rate, spare_gpus, max_gpus, max_cost_usd_per_hour, fix, earlier goals."""
    b = p.problem.bounds
    gpus = [x for x in (p.problem.usable_gpus, rows.max_gpus) if x is not None]
    p.whole_at_most(p.total("gpus"), min(gpus), "max_gpus")
    costs = [x for x in (b.max_cost_micro_usd_per_hour, rows.max_cost) if x is not None]
    if costs:
        left = p.total("cost_micro_usd_per_hour")
        p.whole_at_most(left, min(costs), "max_cost_usd_per_hour")
    rates = [x for x in (b.rate_mtok_per_s, rows.min_rate) if x is not None]
    if rates:
        p.whole_at_most(p.total("rate_mtok_per_s", -1), -max(rates), "request_rate")
    if b.replicas is not None:
        p.equal([(n, 1) for n in p.counts], b.replicas, "fix_dp")
    p.at_most([(n, -1) for n in p.counts], -1, "one_replica")


def refuse(p: _Fleet, rows: FleetRows, counts: list[int]) -> bool:
    """Cut off counts that an engine let pass within its tolerance.

    Too little rate: some n_j must be larger. Too much cost: some n_j must be smaller.
    (GPU rows have small coefficients and need no such help.)
    """
    b = p.problem.bounds
    rate = _sum_of(p, "rate_mtok_per_s", counts)
    cost = _sum_of(p, "cost_micro_usd_per_hour", counts)
    wanted = max(b.rate_mtok_per_s or 0, rows.min_rate or 0)
    budgets = (b.max_cost_micro_usd_per_hour, rows.max_cost)
    if rate < wanted:
        _some_larger(p, counts)
    elif any(budget is not None and cost > budget for budget in budgets):
        _some_smaller(p, counts)
    else:
        return False
    return True


def _sum_of(p: _Fleet, figure: str, counts: list[int]) -> int:
    return sum(n * getattr(c, figure) for n, c in zip(counts, p.columns, strict=True))


def _some_larger(p: _Fleet, counts: list[int]) -> None:
    """n_j >= (n*_j + 1) w_j, sum w >= 1."""
    chosen = [p.binary(f"larger_{p.rows}_{j}") for j in range(len(counts))]
    for n, count, w in zip(p.counts, counts, chosen, strict=True):
        p.at_most([(w, count + 1), (n, -1)], 0, "larger")
    p.at_most([(w, -1) for w in chosen], -1, "some_larger")


def _some_smaller(p: _Fleet, counts: list[int]) -> None:
    """n_j <= n*_j - w_j + (1 - w_j) most, sum w >= 1, over the j with n*_j > 0."""
    most = max(p.problem.usable_gpus, 0)
    chosen = []
    for n, count in zip(p.counts, counts, strict=True):
        if count:
            w = p.binary(f"smaller_{p.rows}")
            p.at_most([(n, 1), (w, most + 1)], count + most, "smaller")
            chosen.append(w)
    p.at_most([(w, -1) for w in chosen], -1, "some_smaller")
