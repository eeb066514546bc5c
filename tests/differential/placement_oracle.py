"""Placement by exhaustion: every assignment of GPUs, costs from the definitions.

Nothing here uses the package's cost functions: links come as a plain matrix of
(bytes/s, latency), rings and matchings are tried one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations

from shardwright.problem.topology import Topology
from shardwright.problem.traffic import (
    Collective,
    ReplicaTraffic,
    StageTraffic,
    Traffic,
)

Sets = tuple[tuple[tuple[int, ...], ...], ...]
"""Per replica, per stage, the GPUs (positions among the usable)."""


@dataclass(frozen=True)
class Oracle:
    """One case; GPUs are positions in ``topology.usable``."""

    topology: Topology
    traffic: Traffic

    def best(self) -> tuple[int, int, int] | None:
        """Least (cost, nodes, exposure); None when nothing fits."""
        found = [self.goals(sets) for sets in self._assignments()]
        return min(found) if found else None

    def goals(self, sets: Sets) -> tuple[int, int, int]:
        """The three goals of an assignment of sets."""
        traffic, usable = self.traffic, self.topology.usable
        each = [
            self._replica(replica, stages)
            for replica, stages in zip(traffic.replicas, sets, strict=True)
        ]
        cost = sum(each) if traffic.combine == "sum" else max(each)
        unions = [tuple(sorted(g for part in stages for g in part)) for stages in sets]
        for t in traffic.transfers:
            cost += self._hop(unions[t.source], unions[t.target], t.size_bytes)
        nodes = [{usable[g][0] for g in union} for union in unions]
        domains = [{self.topology.domain(n) for n in own} for own in nodes]
        held = [sum(d in own for own in domains) for d in set().union(*domains)]
        return cost, sum(map(len, nodes)), max(held)

    def _assignments(self) -> Iterator[Sets]:
        yield from self._fill(0, (), frozenset(range(len(self.topology.usable))))

    def _fill(self, r: int, done: Sets, free: frozenset[int]) -> Iterator[Sets]:
        if r == len(self.traffic.replicas):
            yield done
            return
        for stages, left in self._stages(self.traffic.replicas[r].stages, free):
            yield from self._fill(r + 1, (*done, stages), left)

    def _stages(
        self, stages: Sequence[StageTraffic], free: frozenset[int]
    ) -> Iterator[tuple[tuple[tuple[int, ...], ...], frozenset[int]]]:
        if not stages:
            yield (), free
            return
        first = stages[0]
        allowed = [g for g in sorted(free) if self._typed(first, g)]
        for chosen in combinations(allowed, first.gpus):
            for rest, left in self._stages(stages[1:], free - set(chosen)):
                yield (chosen, *rest), left

    def _typed(self, stage: StageTraffic, gpu: int) -> bool:
        node = self.topology.usable[gpu][0]
        return stage.gpu_type in (None, self.topology.shape_of(node).gpu_type)

    def _link(self, a: int, b: int) -> tuple[int, int]:
        usable = self.topology.usable
        link = self.topology.classes[self.topology.link(usable[a], usable[b])]
        return link.bytes_per_s, link.latency_ns

    def _send(self, a: int, b: int, size: int, parts: int) -> int:
        speed, latency = self._link(a, b)
        return -(-size * 10**9 // (parts * speed)) + latency

    def _replica(
        self, replica: ReplicaTraffic, stages: Sequence[tuple[int, ...]]
    ) -> int:
        cost = sum(
            _stage(self, s, gpus)
            for s, gpus in zip(replica.stages, stages, strict=True)
        )
        for a, b, size in zip(stages, stages[1:], replica.hops_bytes, strict=False):
            cost += self._hop(a, b, size)
        return cost * replica.weight

    def _hop(self, a: tuple[int, ...], b: tuple[int, ...], size: int) -> int:
        return 0 if not size else _hop(self, *sorted((a, b), key=len), size)

    def collective(self, one: Collective, gpus: tuple[int, ...]) -> int:
        """A collective over the GPUs, on the best of all rings."""
        ranks = len(gpus)
        if ranks == 1 or not one.size_bytes:
            return 0
        if one.kind == "all_to_all":
            return max(
                sum(
                    self._send(a, b, one.size_bytes, ranks)
                    + (one.calls - 1) * self._link(a, b)[1]
                    for b in gpus
                    if b != a
                )
                for a in gpus
            )
        steps = (2 if one.kind == "all_reduce" else 1) * (ranks - 1)

        def edge(a: int, b: int) -> int:
            speed, latency = self._link(a, b)
            sent = -(-steps * one.size_bytes * 10**9 // (ranks * speed))
            return sent + steps * one.calls * latency

        rings = ((gpus[0], *rest) for rest in permutations(gpus[1:]))
        return min(
            max(edge(a, b) for a, b in zip(ring, (*ring[1:], ring[0]), strict=True))
            for ring in rings
        )


@cache
def _hop(oracle: Oracle, few: tuple[int, ...], many: tuple[int, ...], size: int) -> int:
    """Best matching: every rank of the many has one of the few, evenly."""
    room = -(-len(many) // len(few))
    slots = [a for a in few for _ in range(room)]
    return min(
        max(
            oracle._send(a, b, size, len(few))
            for a, b in zip(chosen, many, strict=True)
        )
        for chosen in permutations(slots, len(many))
    )


@cache
def _stage(oracle: Oracle, stage: StageTraffic, gpus: tuple[int, ...]) -> int:
    """Best grouping of the ranks, all of them tried."""
    whole = sum(
        oracle.collective(c, gpus) for c in stage.collectives if c.ranks == stage.gpus
    )
    inner = [c for c in stage.collectives if c.ranks < stage.gpus]
    if not inner:
        return whole
    size = inner[0].ranks
    best = None
    for order in permutations(gpus):
        groups = [order[i : i + size] for i in range(0, len(order), size)]
        if any(list(g) != sorted(g) for g in groups) or groups != sorted(groups):
            continue
        cost = max(sum(oracle.collective(c, g) for c in inner) for g in groups)
        best = cost if best is None else min(best, cost)
    assert best is not None
    return whole + best
