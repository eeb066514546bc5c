"""Fewer replicas per failure domain: moves that leave cost and nodes as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from shardwright.problem.topology import Gpu
from shardwright.search.placement_types import Named, PlacementCase


@dataclass
class Balancer:
    """Moves replicas of one node, all GPUs alike, to equal nodes of other domains."""

    case: PlacementCase
    named: list[tuple[Gpu, ...]]
    held: dict[str, set[int]] = field(default_factory=dict)
    free: dict[str, dict[int, list[Gpu]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        topology = self.case.topology
        used = {gpu for gpus in self.named for gpu in gpus}
        for node in range(len(topology.nodes)):
            self.held.setdefault(topology.domain(node), set())
        for gpu in topology.usable:
            if gpu not in used:
                home = self.free.setdefault(topology.domain(gpu[0]), {})
                home.setdefault(gpu[0], []).append(gpu)
        for r, gpus in enumerate(self.named):
            for node in {node for node, _ in gpus}:
                self.held[topology.domain(node)].add(r)

    def balanced(self) -> Named:
        """The assignment after all moves that lower the fullest domains."""
        while True:
            most = max(map(len, self.held.values()))
            full = [d for d, own in self.held.items() if len(own) == most]
            if not all(self._relieved(domain, most) for domain in full):
                return tuple(self.named)

    def _relieved(self, domain: str, most: int) -> bool:
        for r in sorted(self.held[domain]):
            for target, node in self._targets(r, most):
                self._move(r, domain, target, node)
                return True
        return False

    def _targets(self, r: int, most: int) -> Iterator[tuple[str, int]]:
        """Equal nodes with room, in domains that stay below ``most``."""
        topology, gpus = self.case.topology, self.named[r]
        node = gpus[0][0]
        if any(n != node for n, _ in gpus) or not topology.shape_of(node).uniform:
            return
        for domain in sorted(self.free, key=lambda d: (len(self.held[d]), d)):
            if len(self.held[domain]) > most - 2:
                return
            for other, room in sorted(self.free[domain].items()):
                alike = topology.nodes[other].shape == topology.nodes[node].shape
                if alike and len(room) >= len(gpus):
                    yield domain, other

    def _move(self, r: int, domain: str, target: str, node: int) -> None:
        old, room = self.named[r], self.free[target][node]
        self.named[r] = tuple(room[: len(old)])
        self.free[target][node] = room[len(old) :]
        home = self.free.setdefault(domain, {})
        home[old[0][0]] = sorted([*home.get(old[0][0], []), *old])
        self.held[domain].remove(r)
        self.held[target].add(r)
