"""Chains of falling caps on TPOT: what any replica can earn at most of its price.

At a cap Theta, LB bounds the price of every design with TPOT <= Theta from below; it is
raised over mu by cutting planes (each path is a line in mu; the next mu is where the
best lines on either side of S = Theta meet). Then the cap falls to
Theta' = floor(10^12 M / (rho LB)): every design with TPOT in (Theta', Theta] earns at
most rho times its price. Where nothing fits any more the chain ends. Any multipliers
are valid, bad ones only make the steps shorter. docs/formulation.md section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from shardwright.formulations.dp.fluid import fluid_price
from shardwright.formulations.dp.pricing import (
    BoolArray,
    FloatArray,
    Paths,
    Pricer,
    Prices,
)
from shardwright.formulations.dp.walks import cheapest
from shardwright.problem import IntArray

_CUTS = 7
_TINY = 1e-9
_NEAR = 2e-3
_FLOAT = 1e-13
_LINKS = 2_000
_LOOSE = 0.9
"""A cap that falls by this much needs no better bound."""
_STEP, _WIDE = 1e-4, 0.05
"""Relative step where a design earns more than it may; doubled while that lasts."""
_SHORT = 0.98
"""A cap that the linear walk lets fall by less is tried with segments."""

_POOR, _FALLS, _WORTH = 0.97, 40, 0.999
"""Designs that earn less than ``_POOR`` of their price are not walked to. A fall of the
cap to more than ``_WORTH`` of it is not worth another."""

Stages = tuple[tuple[int, int, bool], ...]
"""(unit, layers, opens a segment) of every stage of a design."""


@dataclass(frozen=True)
class Link:
    """One step of the chain of ``point``: at ``theta_ns``, with multiplier ``mu``."""

    point: int
    theta_ns: int
    mu: float
    linear: bool


@dataclass
class Scan:
    """No design earns more than ``ratio`` times its price.

    designs: (point, stages) -> TPOT of those met that keep their cap. best: largest
    ratio per point. links: every step.
    """

    ratio: float = 0.0
    designs: dict[tuple[int, Stages], float] = field(default_factory=dict)
    best: dict[int, float] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)

    def add(self, other: Scan) -> None:
        """Take what another scan found, of other points."""
        self.ratio = max(self.ratio, other.ratio)
        self.designs |= other.designs
        for point, ratio in other.best.items():
            self.best[point] = max(ratio, self.best.get(point, 0.0))
        self.links += other.links


@dataclass
class _Cuts:
    """The best line in mu on either side of S = Theta, per point."""

    steep: FloatArray
    rise: FloatArray
    flat: FloatArray
    fall: FloatArray

    @classmethod
    def none(cls, n: int) -> _Cuts:
        return cls(np.full(n, np.nan), np.zeros(n), np.full(n, np.nan), np.zeros(n))

    def add(
        self, rows: IntArray, paths: Paths, mu: FloatArray, theta: FloatArray
    ) -> None:
        """Take the lines of paths found."""
        exists = np.isfinite(paths.value)
        price = np.where(exists, paths.value, 0.0) - mu * paths.loop_ns
        over = paths.loop_ns - theta
        above, below = exists & (over > 0), exists & (over <= 0)
        self.steep[rows[above]], self.rise[rows[above]] = price[above], over[above]
        self.flat[rows[below]], self.fall[rows[below]] = price[below], over[below]

    def meet(self, mu: FloatArray, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(next mu, what no multiplier exceeds); a missing line is sought far out."""
        has_steep, has_flat = ~np.isnan(self.steep), ~np.isnan(self.flat)
        both = has_steep & has_flat
        width = np.where(both, self.rise - self.fall, 1.0)
        cross = np.maximum(np.where(both, self.flat - self.steep, 0.0) / width, 0.0)
        price = np.where(has_steep, np.maximum(self.steep, 1.0), 0.0)
        far = np.maximum(price / theta, 5 * mu)
        following = np.where(both, cross, np.where(has_flat, 0.0, far))
        alone = np.where(has_flat & (mu == 0), self.flat, np.inf)
        return following, np.where(both, self.steep + cross * self.rise, alone)


@dataclass(frozen=True)
class Bounded:
    """LB (inf: nothing fits), its mu, and the paths met, per row."""

    value: FloatArray
    mu: FloatArray
    met: tuple[tuple[IntArray, Paths], ...]


def least_price(
    pricer: Pricer,
    prices: Prices,
    theta: FloatArray,
    start: FloatArray,
    enough: FloatArray,
    *,
    linear: bool,
) -> Bounded:
    """LB at caps theta, from multipliers ``start``; a row is left at ``enough``.

    Where the cap falls already, the last permille of LB is not sought.
    """
    n = theta.size
    least = enough * _LOOSE * (1 + _NEAR)
    value, best, mu = np.full(n, -np.inf), np.zeros(n), start.copy()
    cuts, met, active = _Cuts.none(n), [], np.arange(n)
    for _ in range(_CUTS):
        small = pricer if active.size == n else pricer.only(active)
        paths = cheapest(small, prices, theta[active], mu[active], linear=linear)
        met.append((active, paths))
        bound = paths.value - mu[active] * theta[active]
        better = bound > value[active]
        best[active[better]] = mu[active[better]]
        value[active[better]] = bound[better]
        cuts.add(active, paths, mu[active], theta[active])
        following, top = cuts.meet(mu, theta)
        near = np.where(value > least, _NEAR, _TINY)
        done = (value >= top * (1 - near)) | (value >= enough)
        mu = following
        active = active[~done[active]]
        if not active.size:
            break
    return Bounded(value, best, tuple(met))


