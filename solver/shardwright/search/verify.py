"""Nothing leaves a solver unverified: structure, rules and values, in exact ints."""

from __future__ import annotations

from itertools import pairwise

from shardwright.problem import Design, Fleet, PlacedReplica, Problem
from shardwright.schema.errors import SolverFailure
from shardwright.schema.result import Status, StoppedBy
from shardwright.search.base import SearchOutcome
from shardwright.search.goals import fleet_fits, fleet_values


def well_formed(problem: Problem, design: Design) -> bool:
    """Rules layers_covered, max_pipeline_stages, micro_batches_equal_stages,
    equal_shape_per_stage, fix, and crossings between different classes."""
    stages = design.stages
    starts = [0, *(s.end for s in stages)]
    classes = [problem.units[s.unit].gpu_class for s in stages]
    split = problem.bounds.split
    return (
        starts[-1] == problem.layers
        and all(s.start == b < s.end for s, b in zip(stages, starts, strict=False))
        and len(stages) in problem.stage_counts(design.point)
        and (split is None or split == tuple(s.end - s.start for s in stages))
        and all(problem.may_join(stages[0].unit, s.unit) for s in stages)
        and all(problem.may_hold(s.unit, s.start, s.end) for s in stages)
        and len(design.crossings) == len(stages) - 1
        and all(
            cross or a == b
            for a, b, cross in zip(
                classes[:-1], classes[1:], design.crossings, strict=True
            )
        )
    )


def _placed_as_designed(problem: Problem, replica: PlacedReplica) -> bool:
    """One island per segment, and a crossing really leaves its island."""
    islands = replica.islands
    return len(islands) == len(replica.design.segment_runs()) and all(
        a != b for a, b in pairwise(islands)
    )


def verified(
    solver: str,
    problem: Problem,
    fleet: Fleet,
    status: Status,
    stopped_by: StoppedBy,
    bounds: tuple[int | None, ...] | None = None,
    model_size: dict[str, int] | None = None,
) -> SearchOutcome:
    """The outcome of a fleet that keeps every rule; a SolverFailure otherwise.

    Without ``bounds`` an OPTIMAL fleet's values are its bounds, and nothing is
    proven about another.
    """
    for replica in fleet.replicas:
        if not well_formed(problem, replica.design):
            raise SolverFailure(f"{solver} built an impossible design: {replica}")
        if not _placed_as_designed(problem, replica):
            raise SolverFailure(f"{solver} misplaced the segments of {replica}")
    if not fleet_fits(problem, fleet):
        raise SolverFailure(f"{solver} returned a fleet that breaks a rule: {fleet}")
    values = fleet_values(problem, fleet)
    if bounds is None:
        proven = status is Status.OPTIMAL
        bounds = values if proven else (None,) * len(values)
    if status is Status.OPTIMAL and bounds != values:
        raise SolverFailure(f"{solver} proved {bounds}, its fleet has {values}")
    return SearchOutcome(
        status, stopped_by, fleet, values, bounds, model_size=model_size or {}
    )
