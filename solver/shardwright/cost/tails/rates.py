"""The largest rate that keeps percentile targets, and fast bounds on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from shardwright.cost.tails.evaluate import Metric, Tails, evaluate
from shardwright.cost.tails.lengths import RequestLaw
from shardwright.cost.tails.station import Station


@dataclass(frozen=True)
class Target:
    """An upper limit on a metric, at a share (0.99: P99) or on the mean."""

    metric: Metric
    share: float | Literal["mean"]
    limit_s: float

    def met(self, tails: Tails) -> bool:
        """Whether the tails keep it."""
        if self.share == "mean":
            return tails.mean_s(self.metric) <= self.limit_s
        return tails.keeps(self.metric, self.share, self.limit_s)

    def value_s(self, tails: Tails) -> float:
        """The figure that the target limits."""
        if self.share == "mean":
            return tails.mean_s(self.metric)
        return tails.quantile_s(self.metric, self.share)


@lru_cache(maxsize=1 << 16)
def cheap_bounds(
    station: Station, lengths: RequestLaw, targets: tuple[Target, ...]
) -> float:
    """A rate that certainly cannot be exceeded with the targets kept; microseconds.

    0 if a target is missed even without load; else the capacity at which no queue is
    stable.
    """
    if any(no_load_s(station, lengths, t) > t.limit_s for t in targets):
        return 0.0
    return station.capacity_per_s(lengths)


def _handed_over(station: Station) -> float:
    """The part of TTFT that is not prefill: a prefill pool's transfer."""
    return station.first_token_extra_s if station.role == "prefill" else 0.0


def no_load_s(station: Station, lengths: RequestLaw, target: Target) -> float:
    """A lower bound on the figure that the target limits: one request, nobody else.

    Exact for constant lengths; a share p of requests is at most the law's p-quantile.
    """
    prompt, steps = lengths.prompt, lengths.steps
    lap = station.whole.seconds(1.0, 0.0)
    if target.metric in ("tpot", "itl"):
        return 0.0 if station.role == "prefill" else lap
    at = target.share
    tokens = prompt.mean if at == "mean" else prompt.quantile(at)
    first = 0.0
    if station.role != "decode":
        first = station.prompt_s(tokens) + station.first_token_extra_s
    if target.metric in ("ttft", "prefill"):
        return first if target.metric == "ttft" else first - _handed_over(station)
    o = steps.mean if at == "mean" else steps.quantile(at)
    alone = station.prompt_s(float(prompt.values[0])) if station.role != "decode" else 0
    return max(first + float(steps.values[0]) * lap, alone + o * lap)


def max_rate(
    station: Station,
    lengths: RequestLaw,
    targets: Sequence[Target],
    ca2: float = 1.0,
    tolerance: float = 1e-3,
    make: Callable[[float], Tails] | None = None,
) -> float:
    """The largest requests/s at which all targets hold, rounded down.

    0 if there is none, or none above ``tolerance`` of what is stable.

    Bisection between 0 and ``cheap_bounds``: every quantile grows with the rate.
    ``make`` replaces ``evaluate`` where pools are apart.
    """
    tails_at = make or (lambda rate: evaluate(station, lengths, rate, ca2))

    def kept(rate: float) -> bool:
        tails = tails_at(rate)
        return tails.stable and all(target.met(tails) for target in targets)

    high = cheap_bounds(station, lengths, tuple(targets))
    low = tolerance * high
    if not low or not kept(low):
        return 0.0
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low
