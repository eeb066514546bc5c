"""The topology of a cluster document: what two GPUs reach one another with.

Inside a node: a named link, else the island's links, else the nearest PCIe or NUMA
group that holds both (docs/placement.md section 2 has the fall-backs). Between nodes:
the NVLink domain of a rack, else the lowest common switch, its oversubscription
counted. Speeds are sustained ones: nominal times the calibration's efficiency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from shardwright.problem.topology import (
    LinkClass,
    NetworkLevel,
    Node,
    NodeShape,
    Topology,
)
from shardwright.schema.cluster import Cluster, NodeGroup
from shardwright.schema.topology import Nic, NodeTopology, Switch

_WIDER = ("pcie_switch", "host_bridge", "numa_domain", "socket")
_UNKNOWN = -1


def has_topology(cluster: Cluster) -> bool:
    """Whether the document says more than which GPUs form an island."""
    groups = cluster.nodes
    return cluster.fabric is not None or any(g.topology is not None for g in groups)


def topology_of(cluster: Cluster) -> Topology:
    """Nodes in file order; reserved and failed GPUs are not usable."""
    return _Reader(cluster).topology()


@dataclass
class _Reader:
    cluster: Cluster
    classes: list[LinkClass] = field(default_factory=list)

    def topology(self) -> Topology:
        network = self._network()
        shapes: dict[NodeShape, int] = {}
        nodes = []
        for group in self.cluster.nodes:
            index = shapes.setdefault(self._shape(group), len(shapes))
            nodes += [self._node(group, index, name) for name in group.node_names()]
        return Topology(tuple(self.classes), tuple(shapes), tuple(nodes), network)

    def _class(self, name: str, gbyte_per_s: float, latency_us: float) -> int:
        found = LinkClass(name, int(gbyte_per_s * 1e9), round(latency_us * 1000))
        if found not in self.classes:
            self.classes.append(found)
        return self.classes.index(found)

    # -- inside a node --

    def _shape(self, group: NodeGroup) -> NodeShape:
        gpus = range(group.gpus)
        rows = tuple(
            tuple(_UNKNOWN if a == b else self._inside(group, a, b) for b in gpus)
            for a in gpus
        )
        at = group.topology
        nics = [_nearest_nic(at, gpu) if at else None for gpu in gpus]
        return NodeShape(
            group.gpu,
            rows,
            tuple(_rail(nic) for nic in nics),
            tuple(_numa(at, gpu) for gpu in gpus),
            tuple(nic.name if nic else "" for nic in nics),
            self._ports.index(self._port(group)),
        )

    def _inside(self, group: NodeGroup, a: int, b: int) -> int:
        spec, at = self.cluster.gpu_types[group.gpu], group.topology
        own, latency = spec.calibration, spec.calibration.hop_latency_us
        for link in at.links if at else ():
            if {*link.gpus} == {a, b}:
                speed = link.gbyte_per_s or spec.link_gbyte_per_s
                name = f"{link.links or ''} {link.technology}".strip()
                return self._class(name, speed * own.link_efficiency, latency)
        if self._all_to_all(group, a, b):
            speed = spec.link_gbyte_per_s * own.link_efficiency
            return self._class(spec.link_technology, speed, latency)
        kind = at.path(a, b) if at else "node"
        name = "socket" if kind == "node" else kind
        path = self._path(group, name)
        if path is not None:
            # a link's share is fitted to all-reduces; PCIe sustains what networks do
            return self._class(name, path * own.network_efficiency, latency)
        speed, latency = self._port(group)
        return self._class(f"{name} (as network)", speed, latency)

    def _all_to_all(self, group: NodeGroup, a: int, b: int) -> bool:
        """One island, and none of its links named one by one."""
        linked = (
            {g for link in group.topology.links for g in link.gpus}
            if (group.topology)
            else set()
        )
        for island in self.cluster.islands(group):
            if a in island and b in island:
                return not linked & {*island}
        return False

    def _path(self, group: NodeGroup, kind: str) -> float | None:
        """Speed of a path: as told, else of the next wider one told."""
        if group.topology is None:
            return None
        paths = group.topology.paths
        for wider in _WIDER[_WIDER.index(kind) :]:
            speed: float | None = getattr(paths, f"{wider}_gbyte_per_s")
            if speed is not None:
                return speed
        return None

    # -- between nodes --

    def _port(self, group: NodeGroup) -> tuple[float, float]:
        """Sustained GB/s that one GPU sends to other nodes, and the start-up in us."""
        spec = self.cluster.gpu_types[group.gpu]
        speed = spec.network_gbyte_per_s
        nics = group.topology.nics if group.topology is not None else ()
        known = [nic.gbyte_per_s for nic in nics if nic.gbyte_per_s is not None]
        if nics and len(known) == len(nics):
            speed = sum(known) / group.gpus
        own = spec.calibration
        return speed * own.network_efficiency, own.network_latency_us

    @cached_property
    def _ports(self) -> list[tuple[float, float]]:
        """Distinct ports, the fastest first."""
        found = {self._port(group) for group in self.cluster.nodes}
        return sorted(found, key=lambda port: (-port[0], port[1]))

    def _network(self) -> tuple[NetworkLevel, ...]:
        levels = [self._level(h) for h in range(max(self._height, 1) + self._rooted)]
        if self._domains:
            levels.insert(0, self._rack_level())
        return tuple(levels)

    def _level(self, height: int) -> NetworkLevel:
        """Links of nodes that meet at a switch of this height."""
        same = self._shrink(height)
        cross = self._shrink(1) if height == 0 and self._by_rail else same
        words = "leaf" if height == 0 else f"switches, {height} up"
        return NetworkLevel(
            tuple(self._class(words, p[0] / same, p[1]) for p in self._ports),
            tuple(
                self._class(
                    f"{words}{', other rail' if cross != same else ''}",
                    p[0] / cross,
                    p[1],
                )
                for p in self._ports
            ),
        )

    def _rack_level(self) -> NetworkLevel:
        """An NVLink domain over nodes: its slowest rack and GPU type."""
        found = []
        for spec, group in (
            (self.cluster.gpu_types[g.gpu], g) for g in self.cluster.nodes
        ):
            names = {*group.node_names()}
            racks = [r for n, r in self._domains.items() if n in names]
            for speed in racks:
                own = spec.calibration
                sent = (speed or spec.link_gbyte_per_s) * own.link_efficiency
                found.append((sent, own.hop_latency_us))
        speed, latency = min(found)
        own_class = self._class("rack links", speed, latency)
        return NetworkLevel(
            (own_class,) * len(self._ports), (own_class,) * len(self._ports)
        )

    def _shrink(self, height: int) -> float:
        """Oversubscription on the way up to this height; the worst switch counts."""
        found = 1.0
        for h in range(min(height, len(self._worst))):
            found *= self._worst[h]
        return found

    @cached_property
    def _switches(self) -> Mapping[str, Switch]:
        fabric = self.cluster.fabric
        return {s.name: s for s in fabric.switches} if fabric else {}

    @cached_property
    def _heights(self) -> dict[str, int]:
        found: dict[str, int] = {}

        def height(name: str) -> int:
            if name not in found:
                below = self._switches[name].switches or ()
                found[name] = 1 + max((height(s) for s in below), default=-1)
            return found[name]

        for name in self._switches:
            height(name)
        return found

    @property
    def _height(self) -> int:
        return 1 + max(self._heights.values(), default=-1)

    @cached_property
    def _rooted(self) -> bool:
        """Whether a level above all switches is needed to join several trees."""
        held = {s for x in self._switches.values() for s in x.switches or ()}
        return len(self._switches) - len(held) > 1 and not self._by_rail

    @cached_property
    def _by_rail(self) -> bool:
        return any(s.rail is not None for s in self._switches.values())

    @cached_property
    def _worst(self) -> list[float]:
        """Largest oversubscription of the switches of every height."""
        found = [1.0] * self._height
        for switch in self._switches.values():
            h = self._heights[switch.name]
            found[h] = max(found[h], self._oversubscription(switch))
        return found

    def _oversubscription(self, switch: Switch) -> float:
        if switch.oversubscription is not None:
            return switch.oversubscription
        if switch.uplink_gbyte_per_s is None:
            return 1.0
        names = {*self._expanded(switch.nodes or ())}
        below = 0.0
        for group in self.cluster.nodes:
            spec = self.cluster.gpu_types[group.gpu]
            rails = group.gpus if switch.rail is None else 1
            count = sum(name in names for name in group.node_names())
            below += count * rails * spec.network_gbyte_per_s
        return max(1.0, below / switch.uplink_gbyte_per_s)

    # -- places of nodes --

    def _expanded(self, names: Sequence[str]) -> list[str]:
        groups = self._groups
        return [node for name in names for node in groups.get(name, [name])]

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        return {group.name: group.node_names() for group in self.cluster.nodes}

    @cached_property
    def _leaves(self) -> dict[str, list[str]]:
        """Leaf switches of every node: one, or one per rail."""
        found: dict[str, list[str]] = {}
        for switch in self._switches.values():
            for node in self._expanded(switch.nodes or ()):
                found.setdefault(node, []).append(switch.name)
        return found

    @cached_property
    def _parents(self) -> dict[str, str]:
        return {s: x.name for x in self._switches.values() for s in x.switches or ()}

    @cached_property
    def _racks(self) -> dict[str, str]:
        fabric = self.cluster.fabric
        racks = fabric.racks if fabric else ()
        return {node: r.name for r in racks for node in self._expanded(r.nodes)}

    @cached_property
    def _domains(self) -> dict[str, float | None]:
        """Nodes of NVLink racks, with what each GPU sends into them, GB/s."""
        fabric = self.cluster.fabric
        return {
            node: rack.link_gbyte_per_s
            for rack in (fabric.racks if fabric else ())
            if rack.link_technology is not None
            for node in self._expanded(rack.nodes)
        }

    @cached_property
    def _numbers(self) -> dict[object, int]:
        return {}

    def _number(self, name: object) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def _node(self, group: NodeGroup, shape: int, name: str) -> Node:
        taken = {*group.reserved, *group.failed}
        usable = tuple(g for g in range(group.gpus) if g not in taken)
        uuids = (group.gpu_uuids or {}).get(name, ())
        return Node(name, shape, usable, self._above(name), self._domain(name), uuids)

    def _above(self, name: str) -> tuple[int, ...]:
        """Switches above a node, one per level; a number of its own where none is."""
        chain: list[object] = []
        if self._domains:
            held = name in self._domains
            chain.append(("rack", self._racks[name]) if held else ("alone", name))
        leaves = sorted(self._leaves.get(name, []))
        at: object = ("leaf", *leaves) if leaves else ("no leaf", name)
        step = leaves[0] if leaves else None
        if self._switches:
            chain.append(at)
        for height in range(1, self._height):
            step = self._parents.get(step) if step is not None else None
            chain.append(("switch", step) if step else ("alone", height, name))
        return tuple(self._number(place) for place in chain)

    def _domain(self, name: str) -> str:
        """The rack where told, else the leaf where there are several, else the node."""
        if name in self._racks:
            return self._racks[name]
        leaves = self._leaves.get(name, [])
        return leaves[0] if len(leaves) == 1 and self._several_leaves else ""

    @cached_property
    def _several_leaves(self) -> bool:
        return sum(s.nodes is not None for s in self._switches.values()) > 1


def _nearest_nic(at: NodeTopology, gpu: int) -> Nic | None:
    """The NIC of the nearest group with one; several are dealt to its GPUs in order."""
    kinds = ("pcie_switch", "host_bridge", "numa_domain")
    for kind, groups in zip(kinds, at.levels().values(), strict=True):
        for name, gpus in groups.items():
            nics = [nic for nic in at.nics if getattr(nic, kind) == name]
            if gpu in gpus and nics:
                return nics[sorted(gpus).index(gpu) * len(nics) // len(gpus)]
    return None


def _rail(nic: Nic | None) -> int:
    return nic.rail if nic is not None and nic.rail is not None else _UNKNOWN


def _numa(at: NodeTopology | None, gpu: int) -> str:
    domains = at.numa_domains.items() if at else ()
    return next((name for name, gpus in domains if gpu in gpus), "")
