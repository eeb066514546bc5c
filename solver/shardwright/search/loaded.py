"""Chains under percentile targets: the largest rate of every split that may matter.

A queueing model costs thousands of times what the balanced law does. The mean stage
bounds all splits of a point. Points race: all that may hold a rate are asked whether
they do, the rate is halved towards the best, and few are left whose splits are rated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from shardwright.cost.tails import Station
from shardwright.formulations.dp.chain import Chain
from shardwright.problem import Design, PoolRole, Problem
from shardwright.problem.percentiles import PercentileModel
from shardwright.search.chains import ChainColumn, ChainPricer, undominated
from shardwright.search.splits import best_splits


@dataclass
class Race:
    """The points of a chain, each with a bound on its rate, by falling bounds.

    ``racing`` hold the rate ``low``; ``out`` are those left behind. Over when the
    fastest is known within ``_CLOSE``. ``doubtful``: nobody held the first rate asked.
    """

    racing: list[ChainColumn]
    out: list[ChainColumn] = field(default_factory=list)
    low: int = 0
    doubtful: bool = False
    _halved: bool = False

    @property
    def top(self) -> int:
        """No point has a larger rate."""
        return max((c.rate_mtok_per_s for c in self.columns), default=0)

    @property
    def columns(self) -> list[ChainColumn]:
        """All points that may have a rate."""
        return sorted([*self.racing, *self.out], key=_by_rate)

    @property
    def over(self) -> bool:
        """Whether the fastest is known closely, or none is left."""
        ahead = self.racing
        return not ahead or ahead[0].rate_mtok_per_s * (1 - _CLOSE) <= self.low

    def halve(
        self,
        holds: Callable[[ChainColumn, int], bool],
        serves: Callable[[ChainColumn], bool],
    ) -> None:
        """Ask all that may hold the rate halfway to the best whether they do."""
        if self.doubtful:
            self.doubtful = False
            self.racing = [c for c in self.racing if serves(c)]
            if not self.racing:
                return
        rate = (self.low + self.racing[0].rate_mtok_per_s) // 2
        ahead = [c for c in self.racing if c.rate_mtok_per_s > rate]
        behind = [c for c in self.racing if c.rate_mtok_per_s <= rate]
        held = {c.point: holds(c, rate) for c in ahead}
        failed = [_at_most(c, rate) for c in ahead if not held[c.point]]
        if any(held.values()):
            self.out += [*failed, *behind]
            self.racing, self.low = [c for c in ahead if held[c.point]], rate
        else:
            self.doubtful = not self.low and not self._halved
            self.racing = sorted([*failed, *behind], key=_by_rate)
        self._halved = True
        self.racing = [c for c in self.racing if c.rate_mtok_per_s > 0]


@dataclass
class LoadedChains:
    """Chains of (unit, stages, crossings) of a problem with percentile targets."""

    problem: Problem
    model: PercentileModel
    chains: ChainPricer
    _races: dict[tuple[int, int, int, PoolRole], Race] = field(default_factory=dict)
    _bounds: dict[tuple[int, int, int, PoolRole], list[ChainColumn]] = field(
        default_factory=dict
    )
    _means: dict[tuple[int, int, int, int], Station] = field(default_factory=dict)

    def bounded(
        self, unit: int, stages: int, crossings: int, role: PoolRole
    ) -> list[ChainColumn]:
        """Every point that may keep the targets, by falling bound on its rate."""
        key = (unit, stages, crossings, role)
        if key not in self._bounds:
            self._bounds[key] = sorted(self._bounded(*key), key=_by_rate)
        return self._bounds[key]

    def _bounded(
        self, unit: int, stages: int, crossings: int, role: PoolRole
    ) -> Iterator[ChainColumn]:
        columns = self.chains.bounded(unit, stages, crossings, role)
        points = [column.point for column in columns]
        means = self.model.chain_stations(points, unit, stages, crossings)
        for column, station in zip(columns, means, strict=True):
            self._means[unit, stages, crossings, column.point] = station
            top = min(column.rate_mtok_per_s, self.model.rate_bound_mtok(station))
            if top > 0:
                yield replace(column, rate_mtok_per_s=top, ceiling=top)

    def refined(
        self, unit: int, stages: int, crossings: int, role: PoolRole
    ) -> tuple[list[ChainColumn], bool]:
        """Closer bounds at every call; True with the columns once the best is exact.

        Whoever asks stops asking when the bound has fallen so far that the chain does
        not matter: most chains are left after one or two halvings.
        """
        chain = (unit, stages, crossings)
        race = self._races.get((*chain, role))
        if race is None:
            race = Race([*self.bounded(*chain, role)])
            self._races[*chain, role] = race
        before = race.top
        while not race.over and race.top == before:
            race.halve(partial(self._holds, chain), partial(self._serves, chain))
        if not race.over:
            return race.columns, False
        return self._front(chain, race.columns), True

    def _front(
        self, chain: tuple[int, int, int], rest: list[ChainColumn]
    ) -> list[ChainColumn]:
        """Columns by falling rate; that of highest rate is exact."""
        exact: list[ChainColumn] = []
        parked: list[ChainColumn] = []
        best, more = 0, 0
        while rest and rest[0].rate_mtok_per_s > best:
            column = rest.pop(0)
            if best and not self._holds(chain, column, more):
                parked.append(_at_most(column, best))
                continue
            exact += self.price(*chain, column)
            best = max([best, *(c.rate_mtok_per_s for c in exact)])
            more = self.model.next_mtok(best) if best else 0
        return undominated([*exact, *parked, *rest])

    def _serves(self, chain: tuple[int, int, int], column: ChainColumn) -> bool:
        """Whether the mean stage keeps the targets at any rate that counts."""
        return self.model.serves(self._means[*chain, column.point])

    def _holds(
        self, chain: tuple[int, int, int], column: ChainColumn, rate: int
    ) -> bool:
        """Whether the mean stage keeps the targets at a rate."""
        return self.model.holds(self._means[*chain, column.point], rate)

    def price(
        self, unit: int, stages: int, crossings: int, column: ChainColumn
    ) -> list[ChainColumn]:
        """The splits of a point that no other beats, each at its largest rate."""
        designs, all_of_them = self._designs(unit, stages, crossings, column.point)
        mean = self._means[unit, stages, crossings, column.point]
        for design in designs:
            self.model.no_better(self.model.station(design), mean)
        rated = [(design, self.problem.rated(design)) for design in designs]
        ceiling = 0
        if designs and not all_of_them:
            ceiling = min(column.rate_mtok_per_s, self.model.rate_mtok(mean))
        return [
            ChainColumn(
                design.point,
                f.times.tpot_ns,
                f.times.ttft_ns,
                f.rate_mtok_per_s,
                design,
                max(ceiling, f.rate_mtok_per_s),
            )
            for design, f in rated
            if f.rate_mtok_per_s > 0
        ]

    def _designs(
        self, unit: int, stages: int, crossings: int, point: int
    ) -> tuple[list[Design], bool]:
        """Splits to rate, and whether every split that may be best is among them."""
        bounds = self.problem.bounds
        if stages > 1 and self.problem.uniform and bounds.split is None:
            chain = Chain(self.problem, unit, point, stages, crossings)
            if not chain.possible():
                return [], True
            splits = best_splits(self.problem, chain)
            fitting = [d for d in splits if self.problem.design_fits(d)]
            return fitting, len(fitting) == len(splits)
        design = self.chains.price(unit, stages, crossings, point)
        found = [] if design is None else [design]
        return found, stages == 1 or bounds.split is not None or not found


def _by_rate(column: ChainColumn) -> tuple[int, int]:
    return -column.rate_mtok_per_s, column.tpot_ns


def _at_most(column: ChainColumn, rate: int) -> ChainColumn:
    return replace(column, rate_mtok_per_s=rate, ceiling=rate)


_CLOSE = 0.02
"""Relative difference of rates at which a race ends."""
