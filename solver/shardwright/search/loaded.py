"""Chains under percentile targets: the largest rate of every split that may matter.

A queueing model costs thousands of times what the balanced law does. The mean stage
bounds all splits of a point. Points race: all that may hold a rate are asked whether
they do, the rate is halved towards the best, and few are left whose splits are rated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardwright.formulations.dp.chain import Chain
from shardwright.problem import Design, PoolRole, Problem
from shardwright.problem.percentiles import PercentileModel
from shardwright.search.chains import ChainColumn, ChainPricer, undominated
from shardwright.search.splits import best_splits


@dataclass
class LoadedChains:
    """Chains of (unit, stages, crossings) of a problem with percentile targets."""

    problem: Problem
    model: PercentileModel
    chains: ChainPricer

    def bounded(
        self, unit: int, stages: int, crossings: int, role: PoolRole
    ) -> list[ChainColumn]:
        """Every point that may keep the targets, by falling bound on its rate."""
        found = []
        for column in self.chains.bounded(unit, stages, crossings, role):
            station = self.model.chain_station(column.point, unit, stages, crossings)
            top = min(column.rate_mtok_per_s, self.model.rate_bound_mtok(station))
            if top > 0:
                found.append(replace(column, rate_mtok_per_s=top, ceiling=top))
        return sorted(found, key=_by_rate)

    def front(
        self, unit: int, stages: int, crossings: int, role: PoolRole
    ) -> list[ChainColumn]:
        """Columns by falling rate; that of highest rate is exact."""
        rest = self._raced(unit, stages, crossings, role)
        exact: list[ChainColumn] = []
        parked: list[ChainColumn] = []
        best, more = 0, 0
        while rest and rest[0].rate_mtok_per_s > best:
            column = rest.pop(0)
            if best and not self._holds(unit, stages, crossings, column, more):
                parked.append(_at_most(column, best))
                continue
            exact += self.price(unit, stages, crossings, column)
            best = max([best, *(c.rate_mtok_per_s for c in exact)])
            more = self.model.next_mtok(best) if best else 0
        return undominated([*exact, *parked, *rest])

    def _raced(
        self, unit: int, stages: int, crossings: int, role: PoolRole
    ) -> list[ChainColumn]:
        """``bounded`` with closer bounds, that of the fastest within ``_CLOSE``."""
        chain = (unit, stages, crossings)
        racing = self.bounded(*chain, role)
        out: list[ChainColumn] = []
        low, hopeless = 0, True
        while racing and racing[0].rate_mtok_per_s * (1 - _CLOSE) > low:
            rate = (low + racing[0].rate_mtok_per_s) // 2
            ahead = [c for c in racing if c.rate_mtok_per_s > rate]
            behind = [c for c in racing if c.rate_mtok_per_s <= rate]
            held = {c.point: self._holds(*chain, c, rate) for c in ahead}
            failed = [_at_most(c, rate) for c in ahead if not held[c.point]]
            if any(held.values()):
                hopeless = False
                out += [*failed, *behind]
                racing, low = [c for c in ahead if held[c.point]], rate
            else:
                racing = sorted([*failed, *behind], key=_by_rate)
                if hopeless:
                    hopeless = False
                    racing = [c for c in racing if self._serves(*chain, c)]
            racing = [c for c in racing if c.rate_mtok_per_s > 0]
        return sorted([*racing, *out], key=_by_rate)

    def _serves(
        self, unit: int, stages: int, crossings: int, column: ChainColumn
    ) -> bool:
        """Whether the mean stage keeps the targets at any rate that counts."""
        station = self.model.chain_station(column.point, unit, stages, crossings)
        return self.model.serves(station)

    def _holds(
        self, unit: int, stages: int, crossings: int, column: ChainColumn, rate: int
    ) -> bool:
        """Whether the mean stage keeps the targets at a rate."""
        station = self.model.chain_station(column.point, unit, stages, crossings)
        return self.model.holds(station, rate)

    def price(
        self, unit: int, stages: int, crossings: int, column: ChainColumn
    ) -> list[ChainColumn]:
        """The splits of a point that no other beats, each at its largest rate."""
        designs, all_of_them = self._designs(unit, stages, crossings, column.point)
        rated = [(design, self.problem.rated(design)) for design in designs]
        ceiling = 0
        if designs and not all_of_them:
            station = self.model.chain_station(column.point, unit, stages, crossings)
            ceiling = min(column.rate_mtok_per_s, self.model.rate_mtok(station))
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
