"""Index sets of the programs over the whole problem: arcs, hops, slots, ceilings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from math import comb
from typing import NamedTuple

from shardwright.formulations.ranges import StageTables
from shardwright.problem import (
    Design,
    IntArray,
    PlacedReplica,
    Problem,
    StageChoice,
    Unit,
)
from shardwright.schema.errors import InstanceTooLarge

MAX_BOOLEANS = 200_000
MAX_HOMES = 2_000


class Arc(NamedTuple):
    """A stage on named hardware: layers [start, end) by a unit on an island.

    ``island`` is an index into ``Shape.homes``: an island, or several that a stage
    spreads over.
    """

    start: int
    end: int
    unit: int
    island: int

    def covers(self, layer: int) -> bool:
        """Whether the stage holds the layer."""
        return self.start <= layer < self.end


class Hop(NamedTuple):
    """The step over a boundary from an island to an island (may be the same)."""

    boundary: int
    sender: int
    receiver: int

    @property
    def crosses(self) -> bool:
        """Whether it leaves the island."""
        return self.sender != self.receiver


@dataclass(frozen=True)
class Shape:
    """Index sets of one slot; they are the same for every slot."""

    problem: Problem
    tables: StageTables

    @cached_property
    def arcs(self) -> tuple[Arc, ...]:
        """Arcs that keep the rules of a stage at one point at least."""
        return tuple(
            Arc(i, j, u, v)
            for i in range(self.problem.layers)
            for j in range(i + 1, self.problem.layers + 1)
            for u, unit in enumerate(self.problem.units)
            if self._allowed_somewhere(u, i, j)
            for v in self._homes_of(unit)
        )

    @cached_property
    def homes(self) -> tuple[tuple[int, ...], ...]:
        """Every island alone, in order; then those that a unit spreads over."""
        islands = range(len(self.problem.islands))
        sizes = sorted({1, *(u.islands for u in self.problem.units)})
        choices = sum(comb(len(islands), spread) for spread in sizes)
        if choices > MAX_HOMES:
            raise InstanceTooLarge(
                f"{choices} choices of islands for a stage; at most {MAX_HOMES} are "
                f"written out"
            )
        return tuple(home for n in sizes for home in combinations(islands, n))

    def _homes_of(self, unit: Unit) -> list[int]:
        """Homes that hold a unit."""
        size, islands = unit.shape.gpus_per_island, self.problem.islands
        room = [i.gpu_class == unit.gpu_class and i.free >= size for i in islands]
        return [
            h
            for h, home in enumerate(self.homes)
            if len(home) == unit.islands and all(room[v] for v in home)
        ]

    def used_on(self, arc: Arc, island: int) -> int:
        """GPUs of a stage on an island."""
        if island not in self.homes[arc.island]:
            return 0
        return self.problem.units[arc.unit].shape.gpus_per_island

    def _allowed_somewhere(self, unit: int, start: int, end: int) -> bool:
        points = range(len(self.problem.points))
        return any(self.tables.allowed(o, unit, start, end) for o in points)

    @cached_property
    def hops(self) -> tuple[Hop, ...]:
        """Hops between islands of arcs that meet at a boundary."""
        found = []
        for boundary in range(1, self.problem.layers):
            senders = sorted({a.island for a in self.arcs if a.end == boundary})
            receivers = sorted({a.island for a in self.arcs if a.start == boundary})
            found += [Hop(boundary, v, w) for v in senders for w in receivers]
        return tuple(found)

    @property
    def slots(self) -> int:
        """Most replicas that the GPUs allow, or the number that is fixed."""
        smallest = min((u.gpus for u in self.problem.units), default=0)
        if not smallest or not self.arcs:
            return 0
        most = max(self.problem.usable_gpus, 0) // smallest
        fixed = self.problem.bounds.replicas
        return most if fixed is None else min(most, fixed)

    @cached_property
    def tpot_ceiling_ns(self) -> int:
        """No design of the shape has a larger TPOT: L stages, L - 1 hops, return."""
        t, layers = self.problem.tables, self.problem.layers
        longest = max(
            max(q.micro_batches, layers) * self.tables.decode[o][a.unit][a.start][a.end]
            for o, q in enumerate(self.problem.points)
            for a in self.arcs
        )
        hop = max(int(t.hop_inter.max()), int(t.hop_intra.max()))
        return longest + layers * hop + t.return_ns

    @cached_property
    def prefill_ceiling_ns(self) -> int:
        """No design of the shape has a larger prefill latency."""
        t, layers = self.problem.tables, self.problem.layers
        longest = max(
            (layers + q.chunk_count) * self.tables.prefill[o][a.unit][a.start][a.end]
            for o, q in enumerate(self.problem.points)
            for a in self.arcs
        )
        hop = max(int(t.prefill_hop_inter.max()), int(t.prefill_hop_intra.max()))
        return longest + layers * hop

    def rate_ceiling(self) -> int:
        """No design has a larger rate: all layers and the head on the best units."""
        return max(
            point.sequences * 10**12 // self.tpot_floor_ns(o)
            for o, point in enumerate(self.problem.points)
        )

    def tpot_floor_ns(self, point: int) -> int:
        """No design has a smaller TPOT at the point."""
        t = self.problem.tables
        fastest = t.decode_layer[point].min(axis=0)
        layers = sum(int(fastest[kind]) for kind in self.problem.layer_kinds)
        return max(1, layers + int(t.decode_role[point].min()))

    def check_size(self) -> int:
        """Number of Booleans; refuses what could not be built in good time."""
        each = len(self.arcs) + len(self.hops) + len(self.problem.points) + 1
        if self.slots * each > MAX_BOOLEANS:
            raise InstanceTooLarge(
                f"the direct program would have {self.slots * each} Booleans; "
                f"it is for at most {MAX_BOOLEANS}"
            )
        return self.slots * each

    def hop_time(self, hop: Hop, point: int, intra: IntArray, inter: IntArray) -> int:
        """Time of a hop: of the class on one island, of both classes between two."""
        ends = (self.homes[h][0] for h in hop[1:])
        a, b = (self.problem.islands[v].gpu_class for v in ends)
        return int(inter[point, a, b] if hop.crosses else intra[point, a])


@dataclass(frozen=True)
class Needs:
    """Which figures the limits and goals of a problem read."""

    tpot: bool
    rate: bool
    prefill: bool

    @classmethod
    def of(cls, problem: Problem) -> Needs:
        """Leave out what nothing reads."""
        b, goals = problem.bounds, problem.goals
        late = (b.prefill_ns, b.ttft_ns, b.e2e_ns)
        prefill = "ttft" in goals or any(limit is not None for limit in late)
        rate = "throughput" in goals or b.rate_mtok_per_s is not None
        tpot = "tpot" in goals or b.tpot_ns is not None
        return cls(tpot or rate or prefill, rate, prefill)


def place(shape: Shape, point: int, path: list[Arc]) -> PlacedReplica:
    """A design and its islands from the arcs of a path."""
    crossings = tuple(a.island != b.island for a, b in pairwise(path))
    first_of_segment = [True, *crossings]
    islands = (
        shape.homes[arc.island]
        for arc, first in zip(path, first_of_segment, strict=True)
        if first
    )
    stages = tuple(StageChoice(a.unit, a.start, a.end) for a in path)
    return PlacedReplica(Design(point, stages, crossings), tuple(islands))
