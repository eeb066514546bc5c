"""Few GPUs: every placement is covered, so the end is a proof."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from shardwright.formulations.dp.placement import (
    Choice,
    Combination,
    GpuSet,
    Path,
    Paths,
    path_work,
)
from shardwright.formulations.dp.placement_coupled import Coupled
from shardwright.problem.linkcost import exact_on_meshes
from shardwright.problem.traffic import ReplicaTraffic
from shardwright.search.placement_order import polished, rank_order
from shardwright.search.placement_types import Goals, Named, PlacementCase

_MOST_GPUS = 16
_MOST_WORK = 400_000
_MOST_LAYOUTS = 60_000
_MOST_TIES = 20_000

Proved = tuple[Named, Goals]
"""An assignment and the bounds proven for the three goals."""


def exact_work_fits(case: PlacementCase) -> bool:
    """Whether the case is small enough to be covered completely."""
    usable, traffic = len(case.topology.usable), case.traffic
    kinds = set(traffic.replicas)
    exact = all(exact_on_meshes(stage) for kind in kinds for stage in kind.stages)
    if usable > _MOST_GPUS or not exact:
        return False
    if sum(path_work(usable, replica) for replica in kinds) > _MOST_WORK:
        return False
    if traffic.coupled:
        return _layouts(case) <= _MOST_LAYOUTS
    states, free, work = 1, usable, 0
    for replica in traffic.replicas:
        states = min(states * comb(free, replica.gpus), comb(usable, free))
        work += states * comb(usable, replica.gpus)
        free -= replica.gpus
    return work <= _MOST_WORK


def _layouts(case: PlacementCase) -> int:
    """Choices that the enumeration of coupled replicas may visit."""
    free, work = len(case.topology.usable), 1
    for replica in case.traffic.replicas:
        parts = replica.stages if case.traffic.peers else (replica,)
        for part in parts:
            work *= comb(free, part.gpus)
            free -= part.gpus
    return work


def solve_exactly(case: PlacementCase) -> Proved | None:
    """The optimum of all goals; None if nothing fits."""
    gpus = GpuSet(case.costs, case.topology.usable)
    paths = _paths(gpus, case.traffic.replicas)
    if case.traffic.coupled:
        return _coupled(case, paths)
    together = Combination(paths, case.traffic.combine == "max")
    best = together.best()
    if best is None:
        return None
    chosen: Choice = ()
    exposure, ended = 0, True
    for i, masks in enumerate(together.choices(best)):
        value = case.exposure([gpus.of(mask) for mask in masks])
        if not chosen or value < exposure:
            chosen, exposure = masks, value
        if exposure == case.least_exposure:
            break
        if i >= _MOST_TIES:
            ended = False
            break
    layout = [path.path(mask) for path, mask in zip(paths, chosen, strict=True)]
    bound = exposure if ended else case.least_exposure
    return named_layout(case, gpus, layout), (*best, bound)


def _paths(gpus: GpuSet, replicas: Sequence[ReplicaTraffic]) -> list[Paths]:
    """One dynamic program per kind of replica."""
    known = {replica: Paths(gpus, replica) for replica in set(replicas)}
    return [known[replica] for replica in replicas]


def _coupled(case: PlacementCase, paths: list[Paths]) -> Proved | None:
    gpus = paths[0].gpus
    search = Coupled(
        case.traffic,
        paths,
        lambda masks: case.exposure([gpus.of(mask) for mask in masks]),
    )
    search.solve()
    if search.best is None:
        return None
    return named_layout(case, gpus, search.found), search.best


def named_layout(case: PlacementCase, gpus: GpuSet, layout: Sequence[Path]) -> Named:
    """Masks of stages as GPUs in rank order."""
    named = tuple(
        rank_order(case.costs, replica, [gpus.of(mask) for mask in path])
        for replica, path in zip(case.traffic.replicas, layout, strict=True)
    )
    groups = any(s.inner < s.gpus for r in case.traffic.replicas for s in r.stages)
    if case.traffic.peers or groups:  # one order has to suit several partners
        return polished(case.costs, case.traffic, named)
    return named
