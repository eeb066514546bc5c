"""Loads drift: EPLB plans anew, ours keeps the map and moves few experts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from shardwright.experts import Effort, even_loads, plan_experts
from shardwright.experts.maps import moves_between

from .cases import Case, cases
from .eplb import eplb
from .report import Bar, Table

_CASES = (
    "dsv3_lognormal06/ep32_r288_glob",
    "dsv3_zipf08/ep32_r288_hier",
    "qwen3_235b_lognormal07/ep16_r144",
    "qwen3_235b_shaped_olmoe/ep32_r160",
    "real_olmoe_c4/ep8_r72",
    "real_olmoe_github/ep16_r96",
)


def drift(
    quick: bool, layers: int, clock: Callable[[], float] = time.perf_counter
) -> Table:
    """Balance and moves per layer; the budget is a quarter of EPLB's moves."""
    rows: list[list[Any]] = []
    known = {case.name: case for case in cases()}
    for name in _CASES[-2:] if quick else _CASES:
        case = known[name]
        for sigma in (0.1, 0.3):
            rows.append([name, sigma, *_row(case, sigma, layers, clock)])
    headers = (
        "case",
        "sigma",
        "stale",
        "EPLB anew",
        "its moves",
        "ours",
        "moves",
        "moves / EPLB's",
        "s",
    )
    good = sum(row[5] >= row[3] and row[7] <= 0.25 for row in rows)
    bar = Bar(
        "EPLB's balance or better with at most a quarter of its moves",
        f"{good} of {len(rows)}",
        good == len(rows),
    )
    note = (
        "Start: EPLB's map of the old loads, experts held twice on a GPU included. "
        "Loads times exp(sigma * normal), seed 7. Moves: experts per layer on a GPU "
        "that did not hold them."
    )
    return Table("Migration", headers, rows, [bar], [note])


def _row(
    case: Case, sigma: float, layers: int, clock: Callable[[], float]
) -> list[float]:
    random = np.random.default_rng(7)
    load = case.load[:layers]
    shape = case.shape()
    old = eplb(_with(case, load))
    new = load * np.exp(sigma * random.standard_normal(load.shape))
    again = eplb(_with(case, new))
    experts = load.shape[1]
    theirs = moves_between(old, again, experts, case.gpus)
    start = clock()
    plan = plan_experts(
        new,
        **shape,
        current=old,
        max_moves=int(theirs.min()) // 4,
        effort=Effort(tolerance=2e-3),
    )
    took = clock() - start
    assert plan.moves is not None
    mean = new.sum(axis=1) / case.gpus

    def balance(maps: np.ndarray) -> float:
        return float((mean / even_loads(new, maps, case.gpus).max(axis=1)).mean())

    mine = float(np.mean(plan.moves))
    return [
        balance(old),
        balance(again),
        float(theirs.mean()),
        plan.balance,
        mine,
        mine / float(theirs.mean()),
        took,
    ]


def _with(case: Case, load: np.ndarray) -> Case:
    """The case with other loads."""
    return Case(
        case.table, case.config, load, case.gpus, case.nodes, case.groups, case.slots
    )
