"""Inside a node and between nodes: links, PCIe, NUMA, NICs, racks and switches.

Everything here is optional. GPU indices are those of the node, from 0; every speed is
GB/s (1e9 bytes) per direction, and where it is left out it is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shardwright.schema.base import Count, Document, Index, Name, Number, Positive
from shardwright.schema.errors import FieldError

Path = Literal["link", "pcie_switch", "host_bridge", "numa_domain", "node"]
Gpus = Annotated[tuple[Index, ...], Field(min_length=1, max_length=1024)]
Groups = Annotated[dict[Name, Gpus], Field(max_length=256)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=100_000)]


class Faults(ValueError):
    """Refused fields below a document; their paths start at that document."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(map(str, errors)))


class GpuLink(Document):
    """Links between two GPUs of a node, bonded: an NVLink bridge, an xGMI edge.

    ``links`` is how many are bonded (the # of NV#, which is no generation);
    ``gbyte_per_s`` is all of them together.
    """

    gpus: tuple[Index, Index]
    technology: Name
    links: Count | None = None
    gbyte_per_s: Positive | None = None


class Nic(Document):
    """A network interface. ``rail`` numbers those that a rail network joins.

    ``pcie_switch``, ``host_bridge`` and ``numa_domain`` name groups of the same
    topology; a NIC on a switch without GPUs names none.
    """

    name: Name
    gbyte_per_s: Positive | None = None
    pcie_switch: Name | None = None
    host_bridge: Name | None = None
    numa_domain: Name | None = None
    rail: Index | None = None


class PathSpeeds(Document):
    """What two GPUs reach one another with, by the nearest group that holds both.

    ``socket_gbyte_per_s`` holds for GPUs of different NUMA domains.
    """

    pcie_switch_gbyte_per_s: Positive | None = None
    host_bridge_gbyte_per_s: Positive | None = None
    numa_domain_gbyte_per_s: Positive | None = None
    socket_gbyte_per_s: Positive | None = None


