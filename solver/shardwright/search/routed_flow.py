"""The most flow of a placement, exact in utok/s, and the routes that carry it.

Nodes are split in two with the node's rate between; links join a node that ends where
another begins. Dinic's algorithm: shortest routes are filled first.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from shardwright.problem.routed import SINK, SOURCE, Placement, RoutedProblem

Hop = tuple[int, int]


@dataclass(frozen=True)
class RoutedFlow:
    """Routes (nodes by index, in order) with their utok/s; the sum is the value."""

    routes: tuple[tuple[tuple[int, ...], int], ...]

    @property
    def value(self) -> int:
        """utok/s over all routes."""
        return sum(rate for _, rate in self.routes)

    @property
    def stages(self) -> int:
        """Stages of the longest route."""
        return max((len(nodes) for nodes, _ in self.routes), default=0)

    @property
    def hop_by_hop_stages(self) -> int:
        """Longest way through links that carry flow, whoever chooses the next hop."""
        after: dict[int, set[int]] = {}
        for nodes, _ in self.routes:
            for a, b in itertools.pairwise(nodes):
                after.setdefault(a, set()).add(b)
        longest: dict[int, int] = {}

        def length(node: int) -> int:
            if node not in longest:
                ahead = (length(b) for b in after.get(node, ()))
                longest[node] = 1 + max(ahead, default=0)
            return longest[node]

        return max((length(nodes[0]) for nodes, _ in self.routes), default=0)


def usable_links(problem: RoutedProblem, placement: Placement) -> dict[Hop, int]:
    """Links whose ends fit: coordinator to layer 0, end to start, end to the sink."""
    begins: dict[int, list[int]] = {}
    for node, (start, _) in placement.items():
        begins.setdefault(start, []).append(node)
    pairs = [(SOURCE, node) for node in begins.get(0, ())]
    for node, (start, held) in placement.items():
        end = start + held
        if end == problem.layers:
            pairs.append((node, SINK))
        pairs += [(node, other) for other in begins.get(end, ())]
    return {pair: problem.links[pair] for pair in pairs if pair in problem.links}


def max_flow(problem: RoutedProblem, placement: Placement) -> RoutedFlow:
    """The most flow and routes for it."""
    network = _Network()
    links = usable_links(problem, placement)
    for node, (_, held) in placement.items():
        network.add(("in", node), ("out", node), problem.rate(node, held))
    for (a, b), rate in links.items():
        network.add(("out", a), ("in", b), rate)
    network.fill(("out", SOURCE), ("in", SINK))
    carried = {(a, b): network.carried(("out", a), ("in", b)) for a, b in links}
    return RoutedFlow(tuple(_routes({hop: f for hop, f in carried.items() if f > 0})))


def _routes(carried: dict[Hop, int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Take the flow apart: every route empties at least one link."""
    after: dict[int, list[int]] = {}
    for a, b in sorted(carried):
        after.setdefault(a, []).append(b)
    while after.get(SOURCE):
        hops, here = [], SOURCE
        while here != SINK:
            hops.append((here, after[here][0]))
            here = after[here][0]
        rate = min(carried[hop] for hop in hops)
        for a, b in hops:
            carried[a, b] -= rate
            if not carried[a, b]:
                after[a].remove(b)
        yield tuple(b for _, b in hops[:-1]), rate


Vertex = tuple[str, int]


class _Network:
    """Residual capacities, and Dinic's phases on them."""

    def __init__(self) -> None:
        self._room: dict[Vertex, dict[Vertex, int]] = {}
        self._rate: dict[tuple[Vertex, Vertex], int] = {}

    def add(self, a: Vertex, b: Vertex, rate: int) -> None:
        self._room.setdefault(a, {})[b] = rate
        self._room.setdefault(b, {}).setdefault(a, 0)
        self._rate[a, b] = rate

    def carried(self, a: Vertex, b: Vertex) -> int:
        return self._rate[a, b] - self._room[a][b]

    def fill(self, source: Vertex, sink: Vertex) -> None:
        if source not in self._room or sink not in self._room:
            return
        while levels := self._levels(source, sink):
            ahead = {v: list(self._room[v]) for v in levels}
            while self._push(source, sink, levels, ahead):
                pass

    def _levels(self, source: Vertex, sink: Vertex) -> dict[Vertex, int]:
        levels, queue = {source: 0}, deque([source])
        while queue:
            v = queue.popleft()
            for w, room in self._room[v].items():
                if room and w not in levels:
                    levels[w] = levels[v] + 1
                    queue.append(w)
        return levels if sink in levels else {}

    def _push(
        self,
        source: Vertex,
        sink: Vertex,
        levels: dict[Vertex, int],
        ahead: dict[Vertex, list[Vertex]],
    ) -> int:
        """One augmenting path along the levels; dead ends are forgotten."""
        path = [source]
        while path[-1] != sink:
            v = path[-1]
            while ahead[v] and not self._open(v, ahead[v][-1], levels):
                ahead[v].pop()
            if ahead[v]:
                path.append(ahead[v][-1])
            elif v == source:
                return 0
            else:
                path.pop()
                ahead[path[-1]].pop()
        hops = list(itertools.pairwise(path))
        rate = min(self._room[a][b] for a, b in hops)
        for a, b in hops:
            self._room[a][b] -= rate
            self._room[b][a] += rate
        return rate

    def _open(self, v: Vertex, w: Vertex, levels: dict[Vertex, int]) -> bool:
        return bool(self._room[v][w]) and levels.get(w) == levels[v] + 1
