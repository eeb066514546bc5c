"""Prices for a certificate, from the linear program of the fleet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil

from shardwright.formulations.cpsat.patterns import Column, FleetRows
from shardwright.formulations.lp.patterns import SegmentPrices, segment_prices
from shardwright.problem import Bounds, Problem
from shardwright.search.base import Interrupted, SearchLimits
from shardwright.search.by_prices import NoPlan, PricedSearch
from shardwright.search.priced import PricedColumns, applies

_FINE = 10**6
_PER_COST = 10**3
_FLOAT = 1 + 1e-11
"""Allowance for the floating point of the linear program's duals."""
_MOST_SLACK = 10**8
"""In ppb: a bound so far above the prices proves nothing of use."""


@dataclass(frozen=True)
class CertificatePrices:
    """Whole prices as ``schema.certificate.Claim`` has them; own[class][z - 1]."""

    own: tuple[tuple[int, ...], ...]
    per_gpu: int
    per_cost: int
    slack_ppb: int


def most_throughput(
    problem: Problem, gpus: int, cost: int | None, tpot_ns: int | None
) -> Problem:
    """Most throughput within GPUs, 10^-6 USD/h and TPOT.

    Without the rules that neither prices nor the checker's chains know: what bounds all
    designs bounds those that keep more rules.
    """
    bounds = replace(
        _relaxed(problem.bounds),
        tpot_ns=tpot_ns,
        max_gpus=gpus,
        spare_gpus=0,
        max_cost_micro_usd_per_hour=cost,
    )
    return replace(problem, goals=("throughput",), bounds=bounds)


def uniform_columns(problem: Problem) -> list[Column]:
    """Replicas of one unit of a ``most_throughput`` problem, without any search."""
    if not applies(problem) or problem.usable_gpus < 1:
        return []
    columns = PricedColumns(problem)
    columns.add_uniform()
    return [columns.column(entry) for entry in columns.entries.values()]


def searched_prices(
    problem: Problem, limits: SearchLimits
) -> tuple[CertificatePrices | None, list[Column]]:
    """Prices of a ``most_throughput`` problem, and the columns they came from.

    None where prices do not cover a rule, or nothing fits.
    """
    if not applies(problem) or problem.usable_gpus < 1:
        return None, []
    search = PricedSearch(problem, limits)
    with suppress(NoPlan, Interrupted):  # its proof, so far, is what counts
        search.by_prices()
    columns = [search.columns.column(e) for e in search.columns.entries.values()]
    if search.proof is None:
        return None, columns
    priced, ratio = search.proof
    slack = max(0, ceil((ratio - 1) * 10**9))
    return _whole(priced.duals, slack if slack <= _MOST_SLACK else 0), columns


def prices_of_columns(
    problem: Problem, columns: Sequence[Column]
) -> CertificatePrices | None:
    """Prices by the linear program over some columns."""
    duals = segment_prices(problem, columns, FleetRows(), "throughput")
    return None if duals is None else _whole(duals, 0)


def _whole(duals: SegmentPrices, slack: int) -> CertificatePrices:
    return CertificatePrices(
        tuple(rounded([[max(0.0, p) for p in row[1:]] for row in duals.segment])),
        ceil(duals.gpu * _FINE * _FLOAT) if duals.gpu > 0 else 0,
        ceil(duals.cost * _FINE * _PER_COST * _FLOAT) if duals.cost > 0 else 0,
        slack,
    )


def _relaxed(bounds: Bounds) -> Bounds:
    return replace(
        bounds,
        memory_imbalance=None,
        compute_imbalance=None,
        communication_share=None,
        split=None,
        survive=(),
        targets=(),
        replicas=None,
        rate_mtok_per_s=None,
    )


def rounded(rows: list[list[float]]) -> list[tuple[int, ...]]:
    """Whole 10^-6 mtok/s, never less than the price but for floating point."""
    scale = _FINE * _FLOAT
    return [tuple(ceil(price * scale) + 1 for price in row) for row in rows]
