"""Two slots per GPU: what is certified, and how long a layer takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from shardwright.experts import Effort, plan_experts

from .cases import Case, cases
from .report import Bar, Table

_SMALL_S, _LARGE_S, _WITHIN = 1.0, 60.0, 5e-4


def certificates(
    quick: bool, per_case: int, clock: Callable[[], float] = time.perf_counter
) -> Table:
    """One row per layer of the large cases, one per small case."""
    rows: list[list[Any]] = []
    for case in [c for c in cases() if c.per_gpu == 2]:
        small = case.slots <= 16
        if quick and not small and case.table != "dsv3_lognormal12":
            continue
        for layer in _layers(case, small, per_case):
            rows.append([*_row(case, layer, small, clock)])
    return Table(
        "Two slots per GPU: certified within 0.05%",
        ("case", "layer", "EPLB-like fold gap %", "gap %", "s", "certified"),
        rows,
        _bars(rows),
        (f"Large cases: {per_case} layers each, evenly spaced; small ones: all.",),
    )


def _layers(case: Case, small: bool, per_case: int) -> list[int]:
    count = case.load.shape[0]
    if small or per_case >= count:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, per_case)]


def _row(
    case: Case, layer: int, small: bool, clock: Callable[[], float]
) -> tuple[str, int, float, float, float, str]:
    limit = _SMALL_S if small else _LARGE_S
    effort = Effort(tolerance=4.5e-4, restarts=1, proof_s=limit)
    load = case.load[layer : layer + 1]
    shape = case.shape()
    first = plan_experts(load, **shape, effort=effort.but(restarts=0, proof_s=0.0))
    start = clock()
    plan = plan_experts(load, **shape, effort=effort)
    took = clock() - start
    sure = plan.gap <= _WITHIN and took <= limit
    before = first.max_load[0] / plan.bound[0] - 1
    return (
        case.name,
        layer,
        before * 100,
        plan.gap * 100,
        took,
        "yes" if sure else "open",
    )


def _bars(rows: list[list[Any]]) -> list[Bar]:
    large = [row for row in rows if "ep144" in str(row[0])]
    small = [row for row in rows if "ep144" not in str(row[0])]
    sure = sum(row[5] == "yes" for row in small)
    done = sum(row[5] == "yes" for row in large)
    slowest = max(float(row[4]) for row in small)
    return [
        Bar(
            "every small layer certified within 1 s",
            f"{sure} of {len(small)}, slowest {slowest:.2f} s",
            sure == len(small),
        ),
        Bar(
            "256 experts on 144 GPUs: >= 75% of layers certified within 60 s",
            f"{done} of {len(large)}",
            done >= 0.75 * len(large),
        ),
    ]
