"""The fleet as a linear program over columns: a bound, and prices that thin them out.

Relaxed against ``cpsat/patterns.py``: whole replicas, and islands merged into one pool
of GPUs per class. Every fleet that uses column j costs at least LP + reduced cost of j
(goals to be minimised; signs turn for throughput), so a column whose sum is worse than
a known plan cannot be part of a better one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from shardwright.formulations.cpsat.patterns import Column, FleetRows
from shardwright.problem import Problem
from shardwright.schema.errors import SolverFailure

_SLACK = 1e-6
"""Relative allowance for the floating point of the linear program."""


@dataclass(frozen=True)
class FleetPrices:
    """LP value and reduced cost of every column."""

    value: float
    reduced: tuple[float, ...]
    maximised: bool

    def bound(self) -> int:
        """The integer bound that the relaxation proves."""
        slack = _SLACK * max(1.0, abs(self.value))
        return floor(self.value + slack) if self.maximised else ceil(self.value - slack)

    def promising(self, known: Sequence[int]) -> list[int]:
        """Columns that a plan as good as the known one may use, the likeliest first.

        Without one, those that the relaxation itself may use: of no reduced cost.
        """
        size = [abs(r) for r in self.reduced]
        kept = self.keep(known[0]) if known else range(len(size))
        most = float("inf") if known else _SLACK * max(size, default=0.0)
        return sorted((j for j in kept if size[j] <= most), key=lambda j: size[j])

    def keep(self, known: int) -> list[int]:
        """Columns that a plan as good as ``known`` may use."""
        slack = _SLACK * max(1.0, abs(self.value))
        if self.maximised:
            return [
                j for j, r in enumerate(self.reduced) if self.value + r >= known - slack
            ]
        return [
            j for j, r in enumerate(self.reduced) if self.value + r <= known + slack
        ]


def fleet_prices(
    problem: Problem, columns: Sequence[Column], rows: FleetRows, goal: str
) -> FleetPrices | None:
    """Solve the relaxation with GLOP; None when even it is infeasible."""
    from ortools.linear_solver import pywraplp

    lp = pywraplp.Solver.CreateSolver("GLOP")
    infinity = lp.infinity()
    n = [lp.NumVar(0, infinity, "") for _ in columns]
    for k, gpu in enumerate(problem.classes):
        _row(lp, n, [_class_gpus(c, k) for c in columns], -infinity, gpu.free_gpus)
    through = _served_rate(lp, n, columns, infinity)
    _fleet_rows(lp, n, problem, columns, through, rows, infinity)
    objective = lp.Objective()
    maximised = goal == "throughput"
    for var, column in zip(n, columns, strict=True):
        if not maximised or column.role == "mixed":
            objective.SetCoefficient(var, float(_weight(column, goal)))
    if maximised:
        objective.SetCoefficient(through, 1.0)
    objective.SetOptimizationDirection(maximised)
    status = lp.Solve()
    if status == pywraplp.Solver.INFEASIBLE:
        return None
    if status != pywraplp.Solver.OPTIMAL:
        raise SolverFailure(f"GLOP returned status {status}")
    return FleetPrices(
        float(objective.Value()),
        tuple(float(var.reduced_cost()) for var in n),
        maximised,
    )


def _class_gpus(column: Column, gpu_class: int) -> int:
    return sum(size for k, size in column.signature if k == gpu_class)


def _weight(column: Column, goal: str) -> int:
    return {
        "gpus": column.gpus,
        "cost": column.cost_micro_usd_per_hour,
        "throughput": column.rate_mtok_per_s,
    }[goal]


def _row(lp: Any, n: list[Any], weights: list[int], low: float, high: float) -> None:
    row = lp.Constraint(float(low), float(high))
    for var, weight in zip(n, weights, strict=True):
        if weight:
            row.SetCoefficient(var, float(weight))


def _served_rate(
    lp: Any, n: list[Any], columns: Sequence[Column], infinity: float
) -> Any:
    """t of the pools: at most the rates of prefill, and those of decode."""
    through = lp.NumVar(0, infinity, "through")
    for role in ("prefill", "decode"):
        rates = [c.rate_mtok_per_s if c.role == role else 0 for c in columns]
        _row(lp, [*n, through], [*rates, -1], 0, infinity)
    return through


def _fleet_rows(
    lp: Any,
    n: list[Any],
    problem: Problem,
    columns: Sequence[Column],
    through: Any,
    rows: FleetRows,
    infinity: float,
) -> None:
    """max_gpus, spare_gpus, max_cost_usd_per_hour, request_rate, replica count."""
    b = problem.bounds
    gpus = [c.gpus for c in columns]
    cost = [c.cost_micro_usd_per_hour for c in columns]
    rate = [c.rate_mtok_per_s if c.role == "mixed" else 0 for c in columns]
    most = [x for x in (problem.usable_gpus, rows.max_gpus) if x is not None]
    _row(lp, n, gpus, -infinity, min(most))
    costs = [x for x in (b.max_cost_micro_usd_per_hour, rows.max_cost) if x is not None]
    if costs:
        _row(lp, n, cost, -infinity, min(costs))
    rates = [x for x in (b.rate_mtok_per_s, rows.min_rate) if x is not None]
    if rates:
        _row(lp, [*n, through], [*rate, 1], max(rates), infinity)
    least = 1 if b.replicas is None else b.replicas
    _row(lp, n, [1] * len(n), least, b.replicas or infinity)
