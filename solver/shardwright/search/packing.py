"""Named islands and what still fits on them, for small fleets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from shardwright.problem import Design, Problem

Segments = tuple[tuple[int, int], ...]
"""(class, GPUs) of the segments of a design, in order."""

State = tuple[int, ...]
"""Free GPUs of every island; islands of one class are adjacent and sorted."""


def ordered_segments(problem: Problem, design: Design) -> Segments:
    """Segments of a design from its first stage to its last."""
    found = []
    for run in design.segment_runs():
        units = [problem.units[design.stages[i].unit] for i in run]
        found.append((units[0].gpu_class, sum(u.gpus for u in units)))
    return tuple(found)


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
            found = self._place(segments, list(state), -1)
            self._known[key] = frozenset(map(self._sorted, found))
        return self._known[key]

    def _place(
        self, segments: Segments, free: list[int], previous: int
    ) -> Iterator[State]:
        if not segments:
            yield tuple(free)
            return
        gpu_class, size = segments[0]
        for i in self._groups[gpu_class]:
            if i != previous and free[i] >= size:
                free[i] -= size
                yield from self._place(segments[1:], free, i)
                free[i] += size

    def _sorted(self, state: State) -> State:
        ordered = (sorted(state[g.start : g.stop]) for g in self._groups)
        return tuple(free for group in ordered for free in group)


def name_islands(
    problem: Problem, replicas: Sequence[Segments]
) -> list[tuple[int, ...]] | None:
    """Islands of every segment of every replica; None when they do not pack."""
    free = [island.free for island in problem.islands]
    flat = [
        (k, size, position == 0)
        for segments in replicas
        for position, (k, size) in enumerate(segments)
    ]
    chosen = _name(problem, flat, free, [])
    if chosen is None:
        return None
    rest = iter(chosen)
    return [tuple(next(rest) for _ in segments) for segments in replicas]


def _name(
    problem: Problem,
    flat: list[tuple[int, int, bool]],
    free: list[int],
    chosen: list[int],
) -> list[int] | None:
    if len(chosen) == len(flat):
        return chosen
    gpu_class, size, opens = flat[len(chosen)]
    for i, island in enumerate(problem.islands):
        follows = not opens and chosen[-1] == i
        if island.gpu_class != gpu_class or free[i] < size or follows:
            continue
        free[i] -= size
        found = _name(problem, flat, free, [*chosen, i])
        free[i] += size
        if found is not None:
            return found
    return None
