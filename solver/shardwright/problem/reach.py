"""Hops between islands at what the topology has: levels, from the fastest on.

The fleet's program takes every hop between two islands for as fast as the fastest
between islands of their classes (level 1). Paths inside a node, switches above a
leaf, other rails may be slower (levels 2, 3, ...). A hop is as slow as its slowest
pair: rank i of the n ranks of the larger stage and rank floor(i m / n) of the m others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, pairwise, product
from typing import TypeVar

from shardwright.problem.topology import Gpu, Topology
from shardwright.problem.types import Island

T = TypeVar("T")
_ROUNDED = 2
"""Bytes/s: speeds of the topology are cut to whole ones."""


@dataclass(frozen=True)
class Reach:
    """``assumed``: bytes/s of the network between islands, by class and class."""

    topology: Topology
    islands: tuple[Island, ...]
    assumed: tuple[tuple[float, ...], ...]
    _best: dict[object, int] = field(default_factory=dict, repr=False)

    @cached_property
    def _top(self) -> float:
        return max(max(row) for row in self.assumed)

    @cached_property
    def _nodes(self) -> dict[str, int]:
        return {node.name: i for i, node in enumerate(self.topology.nodes)}

    def told(self, a: Gpu, b: Gpu) -> float:
        """Bytes/s between two GPUs, at most what the network assumes at most."""
        speed = self.topology.classes[self.topology.link(a, b)].bytes_per_s
        return self._top if speed + _ROUNDED > self._top else float(speed)

    @cached_property
    def speeds(self) -> tuple[float, ...]:
        """Bytes/s of level 1, 2, ...: all that two islands may have, falling."""
        found = {
            self.told(a, b) for i, j in self._samples() for a, b in self._pairs(i, j)
        }
        return tuple(sorted(found, reverse=True))

    @property
    def slower(self) -> int:
        """Levels behind the first."""
        return max(0, len(self.speeds) - 1)

    def fastest(self, first: int, second: int) -> float:
        """Bytes/s of the best pair of islands of two classes."""
        levels = [
            self.between(i, j)
            for i, j in self._samples()
            if {self.islands[i].gpu_class, self.islands[j].gpu_class} == {first, second}
        ]
        return self.speeds[min(levels) - 1] if levels else self._top

    def between(self, first: int, second: int) -> int:
        """The best level of any two GPUs of two islands."""
        key = self._pair_key(first, second)
        if key not in self._best:
            pairs = self._pairs(first, second)
            self._best[key] = min(self.level(a, b) for a, b in pairs)
        return self._best[key]

    def level(self, a: Gpu, b: Gpu) -> int:
        """Level of the link between two GPUs."""
        return self.speeds.index(self.told(a, b)) + 1

    def of_stages(self, stages: Sequence[Sequence[tuple[str, int]]]) -> tuple[int, ...]:
        """Levels of the hops of a replica whose stages have these GPUs, in rank order.

        Node names and indices; of a hop inside an island the level says nothing.
        """
        named = [[(self._nodes[node], gpu) for node, gpu in gpus] for gpus in stages]
        return tuple(
            max(self.level(x, y) if x != y else 1 for x, y in rank_pairs(a, b))
            for a, b in pairwise(named)
        )

    def _gpus(self, island: int) -> list[Gpu]:
        one = self.islands[island]
        return [(self._nodes[one.node], gpu) for gpu in one.gpus]

    def _pairs(self, first: int, second: int) -> Iterator[tuple[Gpu, Gpu]]:
        return product(self._gpus(first), self._gpus(second))

    def _pair_key(self, first: int, second: int) -> object:
        """Equal for pairs of islands with the same links."""
        a, b = (self.islands[i] for i in (first, second))
        here, there = self._nodes[a.node], self._nodes[b.node]
        shapes = tuple(self.topology.nodes[n].shape for n in (here, there))
        level = -1 if here == there else self.topology.level(here, there)
        return level, shapes, a.gpus, b.gpus

    def _samples(self) -> list[tuple[int, int]]:
        """A pair of islands of every kind of pair."""
        found: dict[object, tuple[int, int]] = {}
        for i, j in combinations(self._spokesmen, 2):
            classes = self.islands[i].gpu_class, self.islands[j].gpu_class
            found.setdefault((classes, self._pair_key(i, j)), (i, j))
        return list(found.values())

    @cached_property
    def _spokesmen(self) -> list[int]:
        """Of all islands that lie alike below the same switches, two nodes' worth."""
        kept: dict[object, list[str]] = {}
        found = []
        for i, island in enumerate(self.islands):
            node = self.topology.nodes[self._nodes[island.node]]
            key = (island.gpu_class, node.shape, node.switches, island.gpus)
            nodes = kept.setdefault(key, [])
            if island.node not in nodes and len(nodes) < 2:
                nodes.append(island.node)
            if island.node in nodes:
                found.append(i)
        return found


def rank_pairs(first: Sequence[T], second: Sequence[T]) -> list[tuple[T, T]]:
    """Who sends to whom in a hop: every rank of the larger stage has a partner."""
    few, many = sorted((first, second), key=len)
    return [(few[i * len(few) // len(many)], gpu) for i, gpu in enumerate(many)]
