"""The physical topology: GPUs, the links between every two of them, what is usable.

Inside a node any mesh is allowed (bridged pairs, PCIe switches, NUMA, xGMI rings);
between nodes the link depends on the lowest switch that both are below, and on
whether the two GPUs share a rail. No matrix over the whole cluster is ever built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from shardwright.cost.lengths import ceil_div
from shardwright.schema.cluster import Cluster
from shardwright.schema.errors import FieldError, InvalidInstance

_NS_PER_S = 10**9
_SELF = -1

Gpu = tuple[int, int]
"""A GPU: index of its node in the topology, index of the GPU in the node."""


@dataclass(frozen=True)
class LinkClass:
    """A kind of link: sustained bytes/s per direction, start-up time of a message."""

    name: str
    bytes_per_s: int
    latency_ns: int = 0

    def __post_init__(self) -> None:
        if self.bytes_per_s <= 0 or self.latency_ns < 0:
            raise _refused(
                f"links.{self.name}",
                f"{self.bytes_per_s} bytes/s, {self.latency_ns} ns",
                "a positive bandwidth and a latency of at least 0",
            )

    def time_ns(self, size_bytes: int, parts: int = 1) -> int:
        """Time to send ``size_bytes`` / ``parts``, rounded up."""
        sent = ceil_div(size_bytes * _NS_PER_S, parts * self.bytes_per_s)
        return sent + self.latency_ns


@dataclass(frozen=True)
class NodeShape:
    """What equal nodes have in common.

    ``links[i][j]`` is the index of the link class between GPUs i and j of the node
    (-1 on the diagonal). ``rails``, ``numa``, ``nics`` hold one entry per GPU; a rail
    of -1 and empty names mean unknown. ``port`` ranks the network ports of the
    cluster's shapes, 0 the fastest: of two nodes the slower one counts.
    """

    gpu_type: str
    links: tuple[tuple[int, ...], ...]
    rails: tuple[int, ...]
    numa: tuple[str, ...]
    nics: tuple[str, ...]
    port: int = 0

    @property
    def gpus(self) -> int:
        """GPUs of a node, usable or not."""
        return len(self.links)

    @cached_property
    def uniform(self) -> bool:
        """Whether every two GPUs of the node have the same link."""
        found = {c for i, row in enumerate(self.links) for c in row[:i]}
        return len(found) <= 1


@dataclass(frozen=True)
class Node:
    """One node. ``switches`` runs from its leaf up; ``domain`` fails as a whole."""

    name: str
    shape: int
    usable: tuple[int, ...]
    switches: tuple[int, ...] = ()
    domain: str = ""
    uuids: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkLevel:
    """Link classes of GPUs whose lowest common switch is on this level, by port."""

    same_rail: tuple[int, ...]
    cross_rail: tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """Nodes of a few shapes below a tree of switches.

    ``network[0]`` joins nodes of one leaf; the last level joins all others. It may
    be empty only where there is one node.
    """

    classes: tuple[LinkClass, ...]
    shapes: tuple[NodeShape, ...]
    nodes: tuple[Node, ...]
    network: tuple[NetworkLevel, ...] = ()

    def __post_init__(self) -> None:
        if len(self.nodes) > 1 and not self.network:
            raise _refused("network", "no level", "a link between the nodes")
        for node in self.nodes:
            gpus = self.shapes[node.shape].gpus
            if any(not 0 <= g < gpus for g in node.usable):
                raise _refused(
                    f"nodes.{node.name}", f"GPUs {node.usable}", f"0 to {gpus - 1}"
                )

    @classmethod
    def of_matrix(
        cls,
        bytes_per_s: Sequence[Sequence[float]],
        available: Sequence[int] | None = None,
        latency_ns: int = 0,
    ) -> Topology:
        """One node whose links are given pair by pair, in bytes/s per direction."""
        rows = [[int(value) for value in row] for row in bytes_per_s]
        count = len(rows)
        if any(len(row) != count for row in rows):
            raise _refused("bytes_per_s", "rows of other lengths", "a square matrix")
        for i in range(count):
            for j in range(i):
                if rows[i][j] != rows[j][i]:
                    found = f"{rows[i][j]} and {rows[j][i]} between {i} and {j}"
                    raise _refused("bytes_per_s", found, "a symmetric matrix")
        speeds = sorted({rows[i][j] for i in range(count) for j in range(i)})[::-1]
        index = {speed: c for c, speed in enumerate(speeds)}
        links = tuple(
            tuple(_SELF if i == j else index[rows[i][j]] for j in range(count))
            for i in range(count)
        )
        named = [LinkClass(f"{s / 1e9:g} GB/s", s, latency_ns) for s in speeds]
        usable = tuple(range(count)) if available is None else tuple(sorted(available))
        return cls(
            tuple(named), (plain_shape("GPU", links),), (Node("node-0", 0, usable),)
        )

    @classmethod
    def from_cluster(cls, cluster: Cluster) -> Topology:
        """The topology that a cluster document describes (docs/placement.md)."""
        from shardwright.problem.cluster_topology import topology_of

        return topology_of(cluster)

    def link(self, a: Gpu, b: Gpu) -> int:
        """Index of the link class between two different GPUs."""
        if a[0] == b[0]:
            return self.shapes[self.nodes[a[0]].shape].links[a[1]][b[1]]
        level = self.network[self.level(a[0], b[0])]
        port = max(self.shape_of(a[0]).port, self.shape_of(b[0]).port)
        same = self.rail(a) == self.rail(b)
        return level.same_rail[port] if same else level.cross_rail[port]

    def level(self, first: int, second: int) -> int:
        """Level of the lowest switch above two different nodes."""
        pairs = zip(
            self.nodes[first].switches, self.nodes[second].switches, strict=False
        )
        for i, (a, b) in enumerate(pairs):
            if a == b:
                return min(i, len(self.network) - 1)
        return len(self.network) - 1

    def rail(self, gpu: Gpu) -> int:
        """Rail of a GPU; -1 when unknown."""
        return self.shape_of(gpu[0]).rails[gpu[1]]

    def shape_of(self, node: int) -> NodeShape:
        """Shape of a node."""
        return self.shapes[self.nodes[node].shape]

    def leaf(self, node: int) -> int:
        """The lowest switch above a node; nodes without any share one."""
        switches = self.nodes[node].switches
        return switches[0] if switches else _SELF

    def domain(self, node: int) -> str:
        """What fails as a whole and holds the node: its rack, else the node."""
        return self.nodes[node].domain or self.nodes[node].name

    @cached_property
    def usable(self) -> tuple[Gpu, ...]:
        """Every usable GPU, in order of the nodes."""
        return tuple((i, g) for i, n in enumerate(self.nodes) for g in n.usable)

    def without(self, gpus: Sequence[Gpu]) -> Topology:
        """The same topology with these GPUs taken (failed, reserved, in use)."""
        gone: dict[int, set[int]] = {}
        for node, gpu in gpus:
            gone.setdefault(node, set()).add(gpu)
        nodes = list(self.nodes)
        for i, taken in gone.items():
            left = tuple(g for g in nodes[i].usable if g not in taken)
            nodes[i] = replace(nodes[i], usable=left)
        return replace(self, nodes=tuple(nodes))


def plain_shape(gpu_type: str, links: tuple[tuple[int, ...], ...]) -> NodeShape:
    """A shape of which nothing but the links is known."""
    count = len(links)
    return NodeShape(gpu_type, links, (_SELF,) * count, ("",) * count, ("",) * count)


def uniform_links(gpus: int, link: int) -> tuple[tuple[int, ...], ...]:
    """All-to-all links of one class."""
    return tuple(
        tuple(_SELF if i == j else link for j in range(gpus)) for i in range(gpus)
    )


def _refused(path: str, found: str, allowed: str) -> InvalidInstance:
    return InvalidInstance("topology", [FieldError(path, found, allowed)])
