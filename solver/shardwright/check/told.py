"""Speeds between islands that a cluster file tells (docs/cost-model.md, section 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property

from shardwright.check.exact import exact
from shardwright.schema.cluster import Cluster, NodeGroup
from shardwright.schema.plan import GpuRank
from shardwright.schema.topology import NodeTopology, Switch

_GB = 10**9
_PATHS = ("pcie_switch", "host_bridge", "numa_domain", "socket")


class Told:
    """Bytes/s between two GPUs of different islands."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._fabric = cluster.fabric
        self._groups = {n: g for g in cluster.nodes for n in g.node_names()}
        nodes = any(group.topology is not None for group in cluster.nodes)
        self.anything = nodes or cluster.fabric is not None

    def hop(
        self, first: Sequence[GpuRank], second: Sequence[GpuRank]
    ) -> Fraction | None:
        """The slowest pair of a hop: rank i of n with rank floor(i·m/n) of m <= n.

        None where nothing is told, or a GPU is not of the cluster.
        """
        few, many = sorted((first, second), key=len)
        known = all(
            gpu.node in self._groups and gpu.gpu < self._groups[gpu.node].gpus
            for gpu in (*few, *many)
        )
        if not self.anything or not known:
            return None
        pairs = ((few[i * len(few) // len(many)], gpu) for i, gpu in enumerate(many))
        return min(self.rate(a, b) for a, b in pairs if a != b)

    def rate(self, a: GpuRank, b: GpuRank) -> Fraction:
        """What the file says of two GPUs."""
        if a.node == b.node:
            return self._inside(self._groups[a.node], a.gpu, b.gpu)
        if self._racks.get(a.node, a.node) == self._racks.get(b.node, b.node):
            return self._rack_rate
        height = self._meeting(a.node, b.node)
        if height == 0 and self._has_rails and self._rail(a) != self._rail(b):
            height = 1
        ports = (self._port(self._groups[gpu.node]) for gpu in (a, b))
        return min(ports) / math.prod(self._oversubscribed[:height])

    # -- inside a node --

    def _inside(self, group: NodeGroup, a: int, b: int) -> Fraction:
        at, spec = group.topology, self._cluster.gpu_types[group.gpu]
        if at is None:
            return self._port(group)
        own = spec.calibration
        for link in at.links:
            if {a, b} == {*link.gpus}:
                speed = exact(link.gbyte_per_s or spec.link_gbyte_per_s)
                return speed * _GB * exact(own.link_efficiency)
        nearest = at.path(a, b)
        nearest_path = "socket" if nearest == "node" else nearest
        for path in _PATHS[_PATHS.index(nearest_path) :]:
            told: float | None = getattr(at.paths, f"{path}_gbyte_per_s")
            if told is not None:
                return exact(told) * _GB * exact(own.network_efficiency)
        return self._port(group)

    def _port(self, group: NodeGroup) -> Fraction:
        """One GPU's share of the NICs where all have a speed, else the type's."""
        spec = self._cluster.gpu_types[group.gpu]
        nics = group.topology.nics if group.topology is not None else ()
        speeds = [nic.gbyte_per_s for nic in nics]
        told = [exact(speed) for speed in speeds if speed is not None]
        share = exact(spec.network_gbyte_per_s)
        if told and len(told) == len(speeds):
            share = sum(told, Fraction(0)) / group.gpus
        return share * _GB * exact(spec.calibration.network_efficiency)

    # -- between nodes --

    def _nodes(self, names: Sequence[str]) -> Iterator[str]:
        groups = {group.name: group.node_names() for group in self._cluster.nodes}
        for name in names:
            yield from groups.get(name, [name])

    @cached_property
    def _racks(self) -> dict[str, tuple[str]]:
        """Racks of nodes that are one domain of links."""
        racks = self._fabric.racks if self._fabric is not None else ()
        linked = [rack for rack in racks if rack.link_technology is not None]
        return {n: (rack.name,) for rack in linked for n in self._nodes(rack.nodes)}

    @cached_property
    def _rack_rate(self) -> Fraction:
        """The slowest rack and GPU type of all."""
        racks = self._fabric.racks if self._fabric is not None else ()
        found = []
        for rack in (rack for rack in racks if rack.link_technology is not None):
            for name in self._nodes(rack.nodes):
                spec = self._cluster.gpu_types[self._groups[name].gpu]
                speed = exact(rack.link_gbyte_per_s or spec.link_gbyte_per_s)
                found.append(speed * _GB * exact(spec.calibration.link_efficiency))
        return min(found)

    @cached_property
    def _switches(self) -> dict[str, Switch]:
        found = self._fabric.switches if self._fabric is not None else ()
        return {switch.name: switch for switch in found}

    @cached_property
    def _has_rails(self) -> bool:
        return any(switch.rail is not None for switch in self._switches.values())

    @cached_property
    def _above(self) -> dict[str, str]:
        held = self._switches.values()
        return {below: s.name for s in held for below in s.switches or ()}

    @cached_property
    def _leaves(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for switch in self._switches.values():
            for node in self._nodes(switch.nodes or ()):
                found.setdefault(node, []).append(switch.name)
        return {node: sorted(leaves) for node, leaves in found.items()}

    def _meeting(self, first: str, second: str) -> int:
        """Switches to pass above the leaf; all heights where the two do not meet."""
        here, there = self._leaves.get(first), self._leaves.get(second)
        if here is not None and here == there:
            return 0
        top = len(self._oversubscribed)
        one, other = (leaves[0] if leaves else "" for leaves in (here, there))
        for height in range(1, top):
            one, other = self._above.get(one, ""), self._above.get(other, "")
            if one and one == other:
                return height
        joined = len(self._switches) - len(self._above)
        return top if joined > 1 and not self._has_rails else max(0, top - 1)

    @cached_property
    def _oversubscribed(self) -> list[Fraction]:
        """The worst switch of every height."""
        found: dict[int, Fraction] = {}
        for name, switch in self._switches.items():
            height = self._fabric.height(name) if self._fabric is not None else 0
            worst = max(found.get(height, Fraction(1)), self._ratio(switch))
            found[height] = worst
        return [found[height] for height in sorted(found)]

    def _ratio(self, switch: Switch) -> Fraction:
        if switch.oversubscription is not None:
            return exact(switch.oversubscription)
        if switch.uplink_gbyte_per_s is None:
            return Fraction(1)
        below = Fraction(0)
        for name in set(self._nodes(switch.nodes or ())):
            group = self._groups[name]
            ports = group.gpus if switch.rail is None else 1
            speed = self._cluster.gpu_types[group.gpu].network_gbyte_per_s
            below += ports * exact(speed)
        return max(Fraction(1), below / exact(switch.uplink_gbyte_per_s))

    def _rail(self, gpu: GpuRank) -> int | None:
        """The rail of the nearest group with NICs, which are dealt to its GPUs."""
        at = self._groups[gpu.node].topology
        return None if at is None else _rail(at, gpu.gpu)


def _rail(at: NodeTopology, gpu: int) -> int | None:
    for kind in ("pcie_switches", "host_bridges", "numa_domains"):
        field = {"pcie_switches": "pcie_switch"}.get(kind, kind.removesuffix("s"))
        for name, gpus in getattr(at, kind).items():
            nics = [nic for nic in at.nics if getattr(nic, field) == name]
            if nics and gpu in gpus:
                rail: int | None = nics[
                    sorted(gpus).index(gpu) * len(nics) // len(gpus)
                ].rail
                return rail
    return None
