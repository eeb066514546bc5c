"""Exact placement on few GPUs: dynamic programs over sets of GPUs.

Within a replica: stages in order, state = (GPUs used, GPUs of the last stage).
Between replicas: state = GPUs used. Since ranks may be renamed along a pipeline,
costs depend on sets alone; renaming is done afterwards and evaluated again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from math import comb

from shardwright.problem.linkcost import LinkCosts
from shardwright.problem.topology import Gpu
from shardwright.problem.traffic import ReplicaTraffic, StageTraffic

Path = tuple[int, ...]
"""Mask of GPUs of every stage."""


@dataclass(frozen=True)
class GpuSet:
    """A few GPUs as bits of a mask, with the costs of their subsets remembered."""

    costs: LinkCosts
    gpus: tuple[Gpu, ...]
    _hops: dict[tuple[int, int, int], int] = field(default_factory=dict, repr=False)
    _stages: dict[tuple[StageTraffic, int], int] = field(
        default_factory=dict, repr=False
    )

    def of(self, mask: int) -> tuple[Gpu, ...]:
        """GPUs of a mask."""
        return tuple(g for i, g in enumerate(self.gpus) if mask >> i & 1)

    def allowed(self, stage: StageTraffic) -> list[int]:
        """Bits of the GPUs that a stage may use."""
        shape_of = self.costs.topology.shape_of
        return [
            i
            for i, (node, _) in enumerate(self.gpus)
            if stage.gpu_type in (None, shape_of(node).gpu_type)
        ]

    def subsets(self, stage: StageTraffic, used: int = 0) -> Iterator[int]:
        """Masks of GPUs for a stage that are not used."""
        free = [i for i in self.allowed(stage) if not used >> i & 1]
        for chosen in combinations(free, stage.gpus):
            yield sum(1 << i for i in chosen)

    def stage(self, stage: StageTraffic, mask: int) -> int:
        """Cost of a stage on a mask."""
        key = stage, mask
        if key not in self._stages:
            self._stages[key] = self.costs.stage(stage, self.of(mask))
        return self._stages[key]

    def hop(self, a: int, b: int, size_bytes: int) -> int:
        """Cost of a hop between two masks."""
        key = a, b, size_bytes
        if key not in self._hops:
            self._hops[key] = self.costs.hop(self.of(a), self.of(b), size_bytes)
        return self._hops[key]

    def nodes(self, mask: int) -> int:
        """Nodes that a mask touches."""
        return len({node for node, _ in self.of(mask)})


def path_work(gpus: int, replica: ReplicaTraffic) -> int:
    """Steps that ``Paths`` takes for a replica, for free choice of GPUs."""
    used = replica.stages[0].gpus
    work = sum(comb(gpus, s.gpus) << s.gpus for s in {*replica.stages})
    work += comb(gpus, used)
    for before, stage in zip(replica.stages, replica.stages[1:], strict=False):
        states = comb(gpus, used) * comb(used, before.gpus)
        work += states * comb(max(gpus - used, 0), stage.gpus)
        used += stage.gpus
    return work


@dataclass(frozen=True)
class Paths:
    """Cheapest stages of one replica for every set of GPUs that it may use."""

    gpus: GpuSet
    replica: ReplicaTraffic

    @cached_property
    def _layers(self) -> list[dict[tuple[int, int], tuple[int, int]]]:
        """Per stage: (used, last) to (cost, the last but one)."""
        first, *rest = self.replica.stages
        gpus = self.gpus
        layer = {(m, m): (gpus.stage(first, m), 0) for m in gpus.subsets(first)}
        found = [layer]
        for stage, size in zip(rest, self.replica.hops_bytes, strict=True):
            layer = self._next(layer, stage, size)
            found.append(layer)
        return found

    def _next(
        self,
        layer: dict[tuple[int, int], tuple[int, int]],
        stage: StageTraffic,
        size_bytes: int,
    ) -> dict[tuple[int, int], tuple[int, int]]:
        grown: dict[tuple[int, int], tuple[int, int]] = {}
        all_masks = [(m, self.gpus.stage(stage, m)) for m in self.gpus.subsets(stage)]
        hop = self.gpus.hop
        for (used, last), (cost, _) in layer.items():
            for mask, own in all_masks:
                if mask & used:
                    continue
                total = cost + own + hop(last, mask, size_bytes)
                key = used | mask, mask
                if key not in grown or total < grown[key][0]:
                    grown[key] = total, last
        return grown

    @cached_property
    def costs(self) -> dict[int, int]:
        """Weighted least cost by the exact set of GPUs."""
        best: dict[int, int] = {}
        for (used, _), (cost, _) in self._layers[-1].items():
            best[used] = min(best.get(used, cost), cost)
        return {used: cost * self.replica.weight for used, cost in best.items()}

    def path(self, used: int) -> Path:
        """Stages of the cheapest path on exactly this set."""
        layers = self._layers
        ends = [last for (mask, last) in layers[-1] if mask == used]
        last = min(ends, key=lambda end: layers[-1][used, end][0])
        path = [last]
        for layer in layers[:0:-1]:
            before = layer[used, path[-1]][1]
            used &= ~path[-1]
            path.append(before)
        return tuple(path[::-1])

    def all_paths(self, used: int) -> Iterator[tuple[int, Path]]:
        """Every way to lay the stages on exactly this set, with its cost."""
        yield from self._extend(used, ())

    def _extend(self, left: int, path: Path) -> Iterator[tuple[int, Path]]:
        stages = self.replica.stages
        if len(path) == len(stages):
            if not left:
                yield self._cost(path) * self.replica.weight, path
            return
        for mask in self.gpus.subsets(stages[len(path)], ~left):
            yield from self._extend(left & ~mask, (*path, mask))

    def _cost(self, path: Path) -> int:
        gpus, replica = self.gpus, self.replica
        cost = sum(map(gpus.stage, replica.stages, path))
        return cost + sum(map(gpus.hop, path, path[1:], replica.hops_bytes))


Choice = tuple[int, ...]
"""Mask of GPUs of every replica."""


@dataclass(frozen=True)
class Combination:
    """Replicas on disjoint sets: least (cost, nodes), then all ways to attain it."""

    paths: Sequence[Paths]
    combine_max: bool
    nodes_of: dict[int, int] = field(default_factory=dict, repr=False)

    def nodes(self, mask: int) -> int:
        """Nodes of a mask, remembered."""
        if mask not in self.nodes_of:
            self.nodes_of[mask] = self.paths[0].gpus.nodes(mask)
        return self.nodes_of[mask]

    def best(self) -> tuple[int, int] | None:
        """Least cost and, with it, least sum of nodes; None if nothing fits."""
        if not self.combine_max:
            return self._least(None).get(0)
        worst = self._least_max()
        if worst is None:
            return None
        found = self._least(worst)[0]
        return worst, found[1]

    def _options(self, r: int, cap: int | None) -> list[tuple[int, tuple[int, int]]]:
        costs = self.paths[r].costs.items()
        if cap is None:
            return [(mask, (cost, self.nodes(mask))) for mask, cost in costs]
        return [(mask, (0, self.nodes(mask))) for mask, cost in costs if cost <= cap]

    def _least(self, cap: int | None) -> dict[int, tuple[int, int]]:
        """Least (cost, nodes) of the replicas still to place, by the GPUs used."""
        return self._to_go(cap)[0]

    def _to_go(self, cap: int | None) -> list[dict[int, tuple[int, int]]]:
        """Per replica r: GPUs used before it, to the least sum from r on."""
        reached: list[set[int]] = [{0}]
        options = [self._options(r, cap) for r in range(len(self.paths))]
        for choices in options:
            new = {used | m for used in reached[-1] for m, _ in choices if not used & m}
            reached.append(new)
        to_go: list[dict[int, tuple[int, int]]] = [{} for _ in reached]
        to_go[-1] = dict.fromkeys(reached[-1], (0, 0))
        for r in reversed(range(len(options))):
            after = to_go[r + 1]
            for used in reached[r]:
                found = [
                    (cost[0] + rest[0], cost[1] + rest[1])
                    for mask, cost in options[r]
                    if not used & mask and (rest := after.get(used | mask)) is not None
                ]
                if found:
                    to_go[r][used] = min(found)
        return to_go

    def _least_max(self) -> int | None:
        caps = sorted({cost for path in self.paths for cost in path.costs.values()})
        low, high = 0, len(caps)
        while low < high:
            middle = (low + high) // 2
            if 0 in self._least(caps[middle]):
                high = middle
            else:
                low = middle + 1
        return caps[low] if low < len(caps) else None

    def choices(self, value: tuple[int, int]) -> Iterator[Choice]:
        """Every choice of masks that attains ``value``."""
        cap = value[0] if self.combine_max else None
        start = (0, value[1]) if self.combine_max else value
        yield from self._walk(self._to_go(cap), cap, 0, 0, start, ())

    def _walk(
        self,
        to_go: list[dict[int, tuple[int, int]]],
        cap: int | None,
        r: int,
        used: int,
        left: tuple[int, int],
        chosen: Choice,
    ) -> Iterator[Choice]:
        if r == len(self.paths):
            yield chosen
            return
        twin = r > 0 and self.paths[r].replica == self.paths[r - 1].replica
        for mask, cost in self._options(r, cap):
            rest = to_go[r + 1].get(used | mask)
            if mask & used or rest is None or (twin and mask < chosen[-1]):
                continue
            if (cost[0] + rest[0], cost[1] + rest[1]) == left:
                yield from self._walk(
                    to_go, cap, r + 1, used | mask, rest, (*chosen, mask)
                )
