"""The cluster as a plan sees it: its GPUs, their types and their islands."""

from __future__ import annotations

from collections.abc import Sequence

from shardwright.schema.cluster import Cluster, NodeGroup
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.plan import GpuRank

Island = tuple[str, int]


class Inventory:
    """Look-ups by node name and GPU index."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._groups: dict[str, NodeGroup] = {}
        for group in cluster.nodes:
            for name in group.node_names():
                self._add(name, group)

    def _add(self, name: str, group: NodeGroup) -> None:
        if name in self._groups:
            error = FieldError("cluster.nodes", f"two nodes {name!r}", "names differ")
            raise InvalidInstance("cluster", [error])
        self._groups[name] = group

    def exists(self, gpu: GpuRank) -> bool:
        """True when the cluster has the node and the node has the GPU."""
        group = self._groups.get(gpu.node)
        return group is not None and gpu.gpu < group.gpus

    def withheld(self, gpu: GpuRank) -> str:
        """'reserved' or 'failed' where the GPU must not be used, else ''."""
        group = self._groups.get(gpu.node)
        if group is None:
            return ""
        if gpu.gpu in group.failed:
            return "failed"
        return "reserved" if gpu.gpu in group.reserved else ""

    def type_of(self, gpu: GpuRank) -> str | None:
        """The type of the GPU's node, None for an unknown node."""
        group = self._groups.get(gpu.node)
        return group.gpu if group is not None else None

    def islands(self, *groups: Sequence[GpuRank]) -> list[Island]:
        """The islands that these GPUs lie on; unknown GPUs lie on none."""
        found = (self._island_of(gpu.node, gpu.gpu) for gpus in groups for gpu in gpus)
        return list(dict.fromkeys(island for island in found if island is not None))

    def _island_of(self, node: str, gpu: int) -> Island | None:
        group = self._groups.get(node)
        if group is None or gpu >= group.gpus:
            return None
        if group.islands is not None:
            holds = [gpu in island for island in group.islands]
            return node, holds.index(True)
        return node, gpu // self._cluster.island_size(group)

    def usable(self, island: Island) -> set[int]:
        """Indices of the island's GPUs that are neither reserved nor failed."""
        node, index = island
        group = self._groups[node]
        if group.islands is not None:
            whole = {*group.islands[index]}
        else:
            size = self._cluster.island_size(group)
            whole = {*range(index * size, min(index * size + size, group.gpus))}
        return whole - {*group.reserved, *group.failed}

    def usable_islands(self) -> int:
        """Islands with a GPU that is neither reserved nor failed."""
        count = 0
        for group in self._cluster.nodes:
            node = group.node_names()[0]
            held = {self._island_of(node, gpu) for gpu in range(group.gpus)}
            used = [at for at in held if at is not None and self.usable(at)]
            count += group.count * len(used)
        return count

    def gpu_types(self) -> list[str]:
        """The types that nodes have, in their order."""
        return list(dict.fromkeys(group.gpu for group in self._cluster.nodes))

    def available_gpus(self) -> int:
        """GPUs that are neither reserved nor failed."""
        return sum(
            group.count * (group.gpus - len({*group.reserved, *group.failed}))
            for group in self._cluster.nodes
        )

    def timed_type(self, stage_type: str, gpus: Sequence[GpuRank]) -> str:
        """The type whose figures a stage is computed with.

        The stage's own where the instance lists it. Otherwise ``gpu_type`` is broken
        already, and the first type at hand keeps the other rules readable.
        """
        known = self._cluster.gpu_types
        found = [self.type_of(gpu) for gpu in gpus]
        names = [stage_type, *(name for name in found if name is not None), *known]
        return next(name for name in names if name in known)
