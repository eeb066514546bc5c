"""How many requests a station holds: a birth-death chain whose rates depend on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shardwright.cost.tails.points import FloatArray, level_grid

_LARGEST = 20_000
_NEGLIGIBLE = -28.0


@dataclass(frozen=True, eq=False)
class Occupancy:
    """Probabilities of 0, 1, ... requests in the station, waiting ones included."""

    probabilities: FloatArray
    departures_per_s: FloatArray

    @classmethod
    def of(
        cls,
        rate_per_s: float,
        departures_per_s: FloatArray,
        spread: float,
        queue_spread: float,
    ) -> Occupancy:
        """``departures_per_s[i]`` with i + 1 requests; the last holds for all above.

        ``spread`` is the factor on the variance that prompts and bursts add: the
        chain's law to the power 1/spread, renormalised, is that much wider.
        ``queue_spread`` is that of the requests that wait for a slot.
        """
        ratio = (np.log(rate_per_s) - np.log(departures_per_s)) / spread
        last = float(ratio[-1]) * spread / queue_spread
        path = np.cumsum(ratio)
        more = 0
        if last < 0:
            above = float(path[-1] - max(path.max(), 0.0))
            more = int(min(max(0.0, (above - _NEGLIGIBLE) / -last), _LARGEST))
        log_ratio = np.concatenate([ratio, np.full(more, last)])
        log_p = np.concatenate([[0.0], np.cumsum(log_ratio)])
        p = np.exp(log_p - log_p.max())
        return cls(p / p.sum(), departures_per_s)

    @property
    def mean(self) -> float:
        """Mean number of requests."""
        return float(self.probabilities @ np.arange(len(self.probabilities)))

    def at_least(self, count: int) -> float:
        """Probability of ``count`` requests or more."""
        return float(self.probabilities[count:].sum())

    def quantiles(self, shares: FloatArray) -> FloatArray:
        """Number of requests at each share, interpolated within a step."""
        cumulative = np.cumsum(self.probabilities)
        index = np.searchsorted(cumulative, shares * cumulative[-1])
        found: FloatArray = np.minimum(index, len(cumulative) - 1).astype(np.float64)
        return found

    def levels(self) -> FloatArray:
        """``quantiles`` on the common grid of levels."""
        return self.quantiles(level_grid())