@dataclass
class Scanner:
    """Chains at given prices; ``poll`` is called between steps and may raise."""

    prices: Prices
    rho: float
    poll: Callable[[], None] = lambda: None

    def run(self, pricer: Pricer, top: FloatArray) -> Scan:
        """All chains of a pricer from caps ``top``."""
        found = Scan()
        theta, best = self._past_poor(pricer, top)
        start = pricer.tokens / np.maximum(theta, 1.0) ** 2
        active = np.flatnonzero(theta > 0)
        step = np.full(top.size, _STEP)
        for _ in range(_LINKS if active.size else 0):
            self.poll()
            small = pricer if active.size == top.size else pricer.only(active)
            value, mu, linear = self._bound(small, theta[active], start[active], found)
            start[active] = mu
            self._keep_links(found, small, theta[active], mu, linear)
            below, forced = self._fall(small, theta[active], value, step[active])
            step[active] = np.where(forced, np.minimum(2 * step[active], _WIDE), _STEP)
            alive = np.isfinite(value)
            ratio = np.floor(small.tokens / (below + 1)) / np.maximum(value, 1e-9)
            best[active] = np.maximum(best[active], np.where(alive, ratio, 0.0))
            start[active] *= (theta[active] / np.maximum(below, 1.0)) ** 2
            theta[active] = below
            active = active[alive & (below > 0)]
            if not active.size:
                break
        if active.size:
            raise ArithmeticError("a chain of caps does not end")
        found.best = dict(zip(pricer.at.tolist(), best.tolist(), strict=True))
        found.ratio = float(best.max(initial=0.0))
        return found

    def _past_poor(
        self, pricer: Pricer, top: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Caps below which a design may earn its price, 0: none does; largest ratios.

        Fluid bounds let the caps of most points fall far before anything is walked.
        """
        theta, best, active = top.copy(), np.zeros(top.size), np.arange(top.size)
        for _ in range(_FALLS):
            self.poll()
            small = pricer if active.size == top.size else pricer.only(active)
            value = fluid_price(small, self.prices, theta[active])
            earned = np.floor(_POOR * np.maximum(value, 0.0))
            below = np.floor(small.tokens / (earned + 1))
            falls = below < theta[active] * _WORTH
            ratio = np.floor(small.tokens / (below + 1)) / np.maximum(value, 1e-9)
            best[active[falls]] = np.maximum(best[active], ratio)[falls]
            active, below = active[falls], below[falls]
            theta[active] = below
            active = active[below > 0]
            if not active.size:
                break
        return theta, best

    def _bound(
        self, pricer: Pricer, theta: FloatArray, start: FloatArray, found: Scan
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """LB by the linear walk, and by segments where that falls short."""
        enough = pricer.tokens / (self.rho * _LOOSE * theta)
        first = least_price(pricer, self.prices, theta, start, enough, linear=True)
        self._collect(found, pricer, first, theta)
        value, mu = first.value.copy(), first.mu.copy()
        linear = np.ones(theta.size, dtype=bool)
        short = np.flatnonzero(value < enough * _LOOSE / _SHORT)
        if short.size:
            some = pricer.only(short)
            second = least_price(
                some,
                self.prices,
                theta[short],
                mu[short],
                enough[short],
                linear=False,
            )
            self._collect(found, some, second, theta[short])
            better = second.value > value[short]
            i = short[better]
            value[i], mu[i] = second.value[better], second.mu[better]
            linear[i] = False
        return value, mu, linear

    def _fall(
        self, pricer: Pricer, theta: FloatArray, value: FloatArray, step: FloatArray
    ) -> tuple[FloatArray, BoolArray]:
        """The next cap, and where it is forced, since the bound allows none."""
        earned = np.floor(self.rho * np.maximum(value, 0.0) * (1 + _FLOAT))
        reach = np.floor(pricer.tokens / (earned + 1) * (1 + _FLOAT))
        forced = reach >= theta
        lower = np.floor(theta * (1 - step))
        return np.minimum(np.where(forced, lower, reach), theta - 1), forced

    def _keep_links(
        self,
        found: Scan,
        pricer: Pricer,
        theta: FloatArray,
        mu: FloatArray,
        linear: FloatArray,
    ) -> None:
        rows = zip(pricer.at.tolist(), theta.tolist(), mu.tolist(), linear, strict=True)
        found.links += [Link(o, int(t), m, bool(li)) for o, t, m, li in rows]

    def _collect(
        self, found: Scan, pricer: Pricer, bounded: Bounded, theta: FloatArray
    ) -> None:
        """Keep the designs that keep their cap themselves."""
        for rows, paths in bounded.met:
            q = pricer.micro_batches[rows]
            tpot = np.maximum(q * paths.bottleneck_ns, paths.loop_ns)
            good = np.isfinite(paths.value) & (tpot <= theta[rows])
            for i in np.flatnonzero(good).tolist():
                used = np.flatnonzero(paths.units[i] >= 0)
                stages = tuple(
                    (
                        int(pricer.chosen[paths.units[i, s]]),
                        int(paths.layers[i, s]),
                        bool(paths.opens[i, s]),
                    )
                    for s in used
                )
                found.designs[int(pricer.at[rows[i]]), stages] = float(tpot[i])
