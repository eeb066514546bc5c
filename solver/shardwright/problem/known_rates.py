"""Rates that stations are known to keep a target at, or not.

An answer depends on the station, the target, the lengths and the arrivals alone; one
instance is solved under many limits, and many instances share their replicas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import inf

from shardwright.cost.tails import RequestLaw, Station, Target

_MOST = 200_000
"""Brackets kept; then everything is forgotten."""


@dataclass
class Bracket:
    """Rates in requests/s: the largest that kept a target, the least that did not.

    Every quantile grows with the rate, so what lies outside need not be computed.
    """

    kept: float = 0.0
    failed: float = inf

    def answer(self, rate: float) -> bool | None:
        """What is known of a rate."""
        if rate <= self.kept:
            return True
        return False if rate >= self.failed else None

    def learn(self, rate: float, kept: bool) -> None:
        """Take in an answer."""
        if kept:
            self.kept = max(self.kept, rate)
        else:
            self.failed = min(self.failed, rate)


@dataclass(frozen=True, eq=False)
class KnownRates:
    """``largest``: the largest rate that keeps all targets, requests/s."""

    largest: dict[tuple[Station, tuple[Target, ...]], float] = field(
        default_factory=dict
    )
    _brackets: dict[tuple[Station, Target | None], Bracket] = field(
        default_factory=dict
    )

    def bracket(self, station: Station, target: Target | None) -> Bracket:
        """What is known of one target; None: of being stable."""
        if len(self._brackets) > _MOST:
            self._brackets.clear()
            self.largest.clear()
        return self._brackets.setdefault((station, target), Bracket())


@lru_cache(maxsize=8)
def known_rates(lengths: RequestLaw, ca2: float) -> KnownRates:
    """The store of these lengths (by identity) and squared cv of arrivals."""
    return KnownRates()
