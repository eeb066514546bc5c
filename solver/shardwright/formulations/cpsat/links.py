"""Can replicas be laid so that their hops are as fast as assumed? (CP-SAT)

Islands are named, replicas counted: x_{g,s,i,j} replicas of group g go from island i
with segment s to island j with segment s + 1, where that link is fast enough; what
enters an island with a segment leaves it, so the counts fall apart into replicas. Any
segments of an island whose GPUs suffice fit on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from shardwright.formulations.cpsat.engine import EngineRun

_MOST = 60_000
"""Variables of a program that is still tried."""

Segment = tuple[int, int]
"""(class, GPUs)."""


@dataclass(frozen=True)
class Group:
    """``count`` replicas with these segments in order, no hop above ``level``."""

    segments: tuple[Segment, ...]
    level: int
    count: int


@dataclass(frozen=True)
class Yard:
    """Islands by (class, free GPUs); ``between`` is the level of a hop."""

    islands: Sequence[Segment]
    between: Callable[[int, int], int]

    def _room(self, segment: Segment) -> list[int]:
        k, size = segment
        return [
            i for i, (c, free) in enumerate(self.islands) if c == k and free >= size
        ]

    def size(self, groups: Sequence[Group]) -> int:
        """Variables of the program."""
        rooms = [[len(self._room(s)) for s in g.segments] for g in groups]
        return sum(r[0] + sum(a * b for a, b in pairwise(r)) for r in rooms)

    def laid(
        self, groups: Sequence[Group], solve: Callable[[Any], EngineRun]
    ) -> list[list[tuple[int, ...]]] | None:
        """Islands of the segments of every replica, by group; None: it cannot be.

        As few slow hops as there can be. Raises TooLarge where that is not tried,
        Undecided where ``solve`` gave up.
        """
        from ortools.sat.python import cp_model

        if self.size(groups) > _MOST:
            raise TooLarge
        model = cp_model.CpModel()
        held: list[list[Any]] = [[] for _ in self.islands]
        flows = [self._flow(model, group, held) for group in groups]
        for (_, free), load in zip(self.islands, held, strict=True):
            model.add(sum(load) <= free)
        slow = [
            (self.between(*pair) - 1) * x
            for flow in flows
            for hop in flow.hops
            for pair, x in hop.items()
            if self.between(*pair) > 1
        ]
        if slow:
            model.minimize(sum(slow))
        outcome = solve(model)
        if not outcome.found:
            if outcome.status.value == "INFEASIBLE":
                return None
            raise Undecided
        return [_taken_apart(flow, outcome) for flow in flows]

    def _flow(self, model: Any, group: Group, held: list[list[Any]]) -> _Flow:
        rooms = [self._room(segment) for segment in group.segments]
        most = group.count
        first = {i: model.new_int_var(0, most, "") for i in rooms[0]}
        model.add(sum(first.values()) == most)
        hops: list[dict[tuple[int, int], Any]] = []
        at = first
        for s, (_, size) in enumerate(group.segments):
            for i, n in at.items():
                held[i].append(size * n)
            if s + 1 == len(group.segments):
                break
            hop = {
                (i, j): model.new_int_var(0, most, "")
                for i in rooms[s]
                for j in rooms[s + 1]
                if i != j and self.between(i, j) <= group.level
            }
            for i, n in at.items():
                model.add(sum(x for (a, _), x in hop.items() if a == i) == n)
            at = {j: model.new_int_var(0, most, "") for j in rooms[s + 1]}
            for j, n in at.items():
                model.add(sum(x for (_, b), x in hop.items() if b == j) == n)
            hops.append(hop)
        return _Flow(first, hops)


@dataclass(frozen=True)
class _Flow:
    first: dict[int, Any]
    hops: list[dict[tuple[int, int], Any]]


class TooLarge(Exception):
    """Too many pairs of islands."""


class Undecided(Exception):
    """Neither laid nor refuted."""


def _taken_apart(flow: _Flow, outcome: EngineRun) -> list[tuple[int, ...]]:
    """One path per replica."""
    paths: list[tuple[int, ...]] = [
        (i,) for i, n in flow.first.items() for _ in range(outcome.value(n))
    ]
    for hop in flow.hops:
        left = {pair: outcome.value(x) for pair, x in hop.items()}
        longer = []
        for path in paths:
            pair = next(p for p, n in left.items() if n and p[0] == path[-1])
            left[pair] -= 1
            longer.append((*path, pair[1]))
        paths = longer
    return paths