class NodeTopology(Document):
    """What connects the GPUs of a node besides the all-to-all links of its islands.

    ``links`` lists what is not all-to-all. Groups are named lists of GPUs: switches
    may be nested (a chain of bridges), a switch lies inside one host bridge, a host
    bridge inside one NUMA domain. A GPU in no group of a kind: not known.
    """

    links: Annotated[tuple[GpuLink, ...], Field(max_length=10_000)] = ()
    pcie_switches: Groups = Field(default_factory=dict)
    host_bridges: Groups = Field(default_factory=dict)
    numa_domains: Groups = Field(default_factory=dict)
    paths: PathSpeeds = PathSpeeds()
    nics: Annotated[tuple[Nic, ...], Field(max_length=1024)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> NodeTopology:
        faults = [
            *_repeats(self),
            *_overlaps(self),
            *_link_faults(self.links),
            *_nic_faults(self),
        ]
        if faults:
            raise Faults(faults)
        return self

    def levels(self) -> dict[Path, dict[str, tuple[int, ...]]]:
        """Groups of every kind, from the nearest to the widest."""
        return {
            "pcie_switch": self.pcie_switches,
            "host_bridge": self.host_bridges,
            "numa_domain": self.numa_domains,
        }

    def path(self, a: int, b: int) -> Path:
        """The nearest thing that two GPUs share: a link, else a group, else the node.

        ``node`` says that they share no group that is written here: they are on
        different NUMA domains where all GPUs are in one, else it is not known.
        """
        if any({a, b} == {*link.gpus} for link in self.links):
            return "link"
        for kind, groups in self.levels().items():
            if any({a, b} <= {*gpus} for gpus in groups.values()):
                return kind
        return "node"


class Switch(Document):
    """A switch of the network: of nodes (a leaf) or of switches (spine, core).

    ``oversubscription`` is bandwidth below over bandwidth above (1: none);
    ``uplink_gbyte_per_s`` the sum of all its uplinks. ``rail`` says that only the
    NICs of this rail are on it. In ``nodes`` a group's name stands for all its nodes.
    """

    name: Name
    nodes: Names | None = None
    switches: Names | None = None
    oversubscription: Annotated[Number, Field(ge=1, le=1000)] | None = None
    uplink_gbyte_per_s: Positive | None = None
    rail: Index | None = None

    @model_validator(mode="after")
    def _kind(self) -> Switch:
        if (self.nodes is None) == (self.switches is None):
            found = "both" if self.nodes else "neither"
            raise Faults([FieldError("nodes", found, "either nodes or switches")])
        if self.oversubscription is not None and self.uplink_gbyte_per_s is not None:
            at = "uplink_gbyte_per_s"
            raise Faults([FieldError(at, "both", "this or oversubscription")])
        return self


class Rack(Document):
    """Nodes that stand together. With a link technology they are one NVLink domain
    (NVL72): ``link_gbyte_per_s`` is what each GPU sends into it.

    In ``nodes`` a group's name stands for all its nodes.
    """

    name: Name
    nodes: Names
    link_technology: Name | None = None
    link_gbyte_per_s: Positive | None = None


class Fabric(Document):
    """The network between nodes: a forest of switches, and racks."""

    switches: Annotated[tuple[Switch, ...], Field(max_length=20_000)] = ()
    racks: Annotated[tuple[Rack, ...], Field(max_length=20_000)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Fabric:
        faults = [
            *_same_name("switches", [s.name for s in self.switches]),
            *_same_name("racks", [r.name for r in self.racks]),
            *_tree_faults(self.switches),
        ]
        if faults:
            raise Faults(faults)
        return self

    def height(self, name: str) -> int:
        """0 for a leaf, else one more than its highest switch."""
        below = {s.name: s.switches or () for s in self.switches}
        heights: dict[str, int] = {}
        for switch in _bottom_up(below):
            heights[switch] = 1 + max((heights[s] for s in below[switch]), default=-1)
        return heights[name]


def island_faults(
    islands: Sequence[Sequence[int]], gpus: int, at: str = "islands"
) -> Iterator[FieldError]:
    """Every GPU of the node is in exactly one island."""
    seen: dict[int, int] = {}
    for i, island in enumerate(islands):
        for k, gpu in enumerate(island):
            here = f"{at}.{i}.{k}"
            if gpu >= gpus:
                allowed = f"a GPU of this node, 0 to {gpus - 1}"
                yield FieldError(here, str(gpu), allowed)
            elif gpu in seen:
                allowed = f"each GPU in one island; {at}.{seen[gpu]} has it"
                yield FieldError(here, str(gpu), allowed)
            seen.setdefault(gpu, i)
    if missing := [g for g in range(gpus) if g not in seen]:
        found = f"no island with GPU {' and '.join(map(str, missing[:8]))}"
        yield FieldError(at, found, "every GPU in one island ([[0, 1], [2]])")


def topology_faults(topology: NodeTopology, gpus: int) -> Iterator[FieldError]:
    """GPUs that the node does not have."""
    links = enumerate(topology.links)
    listed: list[tuple[str, Gpus]] = [(f"links.{i}.gpus", x.gpus) for i, x in links]
    for kind, field in _FIELDS.items():
        groups = topology.levels()[kind]
        listed += [(f"{field}.{name}", members) for name, members in groups.items()]
    for at, members in listed:
        for k, gpu in enumerate(members):
            if gpu >= gpus:
                allowed = f"a GPU of this node, 0 to {gpus - 1}"
                yield FieldError(f"topology.{at}.{k}", str(gpu), allowed)


def per_node_faults(
    field: str, listed: Mapping[str, Sequence[str]], nodes: Sequence[str], gpus: int
) -> Iterator[FieldError]:
    """One list per node, one entry per GPU, all different."""
    seen: dict[str, str] = {}
    for node, entries in listed.items():
        if node not in nodes:
            allowed = f"a node of this group: {', '.join(nodes[:6])}"
            yield FieldError(f"{field}.{node}", node, allowed)
        if len(entries) != gpus:
            found = f"{len(entries)} entries"
            yield FieldError(f"{field}.{node}", found, f"one per GPU, {gpus}")
        for k, entry in enumerate(entries):
            # bus addresses repeat from node to node; on one node nothing does
            key = f"{node}\n{entry}" if field == "pci_bus_ids" else entry
            at = f"{field}.{node}.{k}"
            if key in seen:
                yield FieldError(at, entry, f"told already at {seen[key]}")
            seen[key] = at


def fabric_faults(
    fabric: Fabric, groups: Mapping[str, Sequence[str]]
) -> Iterator[FieldError]:
    """Unknown nodes; nodes on two leaves of one rail or in two racks.

    ``groups`` has the nodes of every group by its name.
    """
    known = {**{n: (n,) for nodes in groups.values() for n in nodes}, **groups}
    homes: dict[tuple[str, int | None, str], str] = {}
    listed = [
        (f"fabric.switches.{i}.nodes", ("leaf", s.rail), s.nodes or ())
        for i, s in enumerate(fabric.switches)
    ] + [
        (f"fabric.racks.{i}.nodes", ("rack", None), r.nodes)
        for i, r in enumerate(fabric.racks)
    ]
    for at, (kind, rail), names in listed:
        for k, name in enumerate(names):
            here = f"{at}.{k}"
            if name not in known:
                yield FieldError(here, repr(name), "a node or a group of cluster.nodes")
            for node in known.get(name, ()):
                home = homes.setdefault((kind, rail, node), here)
                if home != here:
                    allowed = f"a node is on one {kind}; {home} has {node!r}"
                    yield FieldError(here, repr(name), allowed)


_FIELDS: dict[Path, str] = {
    "pcie_switch": "pcie_switches",
    "host_bridge": "host_bridges",
    "numa_domain": "numa_domains",
}


def _repeats(topology: NodeTopology) -> Iterator[FieldError]:
    for kind, field in _FIELDS.items():
        for name, gpus in topology.levels()[kind].items():
            seen: set[int] = set()
            for k, gpu in enumerate(gpus):
                if gpu in seen:
                    yield FieldError(f"{field}.{name}.{k}", str(gpu), "each GPU once")
                seen.add(gpu)


def _overlaps(topology: NodeTopology) -> Iterator[FieldError]:
    """Groups are nested or apart, and a near kind never holds a whole wider one."""
    named = [
        (f"{field}.{name}", rank, {*gpus})
        for rank, (kind, field) in enumerate(_FIELDS.items())
        for name, gpus in topology.levels()[kind].items()
    ]
    for (at, rank, gpus), (other, wider, more) in combinations(named, 2):
        if not gpus & more or _may_share(gpus, more, rank, wider):
            continue
        shared = " and ".join(map(str, sorted(gpus & more)))
        allowed = f"apart from {at}" if rank == wider else f"all of {at} or none"
        yield FieldError(other, f"GPU {shared} of {at}", allowed)


def _may_share(gpus: set[int], more: set[int], rank: int, wider: int) -> bool:
    if rank < wider:
        return gpus <= more
    return rank == 0 and (gpus <= more or more <= gpus)


def _link_faults(links: Sequence[GpuLink]) -> Iterator[FieldError]:
    seen: dict[frozenset[int], int] = {}
    for i, link in enumerate(links):
        pair = frozenset(link.gpus)
        if len(pair) == 1:
            found = f"GPU {link.gpus[0]} twice"
            yield FieldError(f"links.{i}.gpus", found, "two different GPUs")
        elif pair in seen:
            allowed = f"each pair once; links.{seen[pair]} has it"
            yield FieldError(f"links.{i}.gpus", str([*link.gpus]), allowed)
        seen.setdefault(pair, i)


def _nic_faults(topology: NodeTopology) -> Iterator[FieldError]:
    yield from _same_name("nics", [nic.name for nic in topology.nics])
    for i, nic in enumerate(topology.nics):
        for kind, field in _FIELDS.items():
            name = getattr(nic, kind)
            known = topology.levels()[kind]
            if name is not None and name not in known:
                allowed = f"one of {field}: {', '.join(known) or 'there is none'}"
                yield FieldError(f"nics.{i}.{kind}", repr(name), allowed)


def _same_name(field: str, names: Sequence[str]) -> Iterator[FieldError]:
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if first.setdefault(name, i) != i:
            allowed = f"a name that {field}.{first[name]} does not have"
            yield FieldError(f"{field}.{i}.name", repr(name), allowed)


def _tree_faults(switches: Sequence[Switch]) -> Iterator[FieldError]:
    known = {s.name for s in switches}
    for i, switch in enumerate(switches):
        for k, name in enumerate(switch.switches or ()):
            if name not in known:
                at = f"switches.{i}.switches.{k}"
                yield FieldError(at, repr(name), "the name of a switch")
    below = {s.name: s.switches or () for s in switches}
    reached = set(_bottom_up(below))
    for i, switch in enumerate(switches):
        if switch.name not in reached and known.issuperset(below[switch.name]):
            at = f"switches.{i}.switches"
            yield FieldError(at, switch.name, "no switch is below itself")


def _bottom_up(below: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Every switch after all that it holds; those on a circle are left out."""
    above: dict[str, list[str]] = {}
    open_ = {name: len(set(held)) for name, held in below.items()}
    for name, held in below.items():
        for switch in set(held):
            above.setdefault(switch, []).append(name)
    ready = [name for name, count in open_.items() if not count]
    while ready:
        name = ready.pop()
        yield name
        for upper in above.get(name, ()):
            open_[upper] -= 1
            if not open_[upper]:
                ready.append(upper)


__all__ = [
    "Fabric",
    "Faults",
    "GpuLink",
    "Nic",
    "NodeTopology",
    "Path",
    "PathSpeeds",
    "Rack",
    "Switch",
    "fabric_faults",
    "island_faults",
    "per_node_faults",
    "topology_faults",
]
