"""Flow over given routes as a linear program: nodes and links share their rates.

    maximise sum_r f_r     sum_{r through node or link} f_r <= its rate     f >= 0

Rates are divided by the largest one for GLOP. The prices say which further routes would
help: those whose nodes and links cost less than 1 together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardwright.schema.errors import SolverFailure

Resource = int | tuple[int, int]
"""A node, or a link."""


@dataclass(frozen=True)
class RouteFlows:
    """Flow of every route in utok/s (not rounded) and the price of every resource."""

    flows: tuple[float, ...]
    prices: Mapping[Resource, float]


def route_flows(
    routes: Sequence[Sequence[Resource]], rates: Mapping[Resource, int]
) -> RouteFlows:
    """Solve by GLOP; SolverFailure for anything but an optimum."""
    from ortools.linear_solver import pywraplp

    lp = pywraplp.Solver.CreateSolver("GLOP")
    flows = [lp.NumVar(0, lp.infinity(), "") for _ in routes]
    users: dict[Resource, list[Any]] = {}
    for route, flow in zip(routes, flows, strict=True):
        for resource in route:
            users.setdefault(resource, []).append(flow)
    scale = float(max(rates[resource] for resource in users))
    rows = {}
    for resource, through in users.items():
        row = lp.Constraint(-lp.infinity(), rates[resource] / scale)
        for flow in through:
            row.SetCoefficient(flow, 1.0)
        rows[resource] = row
    objective = lp.Objective()
    for flow in flows:
        objective.SetCoefficient(flow, 1.0)
    objective.SetMaximization()
    status = lp.Solve()
    if status != pywraplp.Solver.OPTIMAL:
        raise SolverFailure(f"GLOP returned status {status}")
    prices = {resource: float(row.dual_value()) for resource, row in rows.items()}
    return RouteFlows(tuple(flow.solution_value() * scale for flow in flows), prices)
