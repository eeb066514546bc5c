"""From chosen columns and patterns to replicas on named islands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shardwright.formulations.cpsat.patterns import IslandType, Pattern
from shardwright.problem import Fleet, PlacedReplica, Problem
from shardwright.search.chunks import ChunkGroups
from shardwright.search.columns import Entry
from shardwright.search.compositions import Part


@dataclass(frozen=True)
class Laid:
    """Islands of every replica's parts, in the order that its stages meet them."""

    islands: tuple[tuple[int, ...], ...]


UsedPatterns = list[tuple[IslandType, Pattern, int]]
"""Island type, pattern, and how many islands follow it."""

Slots = dict[tuple[int, int], list[int]]
"""(class, GPUs) of a part -> islands with room for one such part each."""


def place(
    problem: Problem,
    chunks: ChunkGroups,
    entries: list[Entry],
    patterns: UsedPatterns | Laid,
) -> Fleet:
    """Give every part of every replica an island of the patterns in use.

    Or those where it was laid.

    Among prefill chunks that leave TPOT alone, each replica takes the one of least
    TTFT.
    """
    if isinstance(patterns, Laid):
        pairs = zip(entries, patterns.islands, strict=True)
        placed = [_on_islands(problem, e, _by_part(e, at)) for e, at in pairs]
    else:
        slots = _slots(problem, patterns)
        placed = [_place_one(problem, entry, slots) for entry in entries]
    least = {d: chunks.least_ttft(d) for d in {r.design for r in placed}}
    return Fleet(tuple(replace(r, design=least[r.design]) for r in placed))


def _slots(problem: Problem, patterns: UsedPatterns) -> Slots:
    slots: Slots = defaultdict(list)
    unused = {kind: list(reversed(ids)) for kind, ids in problem.island_types.items()}
    for kind, pattern, count in patterns:
        for _ in range(count):
            island = unused[kind].pop()
            for size in pattern:
                slots[kind[0], size].append(island)
    return {key: sorted(islands, reverse=True) for key, islands in slots.items()}


def _place_one(problem: Problem, entry: Entry, slots: Slots) -> PlacedReplica:
    """Neighbours that land on one island join: their hop does not leave it."""
    parts = [_take(problem, part, slots) for part in entry.composition.parts]
    return _on_islands(problem, entry, parts)


def _by_part(entry: Entry, met: tuple[int, ...]) -> list[tuple[int, ...]]:
    order = list(dict.fromkeys(entry.homes))
    return [(met[order.index(part)],) for part in range(len(order))]


def _on_islands(
    problem: Problem, entry: Entry, parts: list[tuple[int, ...]]
) -> PlacedReplica:
    assert entry.design is not None
    stage_islands = [parts[home] for home in entry.homes]
    crossings = problem.crossings(stage_islands)
    design = replace(entry.design, crossings=crossings)
    starts = [stage_islands[run[0]] for run in design.segment_runs()]
    return PlacedReplica(design, tuple(starts))


def _take(problem: Problem, part: Part, slots: Slots) -> tuple[int, ...]:
    """An island with a slot for every place of a part, no island twice."""
    islands = problem.units[part.units[0]].islands
    gpus = sum(problem.units[u].gpus for u in part.units)
    room = slots[part.gpu_class, gpus // islands]
    taken = list(dict.fromkeys(reversed(room)))[:islands]
    for island in taken:
        room.remove(island)
    return tuple(sorted(taken))


def unknown_of(entries: Sequence[Entry]) -> list[Entry]:
    """Distinct columns that are only bounded."""
    return list({id(e): e for e in entries if e.design is None}.values())
