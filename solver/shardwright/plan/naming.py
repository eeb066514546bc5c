"""Naming: which concrete GPUs hold the segments that a search only counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shardwright.problem import (
    Design,
    Figures,
    Fleet,
    PlacedReplica,
    Problem,
    crossings_of,
)
from shardwright.schema.errors import SolverFailure


@dataclass(frozen=True)
class NamedStage:
    """Islands of a stage (indices into the problem), and its GPUs on each."""

    islands: tuple[int, ...]
    gpus: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class NamedReplica:
    """A design whose crossings are those of its actual islands, and its GPUs."""

    design: Design
    stages: tuple[NamedStage, ...]


def stage_islands(placed: PlacedReplica) -> list[tuple[int, ...]]:
    """The islands of every stage."""
    runs = placed.design.segment_runs()
    pairs = zip(placed.islands, runs, strict=True)
    return [islands for islands, run in pairs for _ in run]


def settle(problem: Problem, fleet: Fleet) -> Fleet:
    """The fleet with crossings as its islands have them, largest rate first.

    Neighbouring segments that landed on one island become one segment.
    """
    replicas = [_settled(placed) for placed in fleet.replicas]
    rated = {design: problem.rated(design) for design in {r.design for r in replicas}}
    order = sorted(replicas, key=lambda r: _order(r, rated[r.design]))
    return Fleet(tuple(order))


def _settled(placed: PlacedReplica) -> PlacedReplica:
    islands = stage_islands(placed)
    crossings = crossings_of(islands)
    design = replace(placed.design, crossings=crossings)
    firsts = [run[0] for run in design.segment_runs()]
    return PlacedReplica(design, tuple(islands[i] for i in firsts))


def _order(placed: PlacedReplica, figures: Figures) -> tuple[object, ...]:
    design = placed.design
    stages = tuple((s.unit, s.start, s.end) for s in design.stages)
    first = (-figures.rate_mtok_per_s, figures.tpot_ns)
    return (*first, stages, design.point, placed.islands)


def name_gpus(problem: Problem, settled: Fleet) -> list[NamedReplica]:
    """Concrete GPUs for a settled fleet, in its order."""
    free = _FreeGpus(problem)
    return [_named(problem, free, placed) for placed in settled.replicas]


def _named(problem: Problem, free: _FreeGpus, placed: PlacedReplica) -> NamedReplica:
    stages: list[NamedStage] = []
    for islands, run in zip(placed.islands, placed.design.segment_runs(), strict=True):
        units = [problem.units[placed.design.stages[i].unit] for i in run]
        sizes = [unit.gpus // len(islands) for unit in units]
        taken = [free.take(island, sizes) for island in islands]
        stages += [NamedStage(islands, gpus) for gpus in zip(*taken, strict=True)]
    return NamedReplica(placed.design, tuple(stages))


class _FreeGpus:
    """Free GPU indices of every island, ascending."""

    def __init__(self, problem: Problem) -> None:
        self._nodes = [island.node for island in problem.islands]
        self._free = [sorted(island.gpus) for island in problem.islands]

    def take(self, island: int, sizes: Sequence[int]) -> list[tuple[int, ...]]:
        """GPUs for the consecutive stages of one segment.

        The lowest run of consecutive indices that holds the whole segment; where
        none does, the same stage by stage; else the lowest indices.
        """
        if sum(sizes) > len(self._free[island]):
            raise SolverFailure(
                f"a segment of {sum(sizes)} GPUs was put on an island of node "
                f"{self._nodes[island]} that has {len(self._free[island])} left"
            )
        if lowest_run(self._free[island], sum(sizes)) is None:
            return [self._pick(island, size) for size in sizes]
        segment = self._pick(island, sum(sizes))
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [segment[a : a + n] for a, n in zip(starts, sizes, strict=True)]

    def _pick(self, island: int, size: int) -> tuple[int, ...]:
        free = self._free[island]
        chosen = lowest_run(free, size) or tuple(free[:size])
        self._free[island] = [g for g in free if g not in chosen]
        return chosen


def lowest_run(free: Sequence[int], size: int) -> tuple[int, ...] | None:
    """The lowest ``size`` consecutive indices of an ascending list, if any."""
    for i in range(len(free) - size + 1):
        if free[i + size - 1] - free[i] == size - 1:
            return tuple(free[i : i + size])
    return None
