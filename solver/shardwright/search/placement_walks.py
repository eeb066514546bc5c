"""Up to 64 GPUs of any mesh: a bound by walks, plans by beams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from shardwright.formulations.cpsat.placement_circuit import (
    GroupChoice,
    fits,
    solve_circuits,
)
from shardwright.formulations.dp.placement_walk import Walks, walk_fits
from shardwright.problem.traffic import ReplicaTraffic
from shardwright.search.base import SearchLimits
from shardwright.search.placement_order import rank_order
from shardwright.search.placement_types import Named, PlacementCase

_WIDTH = 48
_SEEDS = 12


@dataclass
class WalkSearch:
    """Replicas one after the other, each along its cheapest walk."""

    case: PlacementCase
    limits: SearchLimits

    @property
    def fits(self) -> bool:
        """Whether all groups of GPUs can be listed."""
        return walk_fits(len(self.case.topology.usable), self.case.traffic.replicas)

    @cached_property
    def walks(self) -> Walks:
        """Groups and values, made once."""
        return Walks(self.case.costs, self.case.topology.usable)

    def bound(self) -> int:
        """Every replica at least costs its cheapest walk."""
        bounds = [self.walks.bound(r) for r in self.case.traffic.replicas]
        return sum(bounds) if self.case.traffic.combine == "sum" else max(bounds)

    def plans(self) -> Iterator[Named]:
        """Assignments by beams with other ties each time."""
        for seed in range(_SEEDS):
            self.limits.poll()
            named = self._plan(self.limits.seed + seed)
            if named is not None:
                yield named

    def exact(self, value: int) -> tuple[int, Named | None]:
        """A bound by set partition and circuits, and a plan below ``value`` if any.

        Only for equal replicas of equal stages and hops; else (0, None).
        """
        replica, traffic = self.case.traffic.replicas[0], self.case.traffic
        alike = len({*traffic.replicas}) == 1 and traffic.combine == "sum"
        even = len({*replica.stages}) == 1 and len({*replica.hops_bytes}) <= 1
        if not alike or not even or traffic.coupled:
            return 0, None
        choice = self._choice(replica, len(traffic.replicas), value)
        if not fits(choice):
            return 0, None
        cutoff = -(-value // replica.weight)
        found = solve_circuits(choice, cutoff, self.limits)
        if found.infeasible:  # what was left out cannot be below value either
            return value, None
        bound = min(value, (found.bound or 0) * replica.weight)
        if not found.paths:
            return bound, None
        stage = replica.stages[0]
        sets = [[self.walks.gpus_of(stage, g) for g in path] for path in found.paths]
        named = tuple(rank_order(self.case.costs, replica, s) for s in sets)
        return bound, named

    def _choice(self, replica: ReplicaTraffic, count: int, value: int) -> GroupChoice:
        """Groups and pairs that a plan cheaper than ``value`` may use."""
        groups = self.walks.groups(replica.stages[0])
        slack = value // replica.weight - self.bound() // replica.weight
        hops = self.walks.pairs_within(replica, slack) if replica.hops_bytes else []
        return GroupChoice(
            groups.members.tolist(),
            groups.costs.tolist(),
            hops,
            count,
            len(replica.stages),
        )

    def _plan(self, seed: int) -> Named | None:
        used, named = 0, []
        for r, replica in enumerate(self.case.traffic.replicas):
            path = self.walks.path(replica, used, _WIDTH, seed * 1000 + r)
            if path is None:
                return None
            used |= self.walks.mask_of(replica, path)
            pairs = zip(replica.stages, path, strict=True)
            sets = [self.walks.gpus_of(stage, group) for stage, group in pairs]
            named.append(rank_order(self.case.costs, replica, sets))
        return tuple(named)
