"""What a placement is asked and what it returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from shardwright.problem.linkcost import LinkCosts
from shardwright.problem.topology import Gpu, Topology
from shardwright.problem.traffic import Traffic
from shardwright.schema.result import Status, StoppedBy

Named = tuple[tuple[Gpu, ...], ...]
"""GPUs of every replica, in rank order."""

Goals = tuple[int, int, int]
GOALS = ("link cost, ns", "nodes of all replicas", "replicas that one domain holds")


@dataclass(frozen=True)
class Unrealisable:
    """An assumption of the search that the placement does not keep.

    ``part`` is ``stage 2`` or ``hop 2`` (from stage 2 to 3) of a replica. ``proven``:
    no placement keeps it, not even of this replica alone on the free cluster.
    """

    replica: int
    part: str
    assumed_ns: int
    found_ns: int
    proven: bool


@dataclass(frozen=True)
class PlacementResult:
    """The best assignment found and what was proven about it.

    ``values`` and ``bounds`` hold the three goals in the order of GOALS; both are
    empty without an assignment. Each bound is proven given the values of the goals
    before it. OPTIMAL: bounds equal values. ``proven_goals`` says how many leading
    goals are proven. ``refuted``: no placement keeps all that was assumed.
    """

    status: Status
    stopped_by: StoppedBy
    assignment: Named = ()
    values: tuple[int, ...] = ()
    bounds: tuple[int, ...] = ()
    seconds: float = 0.0
    method: str = ""
    unrealisable: tuple[Unrealisable, ...] = ()
    refuted: bool = False
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def cost(self) -> int | None:
        """Link cost of the assignment, ns per iteration."""
        return self.values[0] if self.values else None

    @property
    def bound(self) -> int | None:
        """Proven least link cost, ns per iteration."""
        return self.bounds[0] if self.bounds else None

    @property
    def gap(self) -> float | None:
        """(cost - bound) / cost; 0 for a cost of 0."""
        if not self.values:
            return None
        return (self.values[0] - self.bounds[0]) / max(self.values[0], 1)

    @property
    def proven_goals(self) -> int:
        """How many goals, from the first on, are proven."""
        pairs = zip(self.values, self.bounds, strict=True)
        for i, (value, bound) in enumerate(pairs):
            if value != bound:
                return i
        return len(self.values)


@dataclass(frozen=True)
class PlacementCase:
    """A topology, a traffic, and what every method needs of them."""

    topology: Topology
    traffic: Traffic

    @cached_property
    def costs(self) -> LinkCosts:
        """Link costs, remembered for the whole search."""
        return LinkCosts(self.topology)

    def goals(self, named: Sequence[Sequence[Gpu]]) -> Goals:
        """Cost, nodes and exposure of an assignment in its order of ranks."""
        nodes = sum(len({node for node, _ in gpus}) for gpus in named)
        return self.costs.total(self.traffic, named), nodes, self.exposure(named)

    def exposure(self, named: Sequence[Sequence[Gpu]]) -> int:
        """Most replicas that one failure domain holds a part of."""
        domain = self.topology.domain
        touched = [d for gpus in named for d in {domain(node) for node, _ in gpus}]
        return max(Counter(touched).values())

    @cached_property
    def free_by_type(self) -> Counter[str]:
        """Usable GPUs of every type."""
        found: Counter[str] = Counter()
        for i, node in enumerate(self.topology.nodes):
            found[self.topology.shape_of(i).gpu_type] += len(node.usable)
        return found

    @cached_property
    def short(self) -> bool:
        """Whether the cluster has too few usable GPUs (of a type)."""
        wanted: Counter[str | None] = Counter()
        for replica in self.traffic.replicas:
            for stage in replica.stages:
                wanted[stage.gpu_type] += stage.gpus
        typed = any(
            count > self.free_by_type[kind]
            for kind, count in wanted.items()
            if kind is not None
        )
        return typed or wanted.total() > self.free_by_type.total()

    @cached_property
    def least_nodes(self) -> int:
        """Nodes that the replicas need at least.

        Each alone on the free cluster; and of those that would fill the largest
        nodes completely, only as many as there are such nodes.
        """
        rooms = sorted((len(node.usable) for node in self.topology.nodes), reverse=True)
        sizes = [r.gpus for r in self.traffic.replicas]
        full = rooms.count(rooms[0])
        filling = sorted(n // rooms[0] for n in sizes if n % rooms[0] == 0)
        pairs = zip(filling, accumulate(filling), strict=True)
        torn = sum(1 for own, nodes in pairs if own <= full < nodes)
        return sum(_fewest(rooms, n) for n in sizes) + torn

    @cached_property
    def least_exposure(self) -> int:
        """Least possible exposure: parts of replicas spread over all domains."""
        room: Counter[str] = Counter()
        for i, node in enumerate(self.topology.nodes):
            room[self.topology.domain(i)] += len(node.usable)
        rooms = sorted(room.values(), reverse=True)
        parts = sum(_fewest(rooms, r.gpus) for r in self.traffic.replicas)
        for most in range(1, len(self.traffic.replicas) + 1):
            if sum(min(most, r) for r in rooms) >= parts:
                return most
        return len(self.traffic.replicas)


def _fewest(rooms: Sequence[int], gpus: int) -> int:
    """How many of the largest rooms hold these GPUs."""
    for count, room in enumerate(rooms, start=1):
        gpus -= room
        if gpus <= 0:
            return count
    return len(rooms)
