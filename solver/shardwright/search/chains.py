"""Columns of a single unit: bounded in one sweep, solved exactly where it matters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np

from shardwright.formulations.dp.chain import Chain
from shardwright.problem import Design, IntArray, PoolRole, Problem, stage_roles
from shardwright.search.chunks import ChunkGroups


@dataclass(frozen=True)
class ChainColumn:
    """A chain at one point: exact with a design, else a lower bound on TPOT.

    No design of the chain at the point has a rate above ``ceiling`` (None: the rate).
    """

    point: int
    tpot_ns: int
    ttft_ns: int
    rate_mtok_per_s: int
    design: Design | None
    ceiling: int | None = None


class Ranked(Protocol):
    """What makes a column better than another of the same signature."""

    @property
    def rate_mtok_per_s(self) -> int:
        """Rate, or a bound from above."""

    @property
    def tpot_ns(self) -> int:
        """TPOT, or a bound from below."""

    @property
    def ttft_ns(self) -> int:
        """TTFT where it is known, else 0."""

    @property
    def design(self) -> Design | None:
        """The design of an exact column."""


Column = TypeVar("Column", bound=Ranked)


def undominated(columns: Iterable[Column]) -> list[Column]:
    """By falling rate, without those that an exact one beats in rate and TPOT.

    Among equal rates the exact ones come first, then those of least TTFT.
    """
    kept: list[Column] = []
    least: int | None = None
    for column in sorted(
        columns,
        key=lambda c: (-c.rate_mtok_per_s, c.design is None, c.ttft_ns, c.tpot_ns),
    ):
        if least is None or column.tpot_ns < least:
            kept.append(column)
            if column.design is not None:
                least = column.tpot_ns
    return kept


@dataclass
class ChainPricer:
    """Chains of (unit, stages, crossings); every split is solved once."""

    problem: Problem
    chunks: ChunkGroups
    _fronts: dict[tuple[int, int, int, PoolRole], list[ChainColumn]] = field(
        default_factory=dict
    )
    _free: dict[tuple[int, int, int], Design | None] = field(default_factory=dict)

    def front(
        self, unit: int, stages: int, crossings: int, role: PoolRole
    ) -> list[ChainColumn]:
        """Columns of a role by falling rate; the one of highest rate is exact.

        Only goals on latency can want the bounded ones behind it.
        """
        key = (unit, stages, crossings, role)
        if key not in self._fronts:
            self._fronts[key] = self._front(*key)
        return self._fronts[key]

    def _front(
        self, unit: int, stages: int, crossings: int, role: PoolRole
    ) -> list[ChainColumn]:
        exact: list[ChainColumn] = []
        rest = self.bounded(unit, stages, crossings, role)
        best = -1
        while rest and rest[0].rate_mtok_per_s > best:
            design = self.price(unit, stages, crossings, rest.pop(0).point)
            if design is not None:
                exact.append(self._column(design))
                best = max(best, exact[-1].rate_mtok_per_s)
        return undominated([*exact, *rest])

    def _column(self, design: Design) -> ChainColumn:
        f = self.problem.rated(design)
        times = f.times
        return ChainColumn(
            design.point, times.tpot_ns, times.ttft_ns, f.rate_mtok_per_s, design
        )

    def bounded(
        self, unit: int, stages: int, crossings: int, role: PoolRole
    ) -> list[ChainColumn]:
        """Lower bounds at every point, by falling rate.

        T is at least the mean stage; S is the same for every split; the total memory
        must fit p units.
        """
        points = self.chunks.points(stages, role)
        if not points:
            return []
        at = np.asarray(points, dtype=np.int64)
        t = self.problem.tables
        q = np.array([self.problem.points[o].micro_batches for o in points])
        work = self._totals(t.decode_layer, t.decode_role, at, unit, stages)
        loop = work + self._hops(at, unit, stages, crossings)
        tpot = np.maximum(q * -(-work // stages), loop)
        possible = self._possible(at, unit, stages)
        if self.problem.bounds.tpot_ns is not None:
            unlimited = [self.problem.tpot_limit_ns(o) is None for o in points]
            possible &= (tpot <= self.problem.bounds.tpot_ns) | np.array(unlimited)
        gpus = stages * self.problem.caching_gpus([unit])
        columns = [
            ChainColumn(o, ns, 0, self.problem.rate_mtok_per_s(o, ns, gpus), None)
            for o, ns, fits in zip(
                points, tpot.tolist(), possible.tolist(), strict=True
            )
            if fits
        ]
        return sorted(columns, key=lambda c: (-c.rate_mtok_per_s, c.tpot_ns))

    def _totals(
        self, layer: IntArray, role: IntArray, at: IntArray, unit: int, stages: int
    ) -> IntArray:
        total: IntArray = layer[at, unit] @ self.problem.kind_prefix[-1]
        for r in stage_roles(stages):
            total = total + role[at, unit, r]
        return total

    def _hops(self, at: IntArray, unit: int, stages: int, crossings: int) -> IntArray:
        t, k = self.problem.tables, self.problem.units[unit].gpu_class
        inside = (stages - 1 - crossings) * t.hop_intra[at, k]
        hops: IntArray = inside + crossings * t.hop_inter[at, k, k]
        return hops + (t.return_ns if stages > 1 else 0)

    def _possible(
        self, at: IntArray, unit: int, stages: int
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        if not self.problem.bounds.memory_fits:
            return np.ones(at.shape, dtype=np.bool_)
        gpu_class = self.problem.classes[self.problem.units[unit].gpu_class]
        room, rows = stages * gpu_class.capacity_bytes, self.problem.memory_rows
        totals = [self._totals(r.layer, r.role, at, unit, stages) for r in rows]
        return np.asarray(np.max(totals, axis=0) <= room)

    def price(
        self, unit: int, stages: int, crossings: int, point: int
    ) -> Design | None:
        """The least-TPOT design; its first ``crossings`` hops leave the island.

        Which split has the smallest stages does not depend on the hops.
        """

        def whole(design: Design) -> Design:
            marks = tuple(i < crossings for i in range(stages - 1))
            return replace(design, crossings=marks)

        def solve(o: int, prefill: bool) -> Design | None:
            if prefill:
                return Chain(self.problem, unit, o, stages, crossings).best()
            return self._without_prefill(unit, stages, o, crossings)

        return self.chunks.least_tpot(point, solve, whole)

    def _without_prefill(
        self, unit: int, stages: int, point: int, crossings: int
    ) -> Design | None:
        """Shared by all crossings where no rule ties the split to the hops."""
        b = self.problem.bounds
        tied = b.communication_share is not None or b.split is not None
        if tied or (crossings and b.tpot_ns is not None):
            return Chain(
                self.problem, unit, point, stages, crossings, prefill_binds=False
            ).best()
        key = (unit, stages, point)
        if key not in self._free:
            self._free[key] = Chain(
                self.problem, unit, point, stages, 0, prefill_binds=False
            ).best()
        return self._free[key]
