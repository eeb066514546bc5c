"""Wall time at 0.1% tolerance beside EPLB in numpy, interleaved in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from shardwright.experts import FAST, plan_experts

from .cases import Case, cases, recorded
from .eplb import eplb, pack_batched, pack_by_layer
from .report import Bar, Table

_LARGE = 10_000


def speed(
    quick: bool, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> Table:
    """Least of `repeats` times per program, in ms; ratios are EPLB's over ours."""
    known, slow = recorded("vllm_numpy"), recorded("deepseek_eplb")
    chosen = [c for c in cases() if c.size >= _LARGE]
    rows: list[list[Any]] = []
    for case in chosen[:: 6 if quick else 1]:
        by_layer, batched, free, ours = _times(case, repeats, clock)
        plan = plan_experts(case.load, **case.shape(), effort=FAST)
        name = case.name
        gaps = np.array(plan.max_load) / np.array(plan.bound) - 1
        rows.append(
            [
                name,
                slow[name].wall_s * 1e3,
                known[name].wall_s * 1e3,
                by_layer,
                batched,
                free,
                ours,
                by_layer / free,
                by_layer / ours,
                batched / ours,
                float(gaps.mean() * 100),
            ]
        )
    headers = (
        "case",
        "recorded DeepSeek ms",
        "recorded vLLM ms",
        "EPLB by layer ms",
        "EPLB batched ms",
        "ours, copies allowed ms",
        "ours ms",
        "by layer / copies allowed",
        "by layer / ours",
        "batched / ours",
        "gap %",
    )
    return Table("Speed at 0.1% tolerance", headers, rows, _bars(rows))


def _times(case: Case, repeats: int, clock: Callable[[], float]) -> list[float]:
    shape = case.shape()
    programs: tuple[Callable[[], object], ...] = (
        lambda: eplb(case, pack_by_layer),
        lambda: eplb(case, pack_batched),
        lambda: plan_experts(
            case.load, **shape, effort=FAST, allow_copies_on_one_gpu=True
        ),
        lambda: plan_experts(case.load, **shape, effort=FAST),
    )
    least = [float("inf")] * len(programs)
    for _ in range(repeats):
        for i, program in enumerate(programs):
            start = clock()
            program()
            least[i] = min(least[i], (clock() - start) * 1e3)
    return least


def _bars(rows: list[list[Any]]) -> list[Bar]:
    base = [float(row[3]) / float(row[2]) for row in rows]
    ours = [float(row[8]) for row in rows]
    strong = [float(row[9]) for row in rows]
    return [
        Bar(
            "the EPLB baseline takes at most 1.5 times the recorded vLLM time",
            f"{min(base):.2f} to {max(base):.2f} times, median {np.median(base):.2f}",
            max(base) <= 1.5,
        ),
        Bar(
            "ours not slower than EPLB by layer, layers x slots >= 10,000",
            f"{min(ours):.2f} to {max(ours):.2f} times faster",
            min(ours) >= 1.0,
        ),
        Bar(
            "(beyond the bar) not slower than EPLB batched over all layers",
            f"{min(strong):.2f} to {max(strong):.2f} times faster",
            min(strong) >= 1.0,
        ),
    ]
