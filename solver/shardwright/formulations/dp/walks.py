"""Two shortest-path walks over stages, many operating points at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from shardwright.cost.memory import FIRST, LAST, MIDDLE
from shardwright.formulations.dp.pricing import (
    BoolArray,
    FloatArray,
    Paths,
    Pricer,
    Prices,
    _padded,
)
from shardwright.problem import IntArray

_CELLS = 2_000_000
"""Numbers of one array of a walk: few large blocks, but a bounded memory."""


def cheapest(
    pricer: Pricer, prices: Prices, theta: FloatArray, mu: FloatArray, *, linear: bool
) -> Paths:
    """The cheapest path of every point with q T <= theta at the multipliers mu."""
    kind = LinearWalk if linear else SegmentWalk
    each = len(pricer.units) if linear else len(prices.segment) * (pricer.room + 1)
    block = max(1, _CELLS // (each * (pricer.problem.layers + 1)))
    found = []
    for start in range(0, pricer.at.size, block):
        rows = np.arange(start, min(start + block, pricer.at.size))
        some = pricer if rows.size == pricer.at.size else pricer.only(rows)
        found.append(kind(some, prices, theta[rows], mu[rows]).paths())
    return found[0] if len(found) == 1 else _joined(found)


def _joined(found: list[Paths]) -> Paths:
    width = max(p.units.shape[1] for p in found)

    def wide(name: str, empty: int | bool) -> Any:
        parts = []
        for p in found:
            array = getattr(p, name)
            left = np.full((array.shape[0], width - array.shape[1]), empty)
            parts.append(np.concatenate([left.astype(array.dtype), array], axis=1))
        return np.concatenate(parts)

    def flat(name: str) -> FloatArray:
        return np.concatenate([getattr(p, name) for p in found])

    return Paths(
        flat("value"),
        wide("units", -1),
        wide("layers", 0),
        wide("opens", False),
        flat("price"),
        flat("loop_ns"),
        flat("bottleneck_ns"),
    )


class LinearWalk:
    """Prices per unit: state (layers, class); hops inside a class stay inside."""

    def __init__(
        self, of: Pricer, prices: Prices, theta: FloatArray, mu: FloatArray
    ) -> None:
        self.of, self.prices = of, prices
        caps = of.caps(theta)
        per_unit = np.array(
            [
                prices.per_unit(int(k), int(t))
                for k, t in zip(of.unit_class, of.gpus, strict=True)
            ]
        )
        self.classes = sorted(set(of.unit_class.tolist()))
        self.members = [np.flatnonzero(of.unit_class == k) for k in self.classes]
        self.stage: dict[int, FloatArray] = {}
        self.unit: dict[int, IntArray] = {}
        for role in (MIDDLE, FIRST, LAST):
            costs = of.stage_costs(caps, role, mu, per_unit)
            self.stage[role], self.unit[role] = self._best_units(costs)
        self.alone = of.alone(caps, mu, per_unit)
        hop = of.hop_inter[:, self.classes][:, :, self.classes].copy()
        for i, k in enumerate(self.classes):
            hop[:, i, i] = of.hop_intra[:, k]
        self.hop = mu[:, None, None] * hop
        self.back = mu * of.problem.tables.return_ns

    def _best_units(self, costs: FloatArray) -> tuple[FloatArray, IntArray]:
        least, unit = [], []
        for members in self.members:
            mine = costs[:, members]
            chosen = np.argmin(mine, axis=1)
            least.append(np.take_along_axis(mine, chosen[:, None], axis=1)[:, 0])
            unit.append(members[chosen])
        return np.stack(least, axis=1), np.stack(unit, axis=1)

    def _forward(self) -> None:
        n, k, length = self.stage[MIDDLE].shape
        self.f = np.full((n, k, length + 1), np.inf)
        self.f[:, :, 1:] = self.stage[FIRST]
        middle = self.stage[MIDDLE][:, :, ::-1].copy()
        self.arrived = np.full((n, k, length + 1), np.inf)
        for layer in range(1, length):
            here = self.f[:, :, layer]
            if layer > 1:
                through = (
                    self.arrived[:, :, 1:layer] + middle[:, :, length - layer + 1 :]
                )
                here = np.minimum(here, through.min(axis=2))
                self.f[:, :, layer] = here
            self.arrived[:, :, layer] = (here[:, :, None] + self.hop).min(axis=1)

    def paths(self) -> Paths:
        """Forward, then back from the best end."""
        self._forward()
        length = self.of.problem.layers
        ends = self.arrived[:, :, 1:length] + self.stage[LAST][:, :, -2::-1]
        flat = ends.reshape(ends.shape[0], -1)
        where = np.argmin(flat, axis=1)
        many = flat[np.arange(where.size), where] + self.back
        alone = self.alone.min(axis=1)
        value = np.minimum(alone, many)
        k, at = np.divmod(where, length - 1)
        return self._back(value, alone <= many, k, at + 1)

    def _back(
        self, value: FloatArray, single: BoolArray, k: IntArray, at: IntArray
    ) -> Paths:
        n, length = value.size, self.of.problem.layers
        rows = np.arange(n)
        going = ~single & np.isfinite(value)
        one = single & np.isfinite(value)
        taken = length - at
        last = self.unit[LAST][rows, k, taken - 1]
        units = [np.where(one, self.alone.argmin(axis=1), np.where(going, last, -1))]
        layers = [np.where(one, length, np.where(going, taken, 0))]
        changed = []
        at = np.where(going, at, 0)
        while going.any():
            source = (self.f[rows, :, at] + self.hop[rows, :, k]).argmin(axis=1)
            changed.append(going & (source != k))
            k = np.where(going, source, k)
            target = self.f[rows, k, at]
            begins = going & (self.stage[FIRST][rows, k, at - 1] <= target)
            unit = np.where(begins, self.unit[FIRST][rows, k, at - 1], -1)
            count = np.where(begins, at, 0)
            i = np.flatnonzero(going & ~begins)
            if i.size:
                before = at[i, None] - np.arange(1, length + 1)[None]
                costs = self.arrived[i[:, None], k[i, None], np.maximum(before, 0)]
                costs = np.where(before >= 1, costs, np.inf)
                costs = costs + self.stage[MIDDLE][i, k[i]]
                best = costs.argmin(axis=1) + 1
                unit[i], count[i] = self.unit[MIDDLE][i, k[i], best - 1], best
            units.append(unit)
            layers.append(count)
            at = at - count
            going = going & ~begins
        return self._paths(value, units, layers, changed)

    def _paths(
        self,
        value: FloatArray,
        units: list[IntArray],
        layers: list[IntArray],
        changed: list[BoolArray],
    ) -> Paths:
        """A segment begins where the class changes, and where an island is full.

        The figures are those without the latter.
        """
        stacked = np.stack(units[::-1], axis=1)
        counts = np.stack(layers[::-1], axis=1)
        opens = np.zeros(stacked.shape, dtype=bool)
        if changed:
            opens[:, 1:] = np.stack(changed[::-1], axis=1)
        price, loop, worst = self.of.sums(self.prices, stacked, counts, opens)
        opens |= _overflow(self.of, stacked, opens)
        return Paths(value, stacked, counts, opens, price, loop, worst)


def _overflow(of: Pricer, units: IntArray, opens: BoolArray) -> BoolArray:
    """Places where the island of a segment is full."""
    sizes = of.problem.island_sizes
    free = np.array([max(each, default=0) for each in sizes], dtype=np.int64)
    found = np.zeros(opens.shape, dtype=bool)
    size = np.zeros(units.shape[0], dtype=np.int64)
    for s in range(units.shape[1]):
        u = np.maximum(units[:, s], 0)
        more = np.where(units[:, s] >= 0, of.gpus[u], 0)
        size = np.where(opens[:, s], 0, size) + more
        full = size > free[of.unit_class[u]]
        found[:, s] = full
        size = np.where(full, more, size)
    return found


class SegmentWalk:
    """State (layers, class, GPUs of the open segment); prices of whole segments."""

    def __init__(
        self, of: Pricer, prices: Prices, theta: FloatArray, mu: FloatArray
    ) -> None:
        self.of, self.prices = of, prices
        self.n, self.length = of.at.size, of.problem.layers
        caps = of.caps(theta)
        nothing = np.zeros(of.gpus.size)
        widest = np.clip(caps[:, :, MIDDLE].max(axis=0), 0, self.length)
        self.window = widest.astype(np.int64).tolist()
        self.cost = {
            role: of.stage_costs(caps, role, mu, nothing)
            for role in (MIDDLE, FIRST, LAST)
        }
        self.table = _padded(prices, of.room)
        sizes = self.table[of.unit_class, of.gpus]
        self.alone = of.alone(caps, mu, nothing) + sizes[None]
        self.inter = mu[:, None, None] * of.hop_inter
        self.intra = mu[:, None] * of.hop_intra
        self.back = mu * of.problem.tables.return_ns
        self.k = len(of.problem.classes)
        self.rooms = [len(row) - 1 for row in prices.segment]
        self.placed = list(zip(of.unit_class.tolist(), of.gpus.tolist(), strict=True))

    def _empty(self) -> FloatArray:
        """(N, K, room + 1, L + 1): GPUs 0 means between segments."""
        return np.full((self.n, self.k, self.of.room + 1, self.length + 1), np.inf)

    def _first(self) -> FloatArray:
        found = self._empty()
        for u, (k, t) in enumerate(zip(self.of.unit_class, self.of.gpus, strict=True)):
            found[:, k, t, 1:] = np.minimum(found[:, k, t, 1:], self.cost[FIRST][:, u])
        return found

    def _reach(self, f: FloatArray, layer: int | slice) -> None:
        """Close segments at ``layer``: what a stage behind it starts from.

        ``f`` holds paths; ``self.source`` what a next stage adds to.
        """
        here = f[:, :, 1:, layer]
        if isinstance(layer, int):
            closed = (here + self.table[None, :, 1:]).min(axis=2)
            self.source[:, :, 1:, layer] = here + self.intra[:, :, None]
            self.source[:, :, 0, layer] = (closed[:, :, None] + self.inter).min(axis=1)
            return
        closed = (here + self.table[None, :, 1:, None]).min(axis=2)
        self.source[:, :, 1:, layer] = here + self.intra[:, :, None, None]
        arrive = (closed[:, :, None] + self.inter[..., None]).min(axis=1)
        self.source[:, :, 0, layer] = arrive

    def _extend(self, target: FloatArray, layer: int) -> None:
        """Paths that end at ``layer`` with a middle stage."""
        for u, (k, t) in enumerate(self.placed):
            start = max(1, layer - self.window[u])
            if start >= layer:
                continue
            through = (
                self.source[:, k, : self.rooms[k] + 1 - t, start:layer]
                + self.reversed[:, u, None, self.length - layer + start :]
            ).min(axis=2)
            ends = target[:, k, t : self.rooms[k] + 1, layer]
            np.minimum(ends, through, out=ends)

    def _forward(self) -> list[FloatArray]:
        """Paths after every stage, or, where their number is free, of any number."""
        self.reversed = self.cost[MIDDLE][:, :, ::-1].copy()
        f = self._first()
        self.source = self._empty()
        if self.of.stages is None:
            for layer in range(1, self.length):
                if layer > 1:
                    self._extend(f, layer)
                self._reach(f, layer)
            self.sources = [self.source]
            return [f]
        found, self.sources = [f], []
        for stage in range(1, self.of.stages):
            self.source = self._empty()
            self._reach(f, slice(1, self.length))
            self.sources.append(self.source)
            if stage + 1 < self.of.stages:
                f = self._empty()
                for layer in range(stage + 1, self.length):
                    self._extend(f, layer)
                found.append(f)
        return found

    def paths(self) -> Paths:
        """Forward, then back from the best end."""
        if self.of.stages == 1:
            self.levels: list[FloatArray] = []
            value = np.full(self.n, np.inf)
            where = np.zeros((3, self.n), dtype=np.int64)
        else:
            self.levels = self._forward()
            value, where = self._ends()
        alone = self.alone.min(axis=1)
        single = alone <= value
        return self._back(np.minimum(alone, value), single, where)

    def _ends(self) -> tuple[FloatArray, IntArray]:
        """Least value over the last stage: (value, (unit, GPUs before it, layer))."""
        source, best = self.sources[-1], np.full(self.n, np.inf)
        where = np.zeros((3, self.n), dtype=np.int64)
        rows = np.arange(self.n)
        for u, (k, t) in enumerate(zip(self.of.unit_class, self.of.gpus, strict=True)):
            room = self.of.room + 1 - t
            ends = (
                source[:, k, :room, 1 : self.length]
                + self.cost[LAST][:, u, None, -2::-1]
                + self.table[k, t:][None, :, None]
            ).reshape(self.n, -1)
            at = ends.argmin(axis=1)
            value = ends[rows, at] + self.back
            better = value < best
            best = np.where(better, value, best)
            size, layer = np.divmod(at, self.length - 1)
            for i, x in enumerate((np.full(self.n, u), size, layer + 1)):
                where[i] = np.where(better, x, where[i])
        return best, where

    def _back(self, value: FloatArray, single: BoolArray, where: IntArray) -> Paths:
        rows, exists = np.arange(self.n), np.isfinite(value)
        going, one = exists & ~single, exists & single
        last, size, at = where
        units = [np.where(one, self.alone.argmin(axis=1), np.where(going, last, -1))]
        layers = [np.where(one, self.length, np.where(going, self.length - at, 0))]
        opens = [going & (size == 0)]
        k = self.of.unit_class[last]
        level = len(self.levels) - 1
        while going.any():
            f = self.levels[max(level, 0)]
            begun = going & (size == 0)
            if begun.any():
                closed = f[rows, :, 1:, at] + self.table[None, :, 1:]
                closed = closed + self.inter[rows, :, k][:, :, None]
                flat = closed.reshape(self.n, -1).argmin(axis=1)
                before, filled = np.divmod(flat, self.of.room)
                k = np.where(begun, before, k)
                size = np.where(begun, filled + 1, size)
            unit, count, left, begins = self._stage_before(f, level, k, size, at, going)
            units.append(unit)
            layers.append(count)
            opens.append(going & ~begins & (left == 0))
            at = np.where(going, at - count, at)
            size = np.where(going, left, size)
            going = going & ~begins
            level -= self.of.stages is not None
        stacked = np.stack(units[::-1], axis=1)
        counts, marks = np.stack(layers[::-1], axis=1), np.stack(opens[::-1], axis=1)
        price, loop, worst = self.of.sums(self.prices, stacked, counts, marks)
        return Paths(value, stacked, counts, marks, price, loop, worst)

    def _stage_before(
        self,
        f: FloatArray,
        level: int,
        k: IntArray,
        size: IntArray,
        at: IntArray,
        going: BoolArray,
    ) -> tuple[IntArray, IntArray, IntArray, BoolArray]:
        """The stage that ends at (k, size, at): unit, layers, GPUs before, first?"""
        unit, count = np.full(self.n, -1), np.zeros(self.n, dtype=np.int64)
        left, begins = np.zeros(self.n, dtype=np.int64), np.zeros(self.n, dtype=bool)
        best = np.full(self.n, np.inf)
        layered = self.of.stages is not None
        sizes = np.arange(1, self.length + 1)
        for u, (c, t) in enumerate(zip(self.of.unit_class, self.of.gpus, strict=True)):
            i = np.flatnonzero(going & (k == c) & (size >= t))
            if not i.size:
                continue
            if not layered or level == 0:
                mine = self.cost[FIRST][i, u, at[i] - 1]
                mine = np.where(size[i] == t, mine, np.inf)
                better = mine < best[i]
                j = i[better]
                best[j], unit[j], count[j] = mine[better], u, at[j]
                left[j], begins[j] = 0, True
            if layered and level == 0:
                continue
            source = self.sources[level - 1 if layered else 0]
            before = at[i, None] - sizes[None]
            costs = source[i[:, None], c, (size[i] - t)[:, None], np.maximum(before, 0)]
            costs = np.where(before >= 1, costs, np.inf) + self.cost[MIDDLE][i, u]
            n = costs.argmin(axis=1)
            mine = costs[np.arange(i.size), n]
            better = mine < best[i]
            j = i[better]
            best[j], unit[j], count[j] = mine[better], u, n[better] + 1
            left[j], begins[j] = size[j] - t, False
        return unit, count, left, begins
