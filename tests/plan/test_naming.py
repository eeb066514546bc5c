"""Naming: concrete GPUs for counted segments."""

from __future__ import annotations

import pytest
from tests.plan.cases import design, instance, mixed_cluster

from shardwright.plan.naming import lowest_run, name_gpus, settle
from shardwright.problem import Fleet, PlacedReplica, Problem, compile_problem
from shardwright.schema.errors import SolverFailure


@pytest.fixture
def mixed() -> Problem:
    return compile_problem(
        instance(
            cluster=mixed_cluster(),
            engine={"name": "generic"},
            grid={"sequences": [8, 32, 64]},
        )
    )


def gpus(problem: Problem, *replicas: PlacedReplica) -> list[list[tuple[int, ...]]]:
    named = name_gpus(problem, settle(problem, Fleet(replicas)))
    for stage in (stage for replica in named for stage in replica.stages):
        assert len(stage.gpus) == len(stage.islands)
    return [[sum(stage.gpus, ()) for stage in replica.stages] for replica in named]


@pytest.mark.parametrize(
    ("free", "size", "expected"),
    [
        ([0, 1, 2, 3], 2, (0, 1)),
        ([0, 2, 3, 4], 2, (2, 3)),
        ([0, 2, 3, 4], 3, (2, 3, 4)),
        ([0, 2, 4], 2, None),
        ([5], 1, (5,)),
        ([], 1, None),
    ],
)
def test_lowest_run(
    free: list[int], size: int, expected: tuple[int, ...] | None
) -> None:
    assert lowest_run(free, size) == expected


def test_a_segment_takes_consecutive_gpus(mixed: Problem) -> None:
    # free on each big node: 0, 2..7
    six = design(mixed, [("H100", 2, 40), ("H100", 4, 40)], sequences=64)
    assert gpus(mixed, PlacedReplica(six, ((0,),))) == [[(2, 3), (4, 5, 6, 7)]]


def test_what_cannot_be_consecutive_takes_the_lowest(mixed: Problem) -> None:
    seven = design(mixed, [("H100", 7, 80)], sequences=64)
    expected = [[(0, 2, 3, 4, 5, 6, 7)]]
    assert gpus(mixed, PlacedReplica(seven, ((0,),))) == expected


def test_stages_are_consecutive_where_their_segment_cannot_be(mixed: Problem) -> None:
    stages = [("H100", 1, 27), ("H100", 2, 27), ("H100", 4, 26)]
    seven = design(mixed, stages, sequences=32)
    assert gpus(mixed, PlacedReplica(seven, ((0,),))) == [[(0,), (2, 3), (4, 5, 6, 7)]]


def test_replicas_share_an_island_without_overlap(mixed: Problem) -> None:
    three = design(mixed, [("H100", 3, 80)], sequences=64)
    named = gpus(mixed, PlacedReplica(three, ((0,),)), PlacedReplica(three, ((0,),)))
    assert named == [[(2, 3, 4)], [(5, 6, 7)]]


def test_the_fastest_replica_comes_first(mixed: Problem) -> None:
    slow = design(mixed, [("H100", 3, 80)], sequences=8)
    fast = design(mixed, [("H100", 4, 80)], sequences=64)
    for order in ((slow, fast), (fast, slow)):
        placed = tuple(PlacedReplica(d, ((i,),)) for i, d in enumerate(order))
        found = settle(mixed, Fleet(placed)).replicas
        assert [r.design for r in found] == [fast, slow]


def test_segments_on_one_island_become_one(mixed: Problem) -> None:
    stages = [("H100", 2, 40), ("H100", 4, 40)]
    apart = design(mixed, stages, sequences=64, crossings=[True])
    together = design(mixed, stages, sequences=64)
    (settled,) = settle(mixed, Fleet((PlacedReplica(apart, ((1,), (1,))),))).replicas
    assert settled == PlacedReplica(together, ((1,),))
    (kept,) = settle(mixed, Fleet((PlacedReplica(apart, ((1,), (0,))),))).replicas
    assert kept == PlacedReplica(apart, ((1,), (0,)))


def test_an_island_that_is_too_small_is_an_error(mixed: Problem) -> None:
    four = design(mixed, [("H100", 4, 80)], sequences=64)
    twice = Fleet((PlacedReplica(four, ((0,),)), PlacedReplica(four, ((0,),))))
    with pytest.raises(SolverFailure, match="has 3 left"):
        name_gpus(mixed, settle(mixed, twice))
