"""Prices for a certificate, from the linear program of the fleet."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from shardwright.problem import Bounds, Problem
from shardwright.search.base import SearchLimits
from shardwright.search.by_prices import NoPlan, PricedSearch
from shardwright.search.priced import applies

_FINE = 10**6
_MOST_SLACK = 10**9
"""In ppb: a bound of twice the prices proves nothing of use."""


def certificate_prices(
    problem: Problem, limits: SearchLimits
) -> tuple[list[list[int]], int, int] | None:
    """(prices per class and size, per GPU, slack in ppb) for the first goal.

    None where prices do not cover a rule of the problem, or price nothing. Prices are
    in 10^-6 mtok/s, rounded up, as ``schema.certificate`` has them.
    """
    goal = problem.goals[0]
    alone = replace(problem, goals=(goal,), bounds=_relaxed(problem.bounds))
    grouped = any(unit.shape.cp > 1 for unit in problem.units)
    if goal not in ("throughput", "gpus") or grouped or not applies(alone):
        return None
    search = PricedSearch(alone, limits)
    try:
        search.by_prices()
    except NoPlan:
        return None
    if search.proof is None:
        return None
    priced, ratio = search.proof
    slack = max(0, ceil((ratio - 1) * 10**9))
    if slack > _MOST_SLACK:  # something is priced at nothing
        return None
    per_gpu = ceil(priced.per_unit * _FINE) + 1 if goal == "gpus" else 0
    own = [
        [max(0.0, p - priced.per_unit * (z + 1)) for z, p in enumerate(row[1:])]
        for row in priced.prices.segment
    ]
    return rounded(own), per_gpu, slack


def _relaxed(bounds: Bounds) -> Bounds:
    """Without the rules that neither prices nor the checker's chains know.

    What bounds all designs bounds those that keep more rules.
    """
    return replace(
        bounds,
        memory_imbalance=None,
        compute_imbalance=None,
        communication_share=None,
        split=None,
        survive=(),
        replicas=None,
    )


def rounded(rows: list[list[float]]) -> list[list[int]]:
    """Whole 10^-6 mtok/s, never less than the price."""
    return [[ceil(price * _FINE) + 1 for price in row] for row in rows]
