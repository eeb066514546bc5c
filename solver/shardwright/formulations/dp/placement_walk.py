"""Walks over groups of GPUs: a bound for a replica, and the cost still to go.

A replica is a path over disjoint groups of GPUs. Only asking that neighbours are
disjoint gives a walk, whose cheapest is a bound and needs no naming: V_s[g] = cost of
stage s on g + min over groups h disjoint from g of (hop + V_{s+1}[h]). Beams follow
the same values and keep the groups disjoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from math import comb

import numpy as np
from numpy.typing import NDArray

from shardwright.problem.linkcost import LinkCosts, exact_on_meshes
from shardwright.problem.topology import Gpu
from shardwright.problem.traffic import ReplicaTraffic, StageTraffic

IntArray = NDArray[np.int64]
MaskArray = NDArray[np.uint64]

_MOST_GROUPS = 2_100
_MOST_GPUS = 64
_PERMUTED = 4
FAR = np.int64(2**60)


def walk_fits(gpus: int, replicas: Sequence[ReplicaTraffic]) -> bool:
    """Whether all groups of the stages can be listed."""
    sizes = {stage.gpus for r in replicas for stage in r.stages}
    hops = any(len(r.stages) > 1 for r in replicas)
    return (
        gpus <= _MOST_GPUS
        and all(exact_on_meshes(stage) for r in replicas for stage in r.stages)
        and all(comb(gpus, size) <= _MOST_GROUPS for size in sizes)
        and (not hops or max(sizes) <= _PERMUTED)
        and (len(sizes) == 1 or not hops)
    )


@dataclass(frozen=True)
class Groups:
    """All groups for one kind of stage: GPUs, masks and costs, by group."""

    members: IntArray
    masks: MaskArray
    costs: IntArray


@dataclass
class Walks:
    """Groups and hops on the usable GPUs, made once per kind of stage."""

    costs: LinkCosts
    gpus: tuple[Gpu, ...]
    _groups: dict[StageTraffic, Groups] = field(default_factory=dict)
    _hops: dict[tuple[StageTraffic, StageTraffic, int], IntArray] = field(
        default_factory=dict
    )
    _values: dict[ReplicaTraffic, list[IntArray]] = field(default_factory=dict)

    def groups(self, stage: StageTraffic) -> Groups:
        """Groups that a stage may use."""
        if stage not in self._groups:
            shape_of = self.costs.topology.shape_of
            allowed = [
                i
                for i, (node, _) in enumerate(self.gpus)
                if stage.gpu_type in (None, shape_of(node).gpu_type)
            ]
            chosen = [*combinations(allowed, stage.gpus)]
            costs = [
                self.costs.stage(stage, [self.gpus[i] for i in group])
                for group in chosen
            ]
            members = np.array(chosen, np.int64).reshape(len(chosen), stage.gpus)
            masks = (np.uint64(1) << members.astype(np.uint64)).sum(
                axis=1, dtype=np.uint64
            )
            self._groups[stage] = Groups(members, masks, np.array(costs, np.int64))
        return self._groups[stage]

    def hops(
        self, before: StageTraffic, after: StageTraffic, size_bytes: int
    ) -> IntArray:
        """Cost of a hop between every two groups; FAR where they share a GPU."""
        key = before, after, size_bytes
        if key not in self._hops:
            first, second = self.groups(before), self.groups(after)
            found = self._best_matching(first, second, size_bytes)
            found[(first.masks[:, None] & second.masks[None, :]) != 0] = FAR
            self._hops[key] = found
        return self._hops[key]

    def _best_matching(self, first: Groups, second: Groups, size: int) -> IntArray:
        ranks = first.members.shape[1]
        shape = len(first.masks), len(second.masks)
        if size == 0:
            return np.zeros(shape, np.int64)
        times = self._times(size, ranks)
        best = np.full(shape, FAR)
        for order in permutations(range(ranks)):
            slowest = np.zeros(shape, np.int64)
            for i, j in enumerate(order):
                a, b = first.members[:, i], second.members[:, j]
                np.maximum(slowest, times[np.ix_(a, b)], out=slowest)
            np.minimum(best, slowest, out=best)
        return best

    def _times(self, size: int, ranks: int) -> IntArray:
        topology = self.costs.topology
        times = [link.time_ns(size, ranks) for link in topology.classes]
        return np.array(
            [
                [0 if a == b else times[topology.link(a, b)] for b in self.gpus]
                for a in self.gpus
            ],
            np.int64,
        )

    def values(self, replica: ReplicaTraffic) -> list[IntArray]:
        """Per stage, the cheapest walk from every group on, unweighted."""
        if replica not in self._values:
            found = [self.groups(replica.stages[-1]).costs]
            for i in range(len(replica.stages) - 2, -1, -1):
                ahead = self.step(replica, i) + found[0][None, :]
                own = self.groups(replica.stages[i]).costs
                found.insert(0, np.minimum(own + ahead.min(axis=1, initial=FAR), FAR))
            self._values[replica] = found
        return self._values[replica]

    def step(self, replica: ReplicaTraffic, i: int) -> IntArray:
        """Hops from the groups of stage i to those of the next."""
        before, after = replica.stages[i : i + 2]
        return self.hops(before, after, replica.hops_bytes[i])

    def bound(self, replica: ReplicaTraffic) -> int:
        """Least cost of the replica alone, weighted."""
        return int(self.values(replica)[0].min()) * replica.weight

    def pairs_within(
        self, replica: ReplicaTraffic, slack: int
    ) -> list[tuple[int, int, int]]:
        """Hops (from, to, cost) whose cheapest walk is at most ``slack`` too dear.

        For equal stages and hops: the cheapest walk of all steps before and after.
        """
        step, own = self.step(replica, 0), self.groups(replica.stages[0]).costs
        to_go = self.values(replica)
        least, stages = int(to_go[0].min()), len(replica.stages)
        before = own.copy()  # cheapest walk of s + 1 groups that ends here
        wanted = np.full(step.shape, FAR)
        for s in range(stages - 1):
            through = before[:, None] + step + to_go[s + 1][None, :]
            np.minimum(wanted, through, out=wanted)
            before = np.minimum((before[:, None] + step).min(axis=0) + own, FAR)
        near = np.argwhere((wanted <= least + slack) & (step < FAR))
        return [(int(a), int(b), int(step[a, b])) for a, b in near]

    def path(
        self, replica: ReplicaTraffic, used: int, width: int, seed: int
    ) -> list[int] | None:
        """Groups of a replica that avoid ``used``: a beam of ``width`` best partials.

        Ties are broken by ``seed``. None when the beam dies out.
        """
        noise = np.random.default_rng(seed)
        values = self.values(replica)
        groups = self.groups(replica.stages[0])
        free = (groups.masks & np.uint64(used)) == 0
        start = np.where(free, values[0], FAR)
        order = _lowest(start, noise, width)
        beam = [
            (np.uint64(used) | groups.masks[g], [int(g)], int(groups.costs[g]))
            for g in order
        ]
        for i in range(1, len(replica.stages)):
            beam = self._extend(replica, i, beam, width, noise)
            if not beam:
                return None
        return min(beam, key=lambda one: one[2])[1] if beam else None

    def _extend(
        self,
        replica: ReplicaTraffic,
        i: int,
        beam: list[tuple[np.uint64, list[int], int]],
        width: int,
        noise: np.random.Generator,
    ) -> list[tuple[np.uint64, list[int], int]]:
        groups, values = self.groups(replica.stages[i]), self.values(replica)[i]
        step = self.step(replica, i - 1)
        used = np.array([one[0] for one in beam], np.uint64)
        paid = np.array([one[2] for one in beam], np.int64)
        last = [one[1][-1] for one in beam]
        hops = step[last]
        taken = (used[:, None] & groups.masks[None, :]) != 0
        total = np.where(taken | (hops >= FAR), FAR, paid[:, None] + hops + values)
        found: list[tuple[np.uint64, list[int], int]] = []
        seen: set[tuple[int, int]] = set()
        for flat in _lowest(total.ravel(), noise, 4 * width):
            b, g = divmod(int(flat), len(groups.masks))
            mask = used[b] | groups.masks[g]
            if (int(mask), g) in seen or len(found) == width:
                continue
            seen.add((int(mask), g))
            cost = int(paid[b] + hops[b, g] + groups.costs[g])
            found.append((mask, [*beam[b][1], g], cost))
        return found

    def gpus_of(self, stage: StageTraffic, group: int) -> tuple[Gpu, ...]:
        """GPUs of a group."""
        return tuple(self.gpus[i] for i in self.groups(stage).members[group])

    def mask_of(self, replica: ReplicaTraffic, path: Sequence[int]) -> int:
        """GPUs of a path as a mask."""
        mask = 0
        for stage, group in zip(replica.stages, path, strict=True):
            mask |= int(self.groups(stage).masks[group])
        return mask


def _lowest(values: IntArray, noise: np.random.Generator, count: int) -> IntArray:
    """Indices of the lowest values below FAR, ties in random order."""
    shuffled = noise.permutation(len(values))
    picked = values[shuffled]
    if len(picked) > count:
        near = np.argpartition(picked, count - 1)[:count]
    else:
        near = np.arange(len(picked))
    near = near[np.argsort(picked[near], kind="stable")]
    found = shuffled[near]
    return found[values[found] < FAR]
