"""Time of collectives and hops on concrete GPUs, in ns rounded up.

A ring takes (ranks - 1) steps of message/ranks over its slowest link (all-reduce:
twice that), on the best ring of the group, which is what the collective libraries
look for. A hop and a transfer send from rank to rank over the best matching; the
slowest pair counts. All-to-all: a rank sends to every other in turn; the slowest rank
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from shardwright.problem.bottleneck import best_matching, best_ring
from shardwright.problem.topology import Gpu, LinkClass, Topology
from shardwright.problem.traffic import (
    Collective,
    Peers,
    ReplicaTraffic,
    StageTraffic,
    Traffic,
)

_STRIDED = 10
_GROUPED = 12

Groups = tuple[tuple[Gpu, ...], ...]


def exact_on_meshes(stage: StageTraffic) -> bool:
    """Whether the least time of a stage is exact whatever the links are.

    Where it is not, it may be too high, and is no part of a bound.
    """
    return stage.gpus <= (_STRIDED if stage.strided() else _GROUPED)


@dataclass(frozen=True)
class LinkCosts:
    """Costs on one topology, remembered up to renaming of equal nodes."""

    topology: Topology
    _known: dict[Hashable, int] = field(default_factory=dict, repr=False)

    def collective(self, one: Collective, gpus: Sequence[Gpu]) -> int:
        """Time of a collective over these GPUs, all its calls."""
        if len(gpus) == 1 or one.size_bytes == 0:
            return 0
        return self._remembered(one, (gpus,), lambda: self._collective(one, gpus))

    def hop(self, source: Sequence[Gpu], target: Sequence[Gpu], size_bytes: int) -> int:
        """Time of ``size_bytes`` from one stage to the next, best rank matching."""
        if size_bytes == 0:
            return 0
        key = ("hop", size_bytes)
        return self._remembered(
            key, (source, target), lambda: self._hop(source, target, size_bytes)
        )

    def stage(self, stage: StageTraffic, gpus: Sequence[Gpu]) -> int:
        """Least time of the stage's collectives on a set of GPUs."""
        return self._remembered(stage, (gpus,), lambda: self.grouped(stage, gpus)[0])

    def grouped(self, stage: StageTraffic, gpus: Sequence[Gpu]) -> tuple[int, Groups]:
        """The least time and the groups of ranks that have it, in rank order.

        Exact up to 12 GPUs (10 with strided collectives); beyond, groups are cut in
        the order of the GPUs, and the time is that of these groups.
        """
        ordered = tuple(sorted(gpus))
        whole = sum(self.collective(c, ordered) for c in stage.whole())
        if stage.inner == stage.gpus:
            return whole, (ordered,)
        best = min(
            self._partitions(stage, ordered),
            key=lambda groups: self._in_groups(stage, groups),
        )
        return whole + self._in_groups(stage, best), best

    def _partitions(
        self, stage: StageTraffic, gpus: tuple[Gpu, ...]
    ) -> Iterator[Groups]:
        size = stage.inner
        if len(gpus) <= (_STRIDED if stage.strided() else _GROUPED):
            yield from partitions(gpus, size)
        else:
            yield tuple(gpus[i : i + size] for i in range(0, len(gpus), size))

    def _in_groups(self, stage: StageTraffic, groups: Groups) -> int:
        inner = stage.in_groups()
        slowest = max(sum(self.collective(c, g) for c in inner) for g in groups)
        return slowest + sum(self._across(c, groups) for c in stage.strided())

    def _across(self, one: Collective, groups: Groups) -> int:
        """A strided collective, rank matchings chosen group by group."""
        lines = range(len(groups))

        def step(link: LinkClass) -> int:
            return _steps(one, link, len(groups))

        between = [
            [
                0 if i == j else best_matching(self._matrix(groups[i], groups[j], step))
                for j in lines
            ]
            for i in lines
        ]
        if one.kind == "all_to_all":
            return max(sum(row) for row in between)
        return best_ring(between)

    def _collective(self, one: Collective, gpus: Sequence[Gpu]) -> int:
        matrix = self._matrix(gpus, gpus, lambda link: _steps(one, link, len(gpus)))
        if one.kind == "all_to_all":
            return max(sum(row) for row in matrix)
        return best_ring(matrix)

    def _hop(self, source: Sequence[Gpu], target: Sequence[Gpu], size: int) -> int:
        few, many = sorted((source, target), key=len)
        matrix = self._matrix(few, many, lambda link: link.time_ns(size, len(few)))
        return best_matching(matrix)

    def _matrix(
        self,
        rows: Sequence[Gpu],
        columns: Sequence[Gpu],
        time_ns: Callable[[LinkClass], int],
    ) -> list[list[int]]:
        times = [*(time_ns(link) for link in self.topology.classes), 0]
        link = self.topology.link
        return [[times[-1 if a == b else link(a, b)] for b in columns] for a in rows]

    def _remembered(
        self, what: Hashable, sets: Sequence[Sequence[Gpu]], make: Callable[[], int]
    ) -> int:
        key = (what, self.form(sets))
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def form(self, sets: Sequence[Sequence[Gpu]]) -> Hashable:
        """The sets up to renaming of nodes: shapes, GPU indices, common switches."""
        nodes = list(dict.fromkeys(sorted(gpu[0] for gpus in sets for gpu in gpus)))
        topology = self.topology
        shapes = tuple(topology.nodes[n].shape for n in nodes)
        levels = tuple(topology.level(a, b) for a, b in combinations(nodes, 2))
        number = {n: i for i, n in enumerate(nodes)}
        indices = tuple(tuple(sorted((number[n], g) for n, g in gpus)) for gpus in sets)
        return shapes, levels, indices

    def on_one_class(self, one: Collective, link: LinkClass) -> int:
        """A ring with ``link`` as its slowest; for all_to_all, one peer over it."""
        return _steps(one, link, one.ranks) if one.size_bytes else 0

    # -- figures of a finished assignment, in its order of ranks --

    def ordered_stage(self, stage: StageTraffic, gpus: Sequence[Gpu]) -> int:
        """Time of the stage's collectives with the ranks in this order."""
        cost = sum(self.collective(c, gpus) for c in stage.whole())
        inner = [gpus[i : i + stage.inner] for i in range(0, len(gpus), stage.inner)]
        cost += max(
            sum(self.collective(c, g) for c in stage.in_groups()) for g in inner
        )
        for one in stage.strided():
            lines = [gpus[i :: one.stride] for i in range(one.stride)]
            cost += max(self.collective(one, line) for line in lines)
        return cost

    def ordered_hop(
        self, source: Sequence[Gpu], target: Sequence[Gpu], size_bytes: int
    ) -> int:
        """Time of a hop with the ranks in this order."""
        if size_bytes == 0:
            return 0
        few, many = sorted((source, target), key=len)
        ends = ((few[i * len(few) // len(many)], gpu) for i, gpu in enumerate(many))
        links = {self.topology.link(a, b) for a, b in ends}
        classes = self.topology.classes
        return max(classes[c].time_ns(size_bytes, len(few)) for c in links)

    def replica(self, replica: ReplicaTraffic, gpus: Sequence[Gpu]) -> int:
        """Weighted cost of a replica with the ranks in this order."""
        parts = [gpus[cut] for cut in replica.slices()]
        stages = zip(replica.stages, parts, strict=True)
        cost = sum(self.ordered_stage(stage, part) for stage, part in stages)
        hops = zip(parts, parts[1:], replica.hops_bytes, strict=False)
        cost += sum(self.ordered_hop(a, b, size) for a, b, size in hops)
        return cost * replica.weight

    def peers(self, peers: Peers, named: Sequence[Sequence[Gpu]]) -> int:
        """Slowest ring over the same rank of several replicas."""
        one = Collective("all_reduce", len(peers.replicas), peers.size_bytes)
        lines = zip(*(named[i] for i in peers.replicas), strict=True)
        return max(self.collective(one, line) for line in lines)

    def total(self, traffic: Traffic, named: Sequence[Sequence[Gpu]]) -> int:
        """Cost of an assignment: replicas combined, transfers and peers added."""
        pairs = zip(traffic.replicas, named, strict=True)
        costs = [self.replica(replica, gpus) for replica, gpus in pairs]
        cost = sum(costs) if traffic.combine == "sum" else max(costs)
        return cost + self.coupling(traffic, named)

    def peers_of_sets(self, peers: Peers, stages: Sequence[Sequence[Gpu]]) -> int:
        """Peers on one stage of every replica, rank matchings chosen pair by pair."""
        one = Collective("all_reduce", len(stages), peers.size_bytes)
        return self._across(one, tuple(tuple(gpus) for gpus in stages))

    def coupling(self, traffic: Traffic, named: Sequence[Sequence[Gpu]]) -> int:
        """What replicas send one another."""
        transfers = (
            self.hop(named[t.source], named[t.target], t.size_bytes)
            for t in traffic.transfers
        )
        return sum(transfers) + sum(self.peers(p, named) for p in traffic.peers)


def _steps(one: Collective, link: LinkClass, ranks: int) -> int:
    """What one link of the slowest class costs a collective (all_to_all: one peer)."""
    if one.kind == "all_to_all":
        return link.time_ns(one.size_bytes, ranks) + (one.calls - 1) * link.latency_ns
    steps = (2 if one.kind == "all_reduce" else 1) * (ranks - 1)
    latency = steps * one.calls * link.latency_ns
    return link.time_ns(steps * one.size_bytes, ranks) - link.latency_ns + latency


def partitions(gpus: tuple[Gpu, ...], size: int) -> Iterator[Groups]:
    """Every way to cut a set into groups of ``size``."""
    if not gpus:
        yield ()
        return
    first, rest = gpus[0], gpus[1:]
    for others in combinations(rest, size - 1):
        left = tuple(g for g in rest if g not in others)
        for groups in partitions(left, size):
            yield ((first, *others), *groups)
