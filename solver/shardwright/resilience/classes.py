"""Failures that are alike: same hardware lost, same roles lost.

A GPU is known by its type, by what its node carries, and by the stage that it serves;
a set of lost GPUs by theirs, node by node, and by which replicas it hits how often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb

from shardwright.resilience.survivors import GpuName
from shardwright.schema.errors import InstanceTooLarge
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan

MAX_FAILURES = 200_000


@dataclass(frozen=True)
class FailureClass:
    """Failures that a plan and a cluster cannot tell apart.

    ``lost`` is one of them, ``count`` how many there are; ``replicas`` are the indices
    of the replicas that ``lost`` stops.
    """

    kind: str
    size: int
    count: int
    units: tuple[str, ...]
    lost: tuple[GpuName, ...]
    replicas: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Map:
    """Where everything is."""

    instance: Instance
    plan: Plan

    @cached_property
    def gpus(self) -> dict[GpuName, str]:
        """Every GPU that may fail, with its type."""
        found = {}
        for group in self.instance.cluster.nodes:
            dead = {*group.failed, *group.reserved}
            for node in group.node_names():
                for gpu in range(group.gpus):
                    if gpu not in dead:
                        found[node, gpu] = group.gpu
        return found

    @cached_property
    def roles(self) -> dict[GpuName, tuple[int, int]]:
        """Replica and stage of every GPU with a rank."""
        return {
            (gpu.node, gpu.gpu): (r, s)
            for r, replica in enumerate(self.plan.replicas())
            for s, stage in enumerate(replica.stages)
            for gpu in stage.gpus
        }

    @cached_property
    def designs(self) -> list[int]:
        """Equal numbers for replicas that differ only in their GPUs."""
        seen: dict[Hashable, int] = {}
        found = []
        for replica in self.plan.replicas():
            stages = tuple(s.model_copy(update={"gpus": ()}) for s in replica.stages)
            key = (replica.operating_point, stages)
            found.append(seen.setdefault(key, len(seen)))
        return found

    def task(self, gpu: GpuName) -> tuple[int, int]:
        """Design and stage; (-1, -1) when idle."""
        if gpu not in self.roles:
            return -1, -1
        replica, stage = self.roles[gpu]
        return self.designs[replica], stage

    @cached_property
    def nodes(self) -> dict[str, list[GpuName]]:
        """GPUs of every node."""
        found: dict[str, list[GpuName]] = {}
        for gpu in self.gpus:
            found.setdefault(gpu[0], []).append(gpu)
        return found

    @cached_property
    def node_kind(self) -> dict[str, Hashable]:
        """What tells nodes apart: hardware, free GPUs by island, and their tasks."""
        cluster = self.instance.cluster
        found: dict[str, Hashable] = {}
        for group in cluster.nodes:
            islands = cluster.islands(group)
            for node in group.node_names():
                found[node] = (
                    group.gpu,
                    tuple(
                        tuple(
                            sorted(
                                self.task((node, g))
                                for g in island
                                if (node, g) in self.gpus
                            )
                        )
                        for island in islands
                    ),
                )
        return found

    def home(self, gpu: GpuName) -> int:
        """Island of a GPU within its node."""
        return self._homes[gpu]

    @cached_property
    def _homes(self) -> dict[GpuName, int]:
        cluster = self.instance.cluster
        return {
            (node, gpu): i
            for group in cluster.nodes
            for node in group.node_names()
            for i, island in enumerate(cluster.islands(group))
            for gpu in island
        }

    def likeness(self, lost: Sequence[GpuName]) -> Hashable:
        """Equal for failures that are alike."""
        by_node: dict[str, list[tuple[int, int, tuple[int, int]]]] = {}
        hits: dict[int, Counter[int]] = {}
        for gpu in lost:
            place = (len(self.nodes[gpu[0]]), self.home(gpu), self.task(gpu))
            by_node.setdefault(gpu[0], []).append(place)
            if gpu in self.roles:
                replica, stage = self.roles[gpu]
                hits.setdefault(replica, Counter())[stage] += 1
        hardware = sorted(
            (repr(self.node_kind[node]), sorted(places))
            for node, places in by_node.items()
        )
        struck = sorted(
            (self.designs[replica], sorted(stages.items()))
            for replica, stages in hits.items()
        )
        return repr((hardware, struck))

    def stopped(self, lost: Sequence[GpuName]) -> tuple[int, ...]:
        """Replicas with a rank on a lost GPU."""
        return tuple(sorted({self.roles[g][0] for g in lost if g in self.roles}))


def failure_classes(
    instance: Instance, plan: Plan, gpus: int = 1, nodes: int = 1
) -> list[FailureClass]:
    """Classes of losing ``gpus`` GPUs (any), then ``nodes`` nodes; 0 leaves a kind out.

    Raises InstanceTooLarge beyond ``MAX_FAILURES`` combinations.
    """
    place = _Map(instance, plan)
    found: list[FailureClass] = []
    if gpus:
        units = [(f"{node}:{gpu}", ((node, gpu),)) for node, gpu in place.gpus]
        found += _grouped(place, "gpu", gpus, units)
    if nodes:
        per_node = [(node, tuple(mine)) for node, mine in place.nodes.items()]
        found += _grouped(place, "node", nodes, per_node)
    return found


def _grouped(
    place: _Map,
    kind: str,
    size: int,
    units: Sequence[tuple[str, tuple[GpuName, ...]]],
) -> Iterator[FailureClass]:
    if comb(len(units), size) > MAX_FAILURES:
        raise InstanceTooLarge(
            f"{comb(len(units), size)} ways to lose {size} of {len(units)} {kind}s; at "
            f"most {MAX_FAILURES} are told apart"
        )
    first: dict[Hashable, tuple[tuple[str, ...], tuple[GpuName, ...]]] = {}
    counts: Counter[Hashable] = Counter()
    for chosen in combinations(units, size):
        lost = tuple(gpu for _, mine in chosen for gpu in mine)
        key = place.likeness(lost)
        first.setdefault(key, (tuple(name for name, _ in chosen), lost))
        counts[key] += 1
    for key, (names, lost) in first.items():
        yield FailureClass(kind, size, counts[key], names, lost, place.stopped(lost))
