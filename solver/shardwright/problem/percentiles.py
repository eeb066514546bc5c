"""Percentile targets: the largest request rate of a design, and what it predicts.

A design becomes a queueing station (docs/cost-model.md section 12): the law of its
slowest stage, part by part, and that of all stages and hops. Its rate is the largest at
which every percentile target of its role holds, and never above that of the balanced
law of section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import floor, inf, log

import numpy as np

from shardwright.cost.tails import (
    IterationLaw,
    RequestLaw,
    Station,
    Tails,
    Target,
    cheap_bounds,
    evaluate,
)
from shardwright.problem.known_rates import Bracket, KnownRates, known_rates
from shardwright.problem.laws import FloatArray, LawTables
from shardwright.problem.types import Design, IntArray, Point, Unit, stage_roles
from shardwright.schema.plan import PoolRole

_OF_ROLE: dict[PoolRole, frozenset[str]] = {
    "mixed": frozenset({"ttft", "prefill", "tpot", "itl", "e2e"}),
    "prefill": frozenset({"ttft", "prefill"}),
    "decode": frozenset({"tpot", "itl"}),
}
"""Metrics that a replica of a role answers for."""

_BELOW = 1 - 1e-9
_STEP = 1.002
"""Rates are rounded down to a power of it: closer than the closed forms are right,
and points that differ in nothing that matters have one rate."""
_NEAR, _FURTHER = 4, 4
"""Steps below a rate that fails at which is asked first, and how they grow."""
_LEAST_LOAD = 0.01
"""Share of what is stable below which a rate counts as none."""


@dataclass(frozen=True, eq=False)
class LoadModel:
    """What percentiles are computed from, whatever the targets."""

    laws: LawTables
    lengths: RequestLaw
    ca2: float

    @property
    def known(self) -> KnownRates:
        """Answers so far, shared by all problems with these lengths and arrivals."""
        return known_rates(self.lengths, self.ca2)


@dataclass(frozen=True, eq=False)
class PercentileModel:
    """Stations of designs, and the rates at which they keep the targets."""

    load: LoadModel
    targets: tuple[Target, ...]
    points: tuple[Point, ...]
    units: tuple[Unit, ...]
    kind_prefix: IntArray
    transfer_s: float
    output_mean: Fraction

    @property
    def laws(self) -> LawTables:
        """Iteration laws of stages."""
        return self.load.laws

    @property
    def lengths(self) -> RequestLaw:
        """Lengths of requests."""
        return self.load.lengths

    def of_role(self, role: PoolRole) -> tuple[Target, ...]:
        """Targets that a replica of the role answers for."""
        return self._of_roles[role]

    @cached_property
    def _of_roles(self) -> dict[PoolRole, tuple[Target, ...]]:
        return {
            role: tuple(t for t in self.targets if t.metric in metrics)
            for role, metrics in _OF_ROLE.items()
        }

    def station(self, design: Design) -> Station:
        """The design as a queueing station."""
        roles = stage_roles(len(design.stages))
        stages = np.array(
            [
                self._stage(design.point, s.unit, s.start, s.end, r)
                for s, r in zip(design.stages, roles, strict=True)
            ]
        )
        whole = stages.sum(axis=0) + self._hops(design)
        return self._station(design.point, stages.max(axis=0), whole, len(stages))

    def chain_stations(
        self, points: Sequence[int], unit: int, stages: int, crossings: int
    ) -> list[Station]:
        """What no chain of the unit falls below: every stage is the mean one."""
        at, roles = np.asarray(points, dtype=np.int64), stage_roles(stages)
        whole = self.laws.layer[:, at, unit] @ self.kind_prefix[-1]
        whole = whole + self.laws.role[:, at, unit][:, :, roles].sum(axis=2)
        k = self.units[unit].gpu_class
        hops = (stages - 1 - crossings) * self.laws.hop_intra[:, k]
        hops = hops + crossings * self.laws.hop_inter[:, k, k] + self._back(stages)
        mean, passes = whole / stages, whole + hops[:, None]
        return [
            self._station(o, mean[:, i], passes[:, i], stages)
            for i, o in enumerate(points)
        ]

    def _stage(self, o: int, unit: int, start: int, end: int, role: int) -> FloatArray:
        counts = self.kind_prefix[end] - self.kind_prefix[start]
        law: FloatArray = self.laws.layer[:, o, unit] @ counts
        return law + self.laws.role[:, o, unit, role]

    def _hops(self, design: Design) -> FloatArray:
        classes = [self.units[s.unit].gpu_class for s in design.stages]
        total = self._back(len(classes))
        for a, b, cross in zip(
            classes[:-1], classes[1:], design.crossings, strict=True
        ):
            hop = self.laws.hop_inter[:, a, b] if cross else self.laws.hop_intra[:, a]
            total = total + hop
        return total

    def _back(self, stages: int) -> FloatArray:
        return np.array([self.laws.return_s if stages > 1 else 0.0, 0.0, 0.0])

    def _station(
        self, o: int, slowest: FloatArray, whole: FloatArray, stages: int
    ) -> Station:
        point = self.points[o]
        # the tokens' way back delays the next lap, not the first token
        extra = self.transfer_s if point.role == "prefill" else -self._back(stages)[0]
        return Station(
            law=IterationLaw(*(float(x) for x in slowest)),
            rest=IterationLaw(*(max(0.0, float(x)) for x in whole - slowest)),
            slots=point.sequences,
            chunk_tokens=point.chunk_tokens,
            role=point.role,
            micro_batches=point.micro_batches,
            first_token_extra_s=float(extra),
        )

    def rate_bound_mtok(self, station: Station) -> int:
        """Cheap: no rate above it keeps the targets; 0 when none does."""
        targets = self.of_role(station.role)
        return self._up(cheap_bounds(station, self.lengths, targets))

    def rate_mtok(self, station: Station) -> int:
        """The largest rate that keeps the targets, rounded down to a step."""
        targets = self.of_role(station.role)
        key, largest = (station, targets), self.load.known.largest
        if key not in largest:
            largest[key] = self._largest(station)
        return self._down(largest[key])

    def serves(self, station: Station) -> bool:
        """Whether the targets hold at the least rate that counts."""
        return self._range(station) is not None

    def _largest(self, station: Station) -> float:
        """Bisection over the steps below what is stable: every quantile grows."""
        steps = self._range(station)
        if steps is None:
            return 0.0
        low, high = steps
        self._narrow(station, low)
        while high - low > 1:
            middle = (low + high) // 2
            kept = self._kept(station, _rate_of(middle))
            low, high = (middle, high) if kept else (low, middle)
        return _rate_of(low)

    def _narrow(self, station: Station, low: int) -> None:
        """Ask ever further below a rate that is known to fail: most lie close."""
        failed = min(b.failed for _, b in self._brackets(station))
        if failed == inf:
            return
        top, apart = _step_below(failed), _NEAR
        while top - apart > low and not self._kept(station, _rate_of(top - apart)):
            apart *= _FURTHER

    def _range(self, station: Station) -> tuple[int, int] | None:
        """A step that keeps the targets and one that cannot; None when none counts."""
        top = cheap_bounds(station, self.lengths, self.of_role(station.role))
        if top <= 0:
            return None
        low = _step_below(top * _LEAST_LOAD)
        return (
            (low, _step_below(top) + 1) if self._kept(station, _rate_of(low)) else None
        )

    def next_mtok(self, mtok_per_s: int) -> int:
        """The least rate of a step that is above a rate."""
        step = _step_below(self.requests_per_s(mtok_per_s)) + 1
        while self._down(_rate_of(step)) <= mtok_per_s:
            step += 1
        return self._down(_rate_of(step))

    def holds(self, station: Station, mtok_per_s: int) -> bool:
        """Whether the targets hold at a rate."""
        return self._kept(station, self.requests_per_s(mtok_per_s))

    def _kept(self, station: Station, requests_per_s: float) -> bool:
        """Whether the station is stable and every target holds."""
        brackets = self._brackets(station)
        known = [b.answer(requests_per_s) for _, b in brackets]
        if False in known or None not in known:
            return False not in known
        tails = self.tails(station, requests_per_s)
        for target, bracket in brackets:
            kept = tails.stable if target is None else target.met(tails)
            bracket.learn(requests_per_s, kept)
            if not kept:
                return False
        return True

    def _brackets(self, station: Station) -> list[tuple[Target | None, Bracket]]:
        known = self.load.known
        return [
            (t, known.bracket(station, t)) for t in (None, *self.of_role(station.role))
        ]

    def no_better(self, station: Station, bound: Station) -> None:
        """Take it as proven that a station keeps no rate that ``bound`` does not."""
        both = zip(self._brackets(station), self._brackets(bound), strict=True)
        for (_, mine), (_, theirs) in both:
            mine.learn(theirs.failed, False)

    def tails(self, station: Station, requests_per_s: float) -> Tails:
        """Latency at a rate."""
        return evaluate(station, self.lengths, requests_per_s, self.load.ca2)

    def requests_per_s(self, mtok_per_s: int) -> float:
        """Requests of a rate in thousandths of output tokens."""
        return float(Fraction(mtok_per_s, 1000) / self.output_mean)

    def _down(self, requests_per_s: float) -> int:
        return int(requests_per_s * _BELOW * 1000 * self.output_mean)

    def _up(self, requests_per_s: float) -> int:
        if requests_per_s <= 0:
            return 0
        return int(requests_per_s / _BELOW * 1000 * self.output_mean) + 1


def _rate_of(step: int) -> float:
    return float(_STEP**step)


def _step_below(requests_per_s: float) -> int:
    """The largest step whose rate is not above a rate."""
    step = floor(log(requests_per_s) / log(_STEP))
    return step if _rate_of(step) <= requests_per_s else step - 1
