"""From chosen columns and patterns to replicas on named islands."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from shardwright.formulations.cpsat.patterns import IslandType, Pattern
from shardwright.problem import Fleet, PlacedReplica, Problem, crossings_of
from shardwright.search.columns import Entry

UsedPatterns = list[tuple[IslandType, Pattern, int]]
"""Island type, pattern, and how many islands follow it."""

Slots = dict[tuple[int, int], list[int]]
"""(class, GPUs) of a part -> islands with room for one such part each."""


def place(
    problem: Problem,
    entries: list[Entry],
    patterns: UsedPatterns,
) -> Fleet:
    """Give every part of every replica an island of the patterns in use."""
    slots = _slots(problem, patterns)
    return Fleet(tuple(_place_one(problem, entry, slots) for entry in entries))


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
    parts = [
        slots[part.gpu_class, sum(problem.units[u].gpus for u in part.units)].pop()
        for part in entry.composition.parts
    ]
    stage_islands = [parts[home] for home in entry.homes]
    crossings = crossings_of(stage_islands)
    design = replace(entry.design, crossings=crossings)
    starts = [stage_islands[run[0]] for run in design.segment_runs()]
    return PlacedReplica(design, tuple(starts))
