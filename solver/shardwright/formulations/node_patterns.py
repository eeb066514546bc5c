"""What a node can hold: segments of replicas, and the cheapest way to lay them.

A segment is a run of consecutive stages that lie on one node. A pattern is a multiset
of segments on one node; its cost is the least over all ways to give them disjoint
GPUs, by a dynamic program over the node's GPUs. Equal nodes share their patterns, so
that a program over them counts nodes and never names one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from shardwright.formulations.dp.placement import GpuSet, Paths, path_work
from shardwright.problem.linkcost import LinkCosts
from shardwright.problem.topology import Gpu, Topology
from shardwright.problem.traffic import ReplicaTraffic
from shardwright.schema.errors import InstanceTooLarge

_MESH_GPUS = 10
_UNIFORM_GPUS = 16
_MOST_PATTERNS = 2_000
_MOST_WORK = 400_000

NodeKind = tuple[int, tuple[int, ...]]
"""Shape and usable GPUs (how many, where all are alike) of equal nodes."""


def node_kind(topology: Topology, node: int) -> NodeKind:
    """The kind of a node."""
    shape, usable = topology.shape_of(node), topology.nodes[node].usable
    counted = (len(usable),) if shape.uniform else usable
    return topology.nodes[node].shape, counted


Layout = tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]
"""Per segment: its kind, and the GPUs of each of its stages, as places among the
usable GPUs of the node."""


@dataclass(frozen=True)
class Pattern:
    """Segments on one node: (kind, how many), least cost, GPUs left over."""

    parts: tuple[tuple[int, int], ...]
    cost: int
    loose: int

    @property
    def segments(self) -> int:
        """How many segments the node holds."""
        return sum(count for _, count in self.parts)


@dataclass
class NodeTable:
    """Patterns of one kind of node, found on the node ``example``.

    ``bulk``: all GPUs alike and too many for patterns; then any segments fit whose
    GPUs do, at a fixed cost each (``alone``).
    """

    costs: LinkCosts
    example: int
    kinds: Sequence[ReplicaTraffic]
    _best: dict[tuple[int, ...], dict[int, tuple[int, int]]] = field(
        default_factory=dict
    )

    @cached_property
    def usable(self) -> tuple[Gpu, ...]:
        """Usable GPUs of the node."""
        node = self.costs.topology.nodes[self.example]
        return tuple((self.example, g) for g in node.usable)

    @cached_property
    def uniform(self) -> bool:
        """Whether all GPUs of the node are alike."""
        return self.costs.topology.shape_of(self.example).uniform

    @property
    def bulk(self) -> bool:
        """Whether segments are counted by their GPUs alone."""
        return self.uniform and len(self.usable) > _UNIFORM_GPUS

    @cached_property
    def paths(self) -> tuple[Paths | None, ...]:
        """Per kind of segment; None where the node cannot hold it."""
        if not self.uniform and len(self.usable) > _MESH_GPUS:
            raise InstanceTooLarge(f"a mesh of {len(self.usable)} GPUs in one node")
        return tuple(self._paths(kind) for kind in self.kinds)

    def _paths(self, kind: ReplicaTraffic) -> Paths | None:
        shape = self.costs.topology.shape_of(self.example)
        typed = all(s.gpu_type in (None, shape.gpu_type) for s in kind.stages)
        if not typed or kind.gpus > len(self.usable):
            return None
        if not self.uniform and path_work(len(self.usable), kind) > _MOST_WORK:
            raise InstanceTooLarge(f"{len(kind.stages)} stages in a mesh of one node")
        gpus = self.usable[: kind.gpus] if self.uniform else self.usable
        return Paths(GpuSet(self.costs, gpus), kind)

    def alone(self, kind: int) -> int | None:
        """Least cost of a segment that has the node for itself."""
        paths = self.paths[kind]
        if paths is None:
            return None
        if self.uniform:
            return self._in_a_row(kind)[0]
        return min(paths.costs.values(), default=None)

    def _in_a_row(self, kind: int) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """Cost and stages of a segment on the first GPUs of a uniform node."""
        replica = self.kinds[kind]
        stages = [self.usable[cut] for cut in replica.slices()]
        cost = sum(map(self.costs.stage, replica.stages, stages))
        cost += sum(map(self.costs.hop, stages, stages[1:], replica.hops_bytes))
        rows = tuple(tuple(range(c.start, c.stop)) for c in replica.slices())
        return cost * replica.weight, rows

    @cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        """Every multiset of segments that fits, the empty one first."""
        self._best = {(): {0: (0, 0)}}
        found: list[tuple[int, ...]] = [()]
        for parts in found:  # grows while it is read
            for kind in range(parts[-1] if parts else 0, len(self.kinds)):
                if self._grow(parts, kind):
                    found.append((*parts, kind))
            if len(found) > _MOST_PATTERNS:
                raise InstanceTooLarge(f"over {_MOST_PATTERNS} patterns of a node")
        return tuple(self._pattern(parts) for parts in found)

    def _pattern(self, parts: tuple[int, ...]) -> Pattern:
        used = sum(self.kinds[k].gpus for k in parts)
        cost = min(cost for cost, _ in self._best[parts].values())
        counts = tuple(sorted(Counter(parts).items()))
        return Pattern(counts, cost, len(self.usable) - used)

    def _grow(self, parts: tuple[int, ...], kind: int) -> bool:
        """Add a segment; whether it fits."""
        new: dict[int, tuple[int, int]] = {}
        segments = self._segments(kind)
        for used, (cost, _) in self._best[parts].items():
            for mask, own in segments(used):
                if mask & used:
                    continue
                both = used | mask
                if both not in new or cost + own < new[both][0]:
                    new[both] = cost + own, mask
        if new:
            self._best[*parts, kind] = new
        return bool(new)

    def _segments(self, kind: int) -> Callable[[int], Sequence[tuple[int, int]]]:
        """Masks that a segment may take beside what is used, with their costs."""
        paths = self.paths[kind]
        if paths is None:
            return lambda used: ()
        if not self.uniform:
            items = tuple(paths.costs.items())
            return lambda used: items
        size, cost = self.kinds[kind].gpus, self._in_a_row(kind)[0]
        room = len(self.usable)

        def next_run(used: int) -> tuple[tuple[int, int], ...]:
            start = used.bit_length()
            run = ((1 << size) - 1) << start
            return ((run, cost),) if start + size <= room else ()

        return next_run

    def layout(self, pattern: Pattern) -> Layout:
        """Places of every segment of a pattern, at the pattern's cost."""
        parts = tuple(k for k, count in pattern.parts for _ in range(count))
        best = self._best[parts]
        used = min(best, key=lambda mask: best[mask][0])
        found = []
        while parts:
            _, mask = self._best[parts][used]
            found.append((parts[-1], self.stages(parts[-1], mask)))
            parts, used = parts[:-1], used & ~mask
        return tuple(found[::-1])

    def stages(self, kind: int, mask: int) -> tuple[tuple[int, ...], ...]:
        """Places of every stage of a segment among the usable GPUs of the node."""
        paths = self.paths[kind]
        assert paths is not None
        if self.uniform:
            first = (mask & -mask).bit_length() - 1
            rows = self._in_a_row(kind)[1]
            return tuple(tuple(first + i for i in row) for row in rows)
        bits = range(len(self.usable))
        masks = paths.path(mask)
        return tuple(tuple(i for i in bits if stage >> i & 1) for stage in masks)
