"""From chosen columns and patterns to replicas on named islands."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from shardwright.formulations.cpsat.patterns import IslandType, Pattern
from shardwright.problem import Fleet, PlacedReplica, Problem, crossings_of
from shardwright.search.chunks import ChunkGroups
from shardwright.search.columns import Entry
from shardwright.search.compositions import Part

UsedPatterns = list[tuple[IslandType, Pattern, int]]
"""Island type, pattern, and how many islands follow it."""

Slots = dict[tuple[int, int], list[int]]
"""(class, GPUs) of a part -> islands with room for one such part each."""


def place(
    problem: Problem,
    chunks: ChunkGroups,
    entries: list[Entry],
    patterns: UsedPatterns,
) -> Fleet:
    """Give every part of every replica an island of the patterns in use.

    Among prefill chunks that leave TPOT alone, each replica takes the one of least
    TTFT.
    """
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
    assert entry.design is not None
    parts = [_take(problem, part, slots) for part in entry.composition.parts]
    stage_islands = [parts[home] for home in entry.homes]
    crossings = crossings_of(stage_islands)
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
