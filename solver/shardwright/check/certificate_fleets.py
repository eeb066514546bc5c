"""Whether replicas that earn nearly their price make up a fleet: exactly, by search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from shardwright.check.certificate_labels import Segments

MOST_NODES = 300_000

Room = tuple[tuple[tuple[int, int], ...], ...]
"""Per type: sorted (free GPUs, islands with as many)."""


class TooManyFleets(Exception):
    """More partial fleets than are tried."""


@dataclass(frozen=True)
class Column:
    """A kind of replica and the most that one earns, in mtok/s."""

    rate: int
    segments: Segments
    gpus: int
    cost: int


@dataclass
class FleetSearch:
    """Is there a fleet that earns ``rate`` mtok/s within GPUs and cost?

    worth: what GPUs free on islands, and GPUs and cost unspent, can still earn at most,
    in mtok/s. Raises TooManyFleets.
    """

    columns: list[Column]
    rate: int
    worth: Callable[[Room, int, int], int]
    nodes: int = 0
    _best: dict[tuple[int, Room, int, int], int] = field(default_factory=dict)

    def exists(self, room: Room, gpus: int, cost: int) -> bool:
        """Whether there is one."""
        self.columns.sort(key=lambda c: (-c.rate, c.segments))
        try:
            return self._from(0, room, gpus, cost, 0)
        except RecursionError as error:
            raise TooManyFleets from error

    def _from(self, at: int, room: Room, gpus: int, cost: int, earned: int) -> bool:
        if earned >= self.rate:
            return True
        if at == len(self.columns) or earned + self.worth(room, gpus, cost) < self.rate:
            return False
        key = at, room, gpus, cost
        if self._best.get(key, -1) >= earned:
            return False
        self._best[key] = earned
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise TooManyFleets
        column = self.columns[at]
        if column.gpus <= gpus and column.cost <= cost:
            spent = gpus - column.gpus, cost - column.cost
            for left in _placings(room, column.segments):
                if self._from(at, left, *spent, earned + column.rate):
                    return True
        return self._from(at + 1, room, gpus, cost, earned)


def _placings(room: Room, segments: Segments) -> set[Room]:
    """What is free after segments are placed, in every way that differs."""
    found = {room}
    for k, size in segments:
        found = {left for one in found for left in _placed(one, k, size)}
    return found


def _placed(room: Room, k: int, size: int) -> list[Room]:
    found = []
    for free, islands in room[k]:
        if free >= size:
            counts = dict(room[k])
            counts[free] -= 1
            counts[free - size] = counts.get(free - size, 0) + 1
            kept = tuple(sorted((f, n) for f, n in counts.items() if f and n))
            found.append((*room[:k], kept, *room[k + 1 :]))
        assert islands
    return found
