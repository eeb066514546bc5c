"""Arrangements of equal cost inside the nodes, chosen so that hops between them fit.

A segment on given GPUs can be laid in many ways at the same cost; which one does not
matter inside the node, but its first and last stage meet other nodes, over rails. A
shortest path over the arrangements of a replica's segments settles all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations

from shardwright.formulations.dp.placement import GpuSet, Paths
from shardwright.problem.topology import Gpu
from shardwright.problem.traffic import ReplicaTraffic
from shardwright.search.placement_types import PlacementCase

Stages = tuple[tuple[Gpu, ...], ...]
_PERMUTED = 4
_MESH_GPUS = 8
_MOST = 64


@dataclass
class Aligner:
    """Remembers the arrangements of a segment by node shape and GPUs."""

    case: PlacementCase
    _known: dict[object, list[tuple[tuple[int, ...], ...]]] = field(
        default_factory=dict
    )

    def aligned(
        self, replica: ReplicaTraffic, stages: Stages, runs: Sequence[tuple[int, int]]
    ) -> Stages:
        """The stages with every run [start, end) rearranged for the least hops."""
        if len(runs) < 2:
            return stages
        costs = self.case.costs
        ahead: list[tuple[int, Stages]] = [(0, ())]
        for start, end in runs:
            kind = _segment(replica, start, end)
            size = replica.hops_bytes[start - 1] if start else 0
            grown: dict[tuple[Gpu, ...], tuple[int, Stages]] = {}
            for option in self._options(kind, stages[start:end]):
                cost, path = min(
                    (
                        (
                            paid
                            + (costs.hop(path[-1], option[0], size) if start else 0),
                            path,
                        )
                        for paid, path in ahead
                    ),
                    key=lambda item: item[0],
                )
                key = option[-1]
                if key not in grown or cost < grown[key][0]:
                    grown[key] = cost, path + option
            ahead = [*grown.values()]
        return min(ahead, key=lambda item: item[0])[1]

    def _options(self, kind: ReplicaTraffic, stages: Stages) -> list[Stages]:
        """Arrangements at no higher cost, the present one first."""
        nodes = {gpu[0] for gpus in stages for gpu in gpus}
        if len(nodes) > 1:
            return [stages]
        node = nodes.pop()
        topology = self.case.topology
        local = tuple(tuple(g for _, g in gpus) for gpus in stages)
        key = topology.nodes[node].shape, kind, local
        if key not in self._known:
            uniform = topology.shape_of(node).uniform
            found = (
                _of_blocks(kind, local) if uniform else self._of_mesh(node, kind, local)
            )
            self._known[key] = [*dict.fromkeys([local, *found])][:_MOST]
        return [
            tuple(tuple((node, g) for g in gpus) for gpus in option)
            for option in self._known[key]
        ]

    def _of_mesh(
        self, node: int, kind: ReplicaTraffic, local: Sequence[tuple[int, ...]]
    ) -> Iterator[tuple[tuple[int, ...], ...]]:
        """All ways on the same GPUs that cost as little as the cheapest."""
        gpus = sorted(g for part in local for g in part)
        if len(gpus) > _MESH_GPUS:
            return
        paths = Paths(GpuSet(self.case.costs, tuple((node, g) for g in gpus)), kind)
        whole = (1 << len(gpus)) - 1
        least = paths.costs[whole]
        for cost, path in paths.all_paths(whole):
            if cost == least:
                yield tuple(
                    tuple(g for i, g in enumerate(gpus) if mask >> i & 1)
                    for mask in path
                )


def _of_blocks(
    kind: ReplicaTraffic, local: Sequence[tuple[int, ...]]
) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Where all GPUs are alike: equal stages in any order."""
    if len(set(kind.stages)) > 1:
        return
    if len(local) <= _PERMUTED:
        yield from permutations(local)
        return
    for i in range(len(local)):
        turned = (*local[i:], *local[:i])
        yield turned
        yield turned[::-1]


def _segment(replica: ReplicaTraffic, start: int, end: int) -> ReplicaTraffic:
    hops = replica.hops_bytes[start : end - 1]
    return ReplicaTraffic(replica.stages[start:end], hops, replica.weight)
