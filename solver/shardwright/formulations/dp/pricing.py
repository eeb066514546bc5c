"""The cheapest replica of every operating point at once, under prices of segments.

A segment of z GPUs of class k costs pi_{k,z} (``Prices``). Under a cap Theta on TPOT
the design of least price is a shortest path over (layers laid, class of the last stage,
GPUs of its segment). Stage times are capped exactly (q tau <= Theta), so are memory and
the prefill work of one stage; the sum S <= Theta is priced by a multiplier mu, so that

    LB(o, Theta) = max over mu >= 0 of  f(L) - mu Theta        (f includes mu S)

is a lower bound on the price of every design with TPOT <= Theta. Where prices are
linear in the GPUs of a unit (``linear``) the segments need not be told apart: the walk
is some ten times faster, its hops inside a class count as inside an island, and the
number of stages is free; all three only lower the bound. Layers must all be alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.memory import MIDDLE, ONLY
from shardwright.cost.memory import ROLES as ROLE_NAMES
from shardwright.problem import IntArray, Problem

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Prices:
    """``segment[k][z]``: price of a segment of z GPUs of class k; [k][0] is 0.

    In the unit of the goal: mtok/s, GPUs or micro-USD per hour.
    """

    segment: tuple[tuple[float, ...], ...]

    def per_unit(self, gpu_class: int, gpus: int) -> float:
        """The least that a unit pays for its share of any segment that holds it."""
        sizes = self.segment[gpu_class]
        shares = (sizes[z] * gpus / z for z in range(gpus, len(sizes)))
        return min(shares, default=np.inf)


@dataclass(frozen=True)
class Paths:
    """The cheapest path of every point: value (inf: none), stages, exact sums.

    units (positions in the pricer, -1: none), layers, opens (a new segment begins):
    (N, p), the last stage last. price, loop_ns, bottleneck_ns (N): of that path.
    """

    value: FloatArray
    units: IntArray
    layers: IntArray
    opens: BoolArray
    price: FloatArray
    loop_ns: FloatArray
    bottleneck_ns: FloatArray


@dataclass(frozen=True)
class Pricer:
    """Tables of some points and units as arrays (N points, U units, L layers).

    ``stages``: exactly so many, None: any number. Raises ValueError when layers differ
    in kind or a unit spreads over islands.
    """

    problem: Problem
    at: IntArray
    units: tuple[int, ...]
    chunks: tuple[tuple[int, ...], ...]
    stages: int | None = None

    def __post_init__(self) -> None:
        if not self.problem.uniform:
            raise ValueError("pricing counts layers: they must be alike")
        if any(self.problem.units[u].islands > 1 for u in self.units):
            raise ValueError("pricing knows units of one island only")

    @cached_property
    def chosen(self) -> IntArray:
        """Unit indices (U)."""
        return np.asarray(self.units, dtype=np.int64)

    @cached_property
    def unit_class(self) -> IntArray:
        """Class of every unit (U)."""
        return np.array([self.problem.units[u].gpu_class for u in self.units])

    @cached_property
    def gpus(self) -> IntArray:
        """GPUs of every unit (U)."""
        return np.array([self.problem.units[u].gpus for u in self.units])

    @cached_property
    def room(self) -> int:
        """Largest free island."""
        return max(max(sizes, default=0) for sizes in self.problem.island_sizes)

    def _layer(self, table: IntArray) -> FloatArray:
        kind = self.problem.layer_kinds[0]
        found: FloatArray = table[np.ix_(self.at, self.chosen)][:, :, kind].astype(
            float
        )
        return found

    @cached_property
    def decode_layer(self) -> FloatArray:
        """(N, U) ns per layer."""
        return self._layer(self.problem.tables.decode_layer)

    @cached_property
    def decode_role(self) -> FloatArray:
        """(N, U, role) ns per stage."""
        table = self.problem.tables.decode_role
        return table[np.ix_(self.at, self.chosen)].astype(float)

    @cached_property
    def most_layers(self) -> FloatArray:
        """(N, U, role): most layers of a stage by memory and prefill; < 1: none."""
        p = self.problem
        shape = (self.at.size, self.chosen.size, len(ROLE_NAMES))
        most = np.full(shape, float(p.layers))
        if p.bounds.memory_fits:
            capacity = np.array([p.classes[k].capacity_bytes for k in self.unit_class])
            layer = p.tables.memory_layer[np.ix_(self.at, self.chosen)]
            role = p.tables.memory_role[np.ix_(self.at, self.chosen)]
            each = np.maximum(layer[:, :, p.layer_kinds[0]], 1)
            most = np.minimum(
                most, (capacity[None, :, None] - role) // each[:, :, None]
            )
        kept: FloatArray = np.minimum(most, self._prefill_layers())
        return kept

    def _prefill_layers(self) -> FloatArray:
        """Layers whose prefill alone, once per chunk, is within the budget."""
        p, t, kind = self.problem, self.problem.tables, self.problem.layer_kinds[0]
        shape = (self.at.size, self.chosen.size, len(ROLE_NAMES))
        most = np.full(shape, float(p.layers))
        for i, points in enumerate(self.chunks):
            budget = p.prefill_budget_ns(points[0], 1)
            if budget is None:
                return most
            each = []
            for o in points:
                once = budget // p.points[o].chunk_count
                left = once - t.prefill_role[o, self.chosen]
                per_layer = np.maximum(t.prefill_layer[o, self.chosen, kind], 1)
                each.append(left // per_layer[:, None])
            most[i] = np.minimum(most[i], np.max(each, axis=0))
        return most

    @cached_property
    def micro_batches(self) -> FloatArray:
        """q per point."""
        points = self.problem.points
        return np.array([points[o].micro_batches for o in self.at], dtype=float)

    @cached_property
    def tokens(self) -> FloatArray:
        """10^12 M per point: rate in mtok/s = tokens // TPOT."""
        points = self.problem.points
        return np.array([float(points[o].period_tokens) * 1e12 for o in self.at])

    @cached_property
    def hop_inter(self) -> FloatArray:
        """(N, K, K) ns."""
        return self.problem.tables.hop_inter[self.at].astype(float)

    @cached_property
    def hop_intra(self) -> FloatArray:
        """(N, K) ns."""
        return self.problem.tables.hop_intra[self.at].astype(float)

    def only(self, keep: IntArray) -> Pricer:
        """The points at some positions."""
        chunks = tuple(self.chunks[i] for i in keep.tolist())
        small = Pricer(self.problem, self.at[keep], self.units, chunks, self.stages)
        for name in _PER_POINT:
            if name in self.__dict__:
                small.__dict__[name] = self.__dict__[name][keep]
        return small

    def caps(self, theta: FloatArray) -> FloatArray:
        """(N, U, role): most layers of a stage with q tau <= theta."""
        stage = np.floor(theta / self.micro_batches)[:, None, None]
        each = np.maximum(self.decode_layer, 1e-6)[:, :, None]
        return np.minimum(np.floor((stage - self.decode_role) / each), self.most_layers)

    def stage_costs(
        self, caps: FloatArray, role: int, mu: FloatArray, price: FloatArray
    ) -> FloatArray:
        """(N, U, L) price plus mu tau of a stage of 1..L layers; inf over the cap."""
        n = np.arange(1, self.problem.layers + 1, dtype=float)
        fixed = price[None, :] + mu[:, None] * self.decode_role[:, :, role]
        costs = (mu[:, None] * self.decode_layer)[:, :, None] * n
        costs += fixed[:, :, None]
        costs[n[None, None, :] > caps[:, :, role, None]] = np.inf
        return costs

    def alone(self, caps: FloatArray, mu: FloatArray, price: FloatArray) -> FloatArray:
        """(N, U) price plus mu tau of a replica of one stage."""
        length = self.problem.layers
        tau = self.decode_layer * length + self.decode_role[:, :, ONLY]
        costs = price[None] + mu[:, None] * tau
        allowed = (caps[:, :, ONLY] >= length) & (self.stages in (None, 1))
        return np.where(allowed, costs, np.inf)

    def blocks(self, size: int) -> Iterator[Pricer]:
        """The points in pieces, so that arrays stay small."""
        for start in range(0, self.at.size, size):
            yield self.only(np.arange(start, min(start + size, self.at.size)))

    def sums(
        self, prices: Prices, units: IntArray, layers: IntArray, opens: BoolArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Price of the segments, S and T of stage lists (N, p)."""
        n, width = units.shape
        rows, used = np.arange(n), units >= 0
        stages = used.sum(axis=1)
        table = _padded(prices, self.room)
        price, loop, worst = np.zeros(n), np.zeros(n), np.zeros(n)
        size, before = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        for s in range(width):
            here, u = used[:, s], np.maximum(units[:, s], 0)
            role = _role(stages, s - (width - stages), s == width - 1)
            tau = self.decode_layer[rows, u] * layers[:, s]
            tau = tau + self.decode_role[rows, u, role]
            loop += np.where(here, tau, 0)
            worst = np.maximum(worst, np.where(here, tau, 0))
            k, first = self.unit_class[u], here & (s == width - stages)
            hop = np.where(
                opens[:, s], self.hop_inter[rows, before, k], self.hop_intra[rows, k]
            )
            loop += np.where(here & ~first, hop, 0)
            closed = here & opens[:, s] & ~first
            price += np.where(closed, table[before, np.minimum(size, self.room)], 0)
            size = np.where(here, np.where(opens[:, s], 0, size) + self.gpus[u], size)
            before = np.where(here, k, before)
        price += np.where(stages > 0, table[before, np.minimum(size, self.room)], 0)
        loop += np.where(stages > 1, self.problem.tables.return_ns, 0)
        return price, loop, worst


_PER_POINT = (
    "decode_layer",
    "decode_role",
    "most_layers",
    "micro_batches",
    "tokens",
    "hop_inter",
    "hop_intra",
)


def _role(stages: IntArray, place: IntArray, last: bool) -> IntArray:
    ends = np.where(place == 0, 1, 2 if last else MIDDLE)
    return np.where(stages == 1, ONLY, ends)


def _padded(prices: Prices, room: int) -> FloatArray:
    """(K, room + 1) prices of segments, inf beyond the largest island of a class."""
    table = np.full((len(prices.segment), room + 1), np.inf)
    for k, row in enumerate(prices.segment):
        table[k, : len(row)] = row
    return table
