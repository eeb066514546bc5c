"""What one file says about one node; nothing is filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TypeVar

from shardwright.schema.topology import Nic, NodeTopology, PathSpeeds, Rack, Switch

T = TypeVar("T")
Group = tuple[int, ...]
"""GPU indices, ascending."""


class Kind(IntEnum):
    """Formats; where two files of one node say something, the first is believed."""

    NCCL_XML = 0
    TOPO = 1
    ROCM = 2
    GPU_LIST = 3
    KUBERNETES = 4
    SLURM = 5

    @property
    def words(self) -> str:
        """How people call the format."""
        return _WORDS[self]


_WORDS = {
    Kind.NCCL_XML: "NCCL topology XML",
    Kind.TOPO: "nvidia-smi topo -m",
    Kind.ROCM: "rocm-smi --showtopo",
    Kind.GPU_LIST: "nvidia-smi list of GPUs",
    Kind.KUBERNETES: "kubectl get nodes -o json",
    Kind.SLURM: "Slurm configuration",
}


@dataclass(frozen=True)
class Link:
    """A fast link between two GPUs, a < b; ``count`` is how many are bonded."""

    a: int
    b: int
    technology: str
    count: int | None = None


@dataclass(frozen=True)
class NicFacts:
    """A NIC and the groups of GPUs that it hangs on with them."""

    name: str
    gbyte_per_s: float | None = None
    pcie_switch: Group | None = None
    host_bridge: Group | None = None
    numa_domain: Group | None = None


@dataclass(frozen=True)
class PcieFacts:
    """Groups of GPUs by what they share; NUMA domains with their numbers."""

    switches: tuple[Group, ...] = ()
    bridges: tuple[Group, ...] = ()
    numa: Mapping[Group, int | None] = field(default_factory=dict)
    nics: tuple[NicFacts, ...] = ()
    switch_gbyte_per_s: float | None = None

    def renumbered(self, new: Mapping[int, int]) -> PcieFacts:
        """The same with GPU g called ``new[g]``."""

        def moved(group: Group | None) -> Group | None:
            return None if group is None else tuple(sorted(new[g] for g in group))

        nics = [
            replace(
                nic,
                pcie_switch=moved(nic.pcie_switch),
                host_bridge=moved(nic.host_bridge),
                numa_domain=moved(nic.numa_domain),
            )
            for nic in self.nics
        ]
        return replace(
            self,
            switches=tuple(moved(g) or () for g in self.switches),
            bridges=tuple(moved(g) or () for g in self.bridges),
            numa={moved(g) or (): number for g, number in self.numa.items()},
            nics=tuple(nics),
        )

    def document(self) -> NodeTopology | None:
        """As the schema has it; None when there is nothing to say.

        Rail i is the i-th NIC that shares a switch with GPUs, in the order of these
        GPUs and then of names: how rail networks are usually cabled.
        """
        switches = _named("pcie", self.switches)
        bridges = _named("bridge", self.bridges)
        numa = _numa_names(self.numa)
        on_switch = [nic for nic in self.nics if nic.pcie_switch]
        rails = sorted(on_switch, key=lambda n: (n.pcie_switch, natural(n.name)))
        rail = {nic.name: i for i, nic in enumerate(rails)}
        nics = tuple(
            Nic(
                name=nic.name,
                gbyte_per_s=nic.gbyte_per_s,
                pcie_switch=switches.get(nic.pcie_switch or ()),
                host_bridge=bridges.get(nic.host_bridge or ()),
                numa_domain=numa.get(nic.numa_domain or ()),
                rail=rail.get(nic.name),
            )
            for nic in sorted(self.nics, key=lambda n: natural(n.name))
        )
        if not (switches or bridges or numa or nics):
            return None
        return NodeTopology(
            pcie_switches=_by_name(switches),
            host_bridges=_by_name(bridges),
            numa_domains=_by_name(numa),
            paths=PathSpeeds(pcie_switch_gbyte_per_s=self.switch_gbyte_per_s),
            nics=nics,
        )


@dataclass(frozen=True)
class NodeFacts:
    """A node as one file has it; None: the file does not say.

    ``products``, ``memory_mib``, ``uuids`` and ``bus_ids`` have one entry per GPU in
    the order of GPU indices. ``links`` are the fast links between GPUs as they are
    printed: behind a switch every pair has the count of the whole GPU. ``reserved``
    and ``failed`` map a GPU to the reason, -1 standing for all of the node.
    """

    name: str
    source: str
    kind: Kind
    gpus: int | None = None
    products: tuple[str, ...] | None = None
    memory_mib: tuple[int, ...] | None = None
    uuids: tuple[str, ...] | None = None
    bus_ids: tuple[str, ...] | None = None
    links: tuple[Link, ...] | None = None
    pcie: PcieFacts | None = None
    network_gbyte_per_s: float | None = None
    reserved: Mapping[int, str] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """File and format, for comments."""
        return f"{self.source} ({self.kind.words})"

    def renumbered(self, new: Mapping[int, int]) -> NodeFacts:
        """The same node with GPU g called ``new[g]``."""
        old = {b: a for a, b in new.items()}
        order = [old[g] for g in range(len(old))]
        links = self.links and tuple(
            replace(
                link,
                a=min(new[link.a], new[link.b]),
                b=max(new[link.a], new[link.b]),
            )
            for link in self.links
        )
        return replace(
            self,
            products=_ordered(self.products, order),
            memory_mib=_ordered(self.memory_mib, order),
            uuids=_ordered(self.uuids, order),
            bus_ids=_ordered(self.bus_ids, order),
            links=links,
            pcie=self.pcie and self.pcie.renumbered(new),
            reserved={new.get(g, g): why for g, why in self.reserved.items()},
            failed={new.get(g, g): why for g, why in self.failed.items()},
        )


@dataclass(frozen=True)
class FabricFacts:
    """The network as one file has it. ``switches`` and ``racks`` may name nodes
    without GPUs; what these leave empty is dropped later. The least ``rank`` is
    believed: Slurm reads topology.yaml and then forgets topology.conf."""

    source: str
    kind: Kind
    rank: int
    switches: tuple[Switch, ...] = ()
    racks: tuple[Rack, ...] = ()

    @property
    def origin(self) -> str:
        """File and format, for comments."""
        return f"{self.source} ({self.kind.words})"


@dataclass(frozen=True)
class FileFacts:
    """All that one file says."""

    nodes: tuple[NodeFacts, ...] = ()
    fabric: FabricFacts | None = None
    warnings: tuple[str, ...] = ()


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts n2 before n10."""
    parts: list[tuple[int, int | str]] = []
    digits, letters = "", ""
    for char in f"{text}\0":
        if char.isascii() and char.isdigit():
            digits += char
            if letters:
                parts.append((1, letters))
                letters = ""
        else:
            letters += char
            if digits:
                parts.append((0, int(digits)))
                digits = ""
    return (*parts, (1, letters))


def _ordered(
    values: tuple[T, ...] | None, order: Sequence[int]
) -> tuple[T, ...] | None:
    return None if values is None else tuple(values[g] for g in order)


def _named(prefix: str, groups: Sequence[Group]) -> dict[Group, str]:
    distinct = sorted(set(groups), key=lambda g: (g[0], len(g), g))
    return {group: f"{prefix}{i}" for i, group in enumerate(distinct)}


def _numa_names(numa: Mapping[Group, int | None]) -> dict[Group, str]:
    numbered = all(number is not None for number in numa.values())
    if numbered and len(set(numa.values())) == len(numa):
        return {group: f"numa{numa[group]}" for group in sorted(numa)}
    return _named("domain", list(numa))


def _by_name(groups: Mapping[Group, str]) -> dict[str, Group]:
    return {name: group for group, name in groups.items()}
