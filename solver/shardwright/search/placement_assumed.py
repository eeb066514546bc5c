"""Which assumptions of the search a placement does not keep, for its cuts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from shardwright.problem.topology import Gpu
from shardwright.problem.traffic import ReplicaTraffic, Traffic
from shardwright.search.placement_floor import Floor
from shardwright.search.placement_types import PlacementCase, Unrealisable


def unrealisable(
    case: PlacementCase, traffic: Traffic, named: Sequence[Sequence[Gpu]]
) -> tuple[Unrealisable, ...]:
    """Stages and hops that take longer than was assumed, with what they take."""
    pairs = enumerate(zip(traffic.replicas, named, strict=False))
    return tuple(u for i, (r, gpus) in pairs for u in _replica(case, i, r, gpus))


def refuted(traffic: Traffic, bound: int) -> bool:
    """Whether the bound shows that no placement keeps all assumptions together."""
    if traffic.coupled or traffic.combine != "sum":
        return False
    total = 0
    for replica in traffic.replicas:
        limits = (*replica.stage_limit_ns, *replica.hop_limit_ns)
        told = [limit for limit in limits if limit is not None]
        if len(told) != 2 * len(replica.stages) - 1:
            return False
        total += replica.weight * sum(told)
    return bound > total


def _replica(
    case: PlacementCase, index: int, replica: ReplicaTraffic, gpus: Sequence[Gpu]
) -> Iterator[Unrealisable]:
    parts = [gpus[cut] for cut in replica.slices()]
    fastest = case.topology.classes
    for i, limit in enumerate(replica.stage_limit_ns):
        found = case.costs.ordered_stage(replica.stages[i], parts[i])
        if limit is not None and found > limit:
            least = Floor(case).stage(replica.stages[i])
            yield Unrealisable(index, f"stage {i}", limit, found, least > limit)
    for i, (limit, (a, b)) in enumerate(
        zip(replica.hop_limit_ns, pairwise(parts), strict=False)
    ):
        size = replica.hops_bytes[i]
        found = case.costs.ordered_hop(a, b, size)
        if limit is not None and found > limit:
            ranks = min(len(a), len(b))
            least = min(link.time_ns(size, ranks) for link in fastest)
            yield Unrealisable(index, f"hop {i}", limit, found, least > limit)
