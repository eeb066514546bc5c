"""Named islands and what still fits on them, for small fleets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

from shardwright.problem import Design, Problem

Segments = tuple[tuple[int, ...], ...]
"""(class, GPUs) of the segments of a design, in order; a stage that spreads over
several islands is a segment (class, GPUs on each, islands)."""

State = tuple[int, ...]
"""Free GPUs of every island; islands of one class are adjacent and sorted."""


def ordered_segments(problem: Problem, design: Design) -> Segments:
    """Segments of a design from its first stage to its last."""
    found: list[tuple[int, ...]] = []
    for run in design.segment_runs():
        units = [problem.units[design.stages[i].unit] for i in run]
        spread, size = units[0].islands, sum(u.gpus for u in units)
        own = (size,) if spread == 1 else (size // spread, spread)
        found.append((units[0].gpu_class, *own))
    return tuple(found)


def _homes(
    segment: tuple[int, ...], islands: Sequence[int], previous: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    """Choices of islands for a segment; neighbours share none."""
    spread = segment[2] if len(segment) > 2 else 1
    return combinations([i for i in islands if i not in previous], spread)


@dataclass(frozen=True)
class Yard:
    """Packs ordered segments on islands; neighbours take different islands."""

    problem: Problem
    _known: dict[tuple[Segments, State], frozenset[State]] = field(default_factory=dict)

    @cached_property
    def _groups(self) -> list[range]:
        """Positions in a state of the islands of every class."""
        groups, begin = [], 0
        for k in range(len(self.problem.classes)):
            count = sum(i.gpu_class == k for i in self.problem.islands)
            groups.append(range(begin, begin + count))
            begin += count
        return groups

    @cached_property
    def empty(self) -> State:
        """The state without any replica."""
        frees = [
            sorted(i.free for i in self.problem.islands if i.gpu_class == k)
            for k in range(len(self.problem.classes))
        ]
        return tuple(free for group in frees for free in group)

    def fits(self, segments: Segments) -> bool:
        """Whether one replica fits an empty cluster."""
        return bool(self.after(segments, self.empty))

    def after_any(
        self, segments: Segments, states: frozenset[State]
    ) -> frozenset[State]:
        """States reachable by placing one replica in any of ``states``."""
        return frozenset().union(*(self.after(segments, s) for s in states))

    def after(self, segments: Segments, state: State) -> frozenset[State]:
        """States reachable by placing one replica, up to equal islands."""
        key = (segments, state)
        if key not in self._known:
            found = self._place(segments, list(state), ())
            self._known[key] = frozenset(map(self._sorted, found))
        return self._known[key]

    def _place(
        self, segments: Segments, free: list[int], previous: tuple[int, ...]
    ) -> Iterator[State]:
        if not segments:
            yield tuple(free)
            return
        gpu_class, size = segments[0][:2]
        room = [i for i in self._groups[gpu_class] if free[i] >= size]
        for homes in _homes(segments[0], room, previous):
            for i in homes:
                free[i] -= size
            yield from self._place(segments[1:], free, homes)
            for i in homes:
                free[i] += size

    def _sorted(self, state: State) -> State:
        ordered = (sorted(state[g.start : g.stop]) for g in self._groups)
        return tuple(free for group in ordered for free in group)


def name_islands(
    problem: Problem, replicas: Sequence[Segments]
) -> list[tuple[tuple[int, ...], ...]] | None:
    """Islands of every segment of every replica; None when they do not pack."""
    free = [island.free for island in problem.islands]
    flat = [
        (segment, position == 0)
        for segments in replicas
        for position, segment in enumerate(segments)
    ]
    chosen = _name(problem, flat, free, [])
    if chosen is None:
        return None
    rest = iter(chosen)
    return [tuple(next(rest) for _ in segments) for segments in replicas]


def _name(
    problem: Problem,
    flat: list[tuple[tuple[int, ...], bool]],
    free: list[int],
    chosen: list[tuple[int, ...]],
) -> list[tuple[int, ...]] | None:
    if len(chosen) == len(flat):
        return chosen
    segment, opens = flat[len(chosen)]
    gpu_class, size = segment[:2]
    room = [
        i
        for i, island in enumerate(problem.islands)
        if island.gpu_class == gpu_class and free[i] >= size
    ]
    for homes in _homes(segment, room, () if opens else chosen[-1]):
        for i in homes:
            free[i] -= size
        found = _name(problem, flat, free, [*chosen, homes])
        for i in homes:
            free[i] += size
        if found is not None:
            return found
    return None
