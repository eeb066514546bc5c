"""Percentiles of simulated requests, over seeds, with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shardwright.simulate.fleet import Served
from shardwright.simulate.requests import FloatArray

Metric = Literal["ttft", "prefill", "tpot", "itl", "e2e"]
WARM_UP = 0.1
"""Share of the arrivals that is not counted at either end of the run."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Counted latencies of one run, in seconds."""

    ttft: FloatArray
    prefill: FloatArray
    tpot: FloatArray
    e2e: FloatArray
    itl: FloatArray
    itl_count: FloatArray

    @classmethod
    def of(cls, served: Served, warm_up: float = WARM_UP) -> Measured:
        """Leaves out the requests that came first and last."""
        count = len(served.requests)
        skip = int(count * warm_up)
        kept = slice(skip, count - skip)
        arrival = served.requests.arrival_s[kept]
        first, done = served.first_s[kept], served.done_s[kept]
        steps = served.requests.output[kept] - 1
        several = steps > 0
        tpot = (done - first)[several] / steps[several]
        inside = np.ones(len(served.interval_s), dtype=bool)
        if skip:
            ends = served.interval_end_s
            inside = (ends >= arrival[0]) & (ends <= arrival[-1])
        return cls(
            first - arrival,
            served.prefill_s[kept],
            tpot,
            done - arrival,
            served.interval_s[inside],
            served.interval_count[inside],
        )

    def value(self, metric: Metric, share: float | Literal["mean"]) -> float:
        """A quantile or the mean, seconds; NaN if nothing was counted."""
        values: FloatArray = getattr(self, metric)
        if not len(values):
            return float("nan")
        weights = self.itl_count if metric == "itl" else None
        if share == "mean":
            return float(np.average(values, weights=weights))
        if weights is None:
            return float(np.quantile(values, share))
        order = np.argsort(values)
        total = np.cumsum(weights[order])
        return float(values[order[int(np.searchsorted(total, share * total[-1]))]])


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds and the half-width of its 95% interval (Student's t)."""

    value_s: float
    error_s: float


_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def estimate(values: Sequence[float]) -> Estimate:
    """One figure from one value per seed; infinite uncertainty from a single seed."""
    table = np.array(values)
    if len(table) < 2:
        return Estimate(float(table.mean()), float("inf"))
    factor = _T95[min(len(table) - 2, len(_T95) - 1)]
    spread = float(table.std(ddof=1)) / np.sqrt(len(table))
    return Estimate(float(table.mean()), float(factor * spread))


def over_seeds(
    run: Callable[[np.random.Generator], Served],
    seeds: Sequence[int],
    warm_up: float = WARM_UP,
) -> list[Measured]:
    """One run per seed."""
    return [Measured.of(run(np.random.default_rng(seed)), warm_up) for seed in seeds]
