"""A bound for any topology: each stage and each hop on the best links there are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from shardwright.problem.traffic import Collective, ReplicaTraffic, StageTraffic
from shardwright.search.placement_types import PlacementCase

_MOST_GPUS = 256


@dataclass(frozen=True)
class Floor:
    """Least cost of stages and hops, each as if it had the cluster for itself."""

    case: PlacementCase

    def bound(self) -> int:
        """Bound on the link cost; transfers and peers are not counted."""
        kinds = {r: self._replica(r) for r in {*self.case.traffic.replicas}}
        costs = [kinds[replica] for replica in self.case.traffic.replicas]
        return sum(costs) if self.case.traffic.combine == "sum" else max(costs)

    def _replica(self, replica: ReplicaTraffic) -> int:
        cost = sum(self.stage(stage) for stage in replica.stages)
        pairs = zip(
            replica.stages, replica.stages[1:], replica.hops_bytes, strict=False
        )
        for before, after, size in pairs:
            ranks = min(before.gpus, after.gpus)
            if size:
                links = self.case.topology.classes
                cost += min(link.time_ns(size, ranks) for link in links)
        return cost * replica.weight

    def stage(self, stage: StageTraffic) -> int:
        """Least time of a stage's collectives, ns."""
        spanning = (*stage.whole(), *stage.in_groups())
        cost = sum(self._collective(one) for one in spanning)
        links = self.case.topology.classes
        for one in stage.strided():
            peers = one.ranks - 1 if one.kind == "all_to_all" else 1
            cost += peers * min(self.case.costs.on_one_class(one, x) for x in links)
        return cost

    def _collective(self, one: Collective) -> int:
        """Best links with enough neighbours: two for a ring, all peers otherwise."""
        times = [
            self.case.costs.on_one_class(one, x) for x in self.case.topology.classes
        ]
        needed = {"all_to_all": one.ranks - 1}.get(one.kind, min(2, one.ranks - 1))
        rows = self._links
        if rows is None:
            return min(times) * (needed if one.kind == "all_to_all" else 1)
        found = []
        for row in rows:
            near = sorted(times[c] for c in row)[:needed]
            if len(near) == needed:
                found.append(sum(near) if one.kind == "all_to_all" else near[-1])
        return min(found, default=0)

    @cached_property
    def _links(self) -> list[list[int]] | None:
        """Link classes of every usable GPU to the others; None for too many."""
        usable, link = self.case.topology.usable, self.case.topology.link
        if len(usable) > _MOST_GPUS:
            return None
        return [[link(a, b) for b in usable if b != a] for a in usable]
