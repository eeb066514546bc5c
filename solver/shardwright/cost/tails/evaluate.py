"""Percentiles of TTFT, TPOT, ITL and end-to-end time of one station under load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from shardwright.cost.tails.first_token import FirstToken
from shardwright.cost.tails.laps import Laps
from shardwright.cost.tails.lengths import RequestLaw
from shardwright.cost.tails.load import Load
from shardwright.cost.tails.per_token import PerToken
from shardwright.cost.tails.points import Axis, FloatArray
from shardwright.cost.tails.station import Station

Metric = Literal["ttft", "prefill", "tpot", "itl", "e2e"]
KNIFE_EDGE = (0.001, 0.05)
"""P(all slots taken) between which a tail hangs on rare events."""
_INFINITE = float("inf")
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Sample:
    """Values in seconds with weights, sorted once for all quantiles."""

    values: FloatArray
    weights: FloatArray

    @cached_property
    def _sorted(self) -> tuple[FloatArray, FloatArray]:
        order = np.argsort(self.values)
        return self.values[order], np.cumsum(self.weights[order])

    def quantile(self, share: float) -> float:
        """Least value with at least ``share`` of the weight at or below it."""
        values, cumulative = self._sorted
        if cumulative[-1] <= 0:
            return 0.0
        at = int(np.searchsorted(cumulative, share * cumulative[-1]))
        return float(values[min(at, len(values) - 1)])

    def keeps(self, share: float, limit: float) -> bool:
        """Whether the quantile is at most ``limit``, without sorting.

        The weight at or below the limit must exceed the share by more than sums round,
        so that the quantile of what is kept is never above the limit.
        """
        total = float(self.weights.sum())
        within = float(self.weights[self.values <= limit].sum())
        return within >= (share + _ROUNDING) * total

    def mean(self) -> float:
        """Weighted mean; 0 where nothing has weight (no output token but the first)."""
        total = float(self.weights.sum())
        return float(self.values @ self.weights) / total if total > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Tails:
    """Latency of a station at one rate; every figure is computed when first asked for.

    Quantiles take ``share`` in (0, 1): 0.99 for P99. An unstable station has infinite
    latencies. ``before`` is the prefill pool of a decode pool.
    """

    load: Load
    before: Tails | None = None

    @property
    def stable(self) -> bool:
        """Whether requests leave as fast as they come."""
        return self.load.stable and (self.before is None or self.before.stable)

    @property
    def utilisation(self) -> float:
        """Share of capacity in use, of the busier pool."""
        before = 0.0 if self.before is None else self.before.utilisation
        return max(self.load.utilisation, before)

    @property
    def mean_batch(self) -> float:
        """Decoding sequences, mean over time."""
        return self.load.mean_batch if self.stable else _INFINITE

    @property
    def slots_full(self) -> float:
        """P(every slot is taken)."""
        return self.load.slots_full if self.stable else 1.0

    @property
    def knife_edge(self) -> bool:
        """Whether the tail hangs on rare full slots: verify by simulation."""
        low, high = KNIFE_EDGE
        return self.stable and low < self.slots_full < high

    def ttft_s(self, share: float) -> float:
        """Arrival to first token."""
        return self.quantile_s("ttft", share)

    def tpot_s(self, share: float) -> float:
        """Time per further output token of a request; quantile over requests."""
        return self.quantile_s("tpot", share)

    def itl_s(self, share: float) -> float:
        """Time between successive tokens; quantile over tokens."""
        return self.quantile_s("itl", share)

    def e2e_s(self, share: float) -> float:
        """Arrival to last token."""
        return self.quantile_s("e2e", share)

    def quantile_s(self, metric: Metric, share: float) -> float:
        """Quantile of a metric by name, in seconds."""
        return self.sample(metric).quantile(share) if self.stable else _INFINITE

    def mean_s(self, metric: Metric) -> float:
        """Mean of a metric by name, in seconds."""
        return self.sample(metric).mean() if self.stable else _INFINITE

    def keeps(self, metric: Metric, share: float, limit_s: float) -> bool:
        """Whether a quantile of a metric is at most ``limit_s``."""
        return self.stable and self.sample(metric).keeps(share, limit_s)

    def sample(self, metric: Metric) -> Sample:
        """Values of a metric at every point; only of a stable station."""
        made: dict[Metric, Callable[[], Sample]] = {
            "ttft": lambda: self._ttft,
            "prefill": lambda: self._prefill,
            "tpot": lambda: self._tpot,
            "itl": lambda: self._itl,
            "e2e": lambda: self._e2e,
        }
        return made[metric]()

    @cached_property
    def _laps(self) -> Laps:
        return Laps(self.load)

    @cached_property
    def _first(self) -> FirstToken:
        return FirstToken(self.load, self._laps)

    @cached_property
    def _decode(self) -> PerToken:
        return PerToken(self.load, self._first)

    @cached_property
    def _ttft(self) -> Sample:
        mine = self._first
        if self.before is None:
            return Sample(mine.seconds, mine.weights)
        first, station = self.before._first, self.before.load.station
        tokens = self.load.lengths.prompt.at(Axis.PROMPT)
        transfer = station.kv_transfer_s + station.kv_transfer_s_per_token * tokens
        return Sample(first.seconds + transfer, first.weights)

    @cached_property
    def _decoding_s(self) -> FloatArray:
        """First token to last; where pools are apart, from when the cache is there."""
        if self.before is None:
            return self._decode.seconds
        # the decode pool's own coordinates must not repeat those of the prefill pool
        waits = np.roll(self._first.seconds, len(self._first.seconds) // 3)
        return waits + self._decode.seconds

    @cached_property
    def _prefill(self) -> Sample:
        """First scheduling of a prompt to its first token, in the pool that does it."""
        first = self._first if self.before is None else self.before._first
        return Sample(first.prefill_seconds, first.weights)

    @cached_property
    def _tpot(self) -> Sample:
        steps = self._decode.steps
        return Sample(
            self._decoding_s / np.maximum(steps, 1e-9),
            np.where(steps >= 0.5, self._ttft.weights, 0.0),
        )

    @cached_property
    def _itl(self) -> Sample:
        batch = self.load.batch
        return Sample(self._laps.lap_s, batch / self.load.pace.lap_s(batch) + 1e-300)

    @cached_property
    def _e2e(self) -> Sample:
        ttft = self._ttft
        return Sample(ttft.values + self._decoding_s, ttft.weights)


def evaluate(
    station: Station, lengths: RequestLaw, rate_per_s: float, ca2: float = 1.0
) -> Tails:
    """Tails of one replica of role mixed or prefill that gets ``rate_per_s`` requests.

    ``ca2`` is the squared coefficient of variation of interarrival times (1: Poisson).
    """
    return Tails(Load(station, lengths, rate_per_s, ca2))


def evaluate_pair(
    prefill: Station,
    decode: Station,
    lengths: RequestLaw,
    prefill_rate_per_s: float,
    decode_rate_per_s: float,
    ca2: float = 1.0,
) -> Tails:
    """Tails of requests that pass a prefill replica, then a decode replica.

    Rates are those of one replica of each pool. The first token counts when the decode
    replica takes the request in.
    """
    before = Tails(Load(prefill, lengths, prefill_rate_per_s, ca2))
    return Tails(Load(decode, lengths, decode_rate_per_s, ca2), before)


@dataclass(frozen=True, eq=False)
class Blend:
    """Requests split over replicas in given shares: quantiles over all of them."""

    parts: tuple[Tails, ...]
    shares: tuple[float, ...]

    @property
    def stable(self) -> bool:
        """Whether every replica is."""
        return all(part.stable for part in self.parts)

    @property
    def knife_edge(self) -> bool:
        """Whether the tail of any replica hangs on rare full slots."""
        return any(part.knife_edge for part in self.parts)

    def quantile_s(self, metric: Metric, share: float) -> float:
        """Quantile of a metric by name, in seconds."""
        return self._blended(metric).quantile(share) if self.stable else _INFINITE

    def mean_s(self, metric: Metric) -> float:
        """Mean of a metric by name, in seconds."""
        return self._blended(metric).mean() if self.stable else _INFINITE

    def _blended(self, metric: Metric) -> Sample:
        samples = [part.sample(metric) for part in self.parts]
        weights = []
        for part, sample, share in zip(self.parts, samples, self.shares, strict=True):
            # intervals are counted per token, all else per request
            scale = part.mean_batch if metric == "itl" else share
            weights.append(sample.weights * (scale / sample.weights.sum()))
        return Sample(
            np.concatenate([sample.values for sample in samples]),
            np.concatenate(weights),
        )
