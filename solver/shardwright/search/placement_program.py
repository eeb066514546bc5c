"""From a topology and its traffic to the program over node patterns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from shardwright.formulations.cpsat.placement_nodes import (
    Arc,
    NodeProgram,
    NodeSupply,
    ReplicaArcs,
)
from shardwright.formulations.node_patterns import NodeKind, NodeTable, node_kind
from shardwright.problem.topology import LinkClass
from shardwright.problem.traffic import Collective, ReplicaTraffic, StageTraffic
from shardwright.schema.errors import InstanceTooLarge
from shardwright.search.placement_types import PlacementCase

_MOST_ARCS = 20_000


@dataclass(frozen=True)
class NodeCompiler:
    """Kinds of nodes, of replicas and of segments; then the program."""

    case: PlacementCase

    @cached_property
    def leaves(self) -> tuple[int, ...]:
        """Leaf switches, in the order of their nodes."""
        topology = self.case.topology
        return tuple(dict.fromkeys(map(topology.leaf, range(len(topology.nodes)))))

    @cached_property
    def node_kinds(self) -> dict[NodeKind, list[int]]:
        """Nodes of every kind that have a usable GPU."""
        found: dict[NodeKind, list[int]] = {}
        for i, node in enumerate(self.case.topology.nodes):
            if node.usable:
                found.setdefault(node_kind(self.case.topology, i), []).append(i)
        return found

    @cached_property
    def replica_kinds(self) -> Counter[ReplicaTraffic]:
        """Distinct replicas and how many there are of each."""
        return Counter(self.case.traffic.replicas)

    @cached_property
    def segment_kinds(self) -> dict[ReplicaTraffic, int]:
        """Every distinct run of stages that could fit a node."""
        largest = max(len(n.usable) for n in self.case.topology.nodes)
        found: dict[ReplicaTraffic, int] = {}
        for replica in self.replica_kinds:
            for start, end in runs(replica, largest):
                found.setdefault(segment(replica, start, end), len(found))
                if len(found) > _MOST_ARCS:
                    raise InstanceTooLarge(f"over {_MOST_ARCS} segments")
        return found

    @cached_property
    def tables(self) -> tuple[NodeTable, ...]:
        """Patterns by kind of node."""
        kinds = tuple(self.segment_kinds)
        costs = self.case.costs
        return tuple(
            NodeTable(costs, nodes[0], kinds) for nodes in self.node_kinds.values()
        )

    @cached_property
    def program(self) -> NodeProgram:
        """The whole program."""
        counts: Counter[tuple[int, int]] = Counter()
        for v, nodes in enumerate(self.node_kinds.values()):
            counts.update((self.case.topology.leaf(node), v) for node in nodes)
        kinds = range(len(self.node_kinds))
        return NodeProgram(
            tuple(kind.gpus for kind in self.segment_kinds),
            tuple(self._supply(table) for table in self.tables),
            tuple(tuple(counts[leaf, v] for v in kinds) for leaf in self.leaves),
            tuple(self._arcs(r, n) for r, n in self.replica_kinds.items()),
        )

    def _supply(self, table: NodeTable) -> NodeSupply:
        gpu_type = self.case.topology.shape_of(table.example).gpu_type
        free = len(table.usable)
        if table.bulk:
            alone = tuple(table.alone(k) for k in range(len(table.kinds)))
            return NodeSupply(gpu_type, free, alone=alone)
        return NodeSupply(gpu_type, free, patterns=table.patterns)

    def _arcs(self, replica: ReplicaTraffic, count: int) -> ReplicaArcs:
        largest = max(len(n.usable) for n in self.case.topology.nodes)
        arcs = []
        for start, end in runs(replica, largest):
            kind = self.segment_kinds[segment(replica, start, end)]
            arcs.append(Arc(start, end, kind, *self._hops(replica, start)))
        nodes = len(self.case.topology.nodes)
        if nodes > 1:
            for i, stage in enumerate(replica.stages):
                if stage.gpus > 1:
                    arcs.append(self._spread(replica, i, stage))
        return ReplicaArcs(count, len(replica.stages), tuple(arcs))

    def _spread(self, replica: ReplicaTraffic, i: int, stage: StageTraffic) -> Arc:
        beside, across = self._hops(replica, i)
        joined = None if i == 0 else self._least_hop(replica, i, self._any)
        return Arc(
            i,
            i + 1,
            None,
            beside,
            across,
            joined,
            self._spread_cost(stage, 1) * replica.weight,
            self._spread_cost(stage, 0) * replica.weight,
            stage.gpus,
            stage.gpu_type,
            max(2, -(-stage.gpus // self._largest)),
        )

    @cached_property
    def _largest(self) -> int:
        return max(len(n.usable) for n in self.case.topology.nodes)

    @cached_property
    def _any(self) -> tuple[LinkClass, ...]:
        """Every link class in use."""
        topology = self.case.topology
        used = {c for s in topology.shapes for row in s.links for c in row if c >= 0}
        inside = tuple(topology.classes[c] for c in sorted(used))
        return inside + self._network(0)

    def _network(self, level: int) -> tuple[LinkClass, ...]:
        """Link classes of this level of the network and of those above."""
        topology = self.case.topology
        used = {
            c
            for step in topology.network[level:]
            for c in (*step.same_rail, *step.cross_rail)
        }
        return tuple(topology.classes[c] for c in sorted(used))

    def _hops(self, replica: ReplicaTraffic, start: int) -> tuple[int, int]:
        """Least cost of the hop into a stage from another node, and leaf."""
        if start == 0 or not self.case.topology.network:
            return 0, 0
        before, after = replica.stages[start - 1 : start + 1]
        few, many = sorted((before.gpus, after.gpus))
        if (
            many % few
        ):  # a rank may stay without a partner: any link could be the slowest
            least = self._least_hop(replica, start, self._any)
            return least, least
        last = len(self.case.topology.network) - 1
        beside = self._least_hop(replica, start, self._network(0))
        across = self._least_hop(replica, start, self._network(min(1, last)))
        return beside, across

    def _least_hop(
        self, replica: ReplicaTraffic, start: int, links: tuple[LinkClass, ...]
    ) -> int:
        size = replica.hops_bytes[start - 1]
        few = min(s.gpus for s in replica.stages[start - 1 : start + 1])
        if not size:
            return 0
        return replica.weight * min(link.time_ns(size, few) for link in links)

    def _spread_cost(self, stage: StageTraffic, level: int) -> int:
        """Least cost of a stage whose nodes meet on this level of the network.

        What spans all its ranks crosses nodes. Of groups and what runs across them
        one or the other does, since some group is torn or two groups lie apart.
        """
        over = self._network(min(level, len(self.case.topology.network) - 1))
        whole = sum(self._spread_collective(c, stage.gpus, over) for c in stage.whole())
        if stage.inner == stage.gpus:
            return whole
        groups = StageTraffic(
            stage.inner,
            tuple(replace(c, ranks=stage.inner) for c in stage.in_groups()),
            stage.gpu_type,
        )
        torn = sum(self._least(c, over) for c in groups.collectives)
        inside = self._least_in_a_node(groups)
        beside = sum(self._least(c, self._network(0)) for c in groups.collectives)
        kept = beside if inside is None else min(inside, beside)
        if not stage.strided():
            return whole + kept
        apart = sum(self._least(c, over) for c in stage.strided())
        near = sum(self._least(c, self._any) for c in stage.strided())
        return whole + min(torn + near, kept + apart)

    def _least(self, one: Collective, links: tuple[LinkClass, ...]) -> int:
        """A collective whose slowest link is the best of these."""
        peers = one.ranks - 1 if one.kind == "all_to_all" else 1
        return peers * min(self.case.costs.on_one_class(one, x) for x in links)

    def _least_in_a_node(self, groups: StageTraffic) -> int | None:
        """The cheapest group on one node, of all kinds of nodes."""
        alone = ReplicaTraffic((groups,), ())
        found = (
            NodeTable(self.case.costs, nodes[0], (alone,)).alone(0)
            for nodes in self.node_kinds.values()
        )
        return min((cost for cost in found if cost is not None), default=None)

    def _spread_collective(
        self, one: Collective, gpus: int, over: tuple[LinkClass, ...]
    ) -> int:
        costs = self.case.costs
        if one.kind != "all_to_all":
            return self._least(one, over)
        inside = min(costs.on_one_class(one, link) for link in self._any)
        same = min(costs.on_one_class(one, link) for link in self._network(0))
        cross = max(same, self._least_across_rails(one))
        nodes = len(self.case.topology.nodes)
        return min(
            _mean_all_to_all(gpus, z, min(self._largest, gpus - 1), inside, same, cross)
            for z in range(2, min(nodes, gpus) + 1)
        )

    def _least_across_rails(self, one: Collective) -> int:
        """One peer on another rail; 0 unless every node has a rail per GPU."""
        topology = self.case.topology
        for shape in topology.shapes:
            if -1 in shape.rails or len(set(shape.rails)) < shape.gpus:
                return 0
        classes = {c for level in topology.network for c in level.cross_rail}
        links = (topology.classes[c] for c in classes)
        return min(self.case.costs.on_one_class(one, link) for link in links)

    def coupling_bound(self) -> int:
        """What replicas exchange, each over the best link that there is."""
        traffic = self.case.traffic
        found = 0
        for t in traffic.transfers:
            ends = (traffic.replicas[t.source].gpus, traffic.replicas[t.target].gpus)
            if t.size_bytes:
                found += min(x.time_ns(t.size_bytes, min(ends)) for x in self._any)
        for p in traffic.peers:
            one = Collective("all_reduce", len(p.replicas), p.size_bytes)
            if one.ranks > 1 and p.size_bytes:
                found += min(self.case.costs.on_one_class(one, x) for x in self._any)
        return found


def runs(replica: ReplicaTraffic, largest: int) -> Iterator[tuple[int, int]]:
    """Runs of stages [start, end) with at most ``largest`` GPUs."""
    for start in range(len(replica.stages)):
        gpus = 0
        for end in range(start + 1, len(replica.stages) + 1):
            gpus += replica.stages[end - 1].gpus
            if gpus > largest:
                break
            yield start, end


def segment(replica: ReplicaTraffic, start: int, end: int) -> ReplicaTraffic:
    """A run of stages as traffic of its own."""
    hops = replica.hops_bytes[start : end - 1]
    return ReplicaTraffic(replica.stages[start:end], hops, replica.weight)


def _mean_all_to_all(
    gpus: int, nodes: int, room: int, inside: int, same: int, cross: int
) -> int:
    """Least mean cost of a rank over ``nodes`` nodes with ``room`` GPUs each.

    The slowest rank is at least the mean. Peers in the node are most when the nodes
    are filled one by one; peers on a rank's rail are at most one per other node.
    """
    if nodes * room < gpus:
        return gpus * max(inside, same, cross)  # not on so few nodes
    left, squares = gpus - nodes, 0
    for _ in range(nodes):
        more = min(left, room - 1)
        left -= more
        squares += (1 + more) ** 2
    near, rail = squares - gpus, gpus * (nodes - 1)
    far = max(0, gpus * (gpus - 1) - near - rail)
    rail = gpus * (gpus - 1) - near - far
    inside, same = min(inside, same), min(same, cross)
    return -(-(near * inside + rail * same + far * cross) // gpus)
