"""The oracle itself, on problems small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from tests.generators import instance_of, random_document

from shardwright.cost.shape import StageShape
from shardwright.problem import (
    Bounds,
    Design,
    Fleet,
    GpuClass,
    Island,
    PlacedReplica,
    Point,
    Problem,
    Rules,
    StageChoice,
    Tables,
    Unit,
    compile_problem,
)
from shardwright.schema.errors import InstanceTooLarge, SolverFailure, UnsupportedRule
from shardwright.schema.result import Status
from shardwright.search import SOLVER_NAMES, exhaustive, solver
from shardwright.search.base import SearchLimits
from shardwright.search.packing import Yard, name_islands
from shardwright.search.verify import verified, well_formed


def limits() -> SearchLimits:
    """A clock of its own: limits count from the moment they are made."""
    return SearchLimits(time_limit_s=20, workers=1)


def by_hand(goals: tuple[str, ...], **bounds: object) -> Problem:
    """Two layers of 10 ns and 60 bytes; two islands of two GPUs with 100 bytes.

    One GPU cannot hold both layers. Stages on tp 1 take 10 ns a layer, on tp 2 6 ns
    (and 30 bytes); hops 1 ns inside, 5 ns between islands; the return takes 2 ns.
    Four sequences, q free: 1 or 2.
    """

    def table(*values: int) -> np.ndarray:
        return np.array([[[v] for v in values]] * 2, dtype=np.int64)

    nothing = np.zeros((2, 2, 4), dtype=np.int64)
    hop, far = np.full((2, 1), 1), np.full((2, 1, 1), 5)
    tables = Tables(
        table(10, 6), nothing, table(10, 6), nothing, table(0, 1), nothing,
        table(60, 30), nothing, hop, far, hop, far, return_ns=2,
    )  # fmt: skip
    return Problem(
        layer_kinds=(0, 0),
        classes=(GpuClass("g", 4, 100, 1_000_000),),
        islands=(Island(0, "a", (0, 1)), Island(0, "b", (0, 1))),
        units=(Unit(0, StageShape.dense(1)), Unit(0, StageShape.dense(2))),
        points=(
            Point(4, 1, 4, 4, 8, 1, 8, Fraction(4)),
            Point(4, 2, 2, 2, 8, 1, 8, Fraction(4)),
        ),
        tables=tables,
        bounds=replace(Bounds(), **bounds),
        rules=Rules(False, False),
        goals=goals,
        output_mean=compile_problem(instance_of(random_document(0))).output_mean,
    )


HAND_CASES = [
    # tp 2 alone: TPOT 12 ns. Two of them fill the cluster.
    (("throughput", "gpus"), {}, (2 * (4 * 10**12 // 12), 4)),
    (("tpot", "gpus"), {}, (12, 2)),
    (("gpus", "tpot"), {"rate_mtok_per_s": 1}, (2, 12)),
    # p = 2 on tp 1: S = 10 + 10 + 1 + 2 = 23, q = 2: max(20, 23).
    (("gpus", "tpot"), {"stages": 2}, (2, 23)),
    # two stages of tp 2 leave the island: S = 6 + 6 + 5 + 2 = 19.
    (("tpot", "gpus"), {"stages": 2}, (19, 4)),
    (("cost", "throughput"), {"replicas": 1}, (2_000_000, 4 * 10**12 // 12)),
    # wait ceil(12 / 2) = 6 and prefill 12.
    (("ttft",), {"replicas": 1}, (18,)),
    # one GPU is spare: no second replica.
    (("throughput", "gpus"), {"spare_gpus": 1}, (4 * 10**12 // 12, 2)),
]


@pytest.mark.parametrize("name", [n for n in SOLVER_NAMES if n != "greedy"])
@pytest.mark.parametrize(("goals", "bounds", "values"), HAND_CASES)
def test_hand_counted_optima(
    name: str,
    goals: tuple[str, ...],
    bounds: dict[str, object],
    values: tuple[int, ...],
) -> None:
    answer = solver(name).solve(by_hand(goals, **bounds), limits())
    assert (answer.status, answer.values) == (Status.OPTIMAL, values)


@pytest.mark.parametrize("name", [n for n in SOLVER_NAMES if n != "greedy"])
@pytest.mark.parametrize(
    "bounds",
    [
        {"rate_mtok_per_s": 2 * (4 * 10**12 // 12) + 1},
        {"tpot_ns": 11},
        {"spare_gpus": 3},
        {"max_cost_micro_usd_per_hour": 1_999_999},
        {"replicas": 3},
        {"stages": 3},
        {"stages": 1, "split": (1, 1)},
    ],
)
def test_hand_counted_infeasibility(name: str, bounds: dict[str, object]) -> None:
    answer = solver(name).solve(by_hand(("throughput",), **bounds), limits())
    assert answer.status is Status.INFEASIBLE
    assert answer.fleet is None


def test_too_many_designs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exhaustive, "MAX_DESIGNS", 3)
    with pytest.raises(InstanceTooLarge, match="at most 3 designs"):
        solver("exhaustive").solve(by_hand(("throughput",)), limits())


def test_unknown_goals_are_refused() -> None:
    for name in SOLVER_NAMES:
        with pytest.raises(UnsupportedRule):
            solver(name).solve(by_hand(("beauty",)), limits())


def test_neighbouring_segments_take_different_islands() -> None:
    problem = by_hand(("throughput",))
    yard = Yard(problem)
    assert yard.after(((0, 1), (0, 1)), yard.empty) == {(1, 1)}
    assert not yard.fits(((0, 2), (0, 1), (0, 1), (0, 1)))
    assert name_islands(problem, [((0, 1), (0, 1)), ((0, 1), (0, 1))]) == [
        ((0,), (1,)),
        ((0,), (1,)),
    ]
    assert name_islands(problem, [((0, 2), (0, 2)), ((0, 1),)]) is None


def test_a_stage_over_two_islands_takes_both_at_once() -> None:
    """(class, GPUs on each, islands); no neighbour shares an island with it."""
    problem = by_hand(("gpus",))
    assert name_islands(problem, [((0, 2, 2),)]) == [((0, 1),)]
    assert name_islands(problem, [((0, 1, 2),), ((0, 1, 2),)]) == [((0, 1),)] * 2
    assert name_islands(problem, [((0, 1, 2), (0, 1))]) is None
    yard = Yard(problem)
    assert yard.after(((0, 2, 2),), yard.empty) == {(0, 0)}
    assert not yard.fits(((0, 1), (0, 1, 2)))


def pair(*stages: StageChoice, crossings: tuple[bool, ...] = (False,)) -> Design:
    return Design(1, stages, crossings)


LEFT, RIGHT = StageChoice(0, 0, 1), StageChoice(0, 1, 2)
WIDE = StageChoice(1, 1, 2)


@pytest.mark.parametrize(
    "design",
    [
        pair(LEFT, StageChoice(0, 0, 2)),
        pair(LEFT, crossings=()),
        pair(RIGHT, LEFT),
        pair(LEFT, StageChoice(0, 1, 1)),
        pair(LEFT, RIGHT, crossings=()),
    ],
)
def test_impossible_designs_are_recognised(design: Design) -> None:
    assert not well_formed(by_hand(("throughput",)), design)


def test_engine_rules_are_part_of_the_form() -> None:
    problem = by_hand(("throughput",))
    assert well_formed(problem, pair(LEFT, WIDE))
    tied = replace(problem, rules=Rules(False, True))
    assert not well_formed(tied, pair(LEFT, WIDE))
    assert not well_formed(replace(problem, bounds=Bounds(stages=1)), pair(LEFT, RIGHT))
    assert not well_formed(
        replace(problem, bounds=Bounds(split=(2,))), pair(LEFT, RIGHT)
    )


@pytest.mark.parametrize(
    ("replica", "complaint"),
    [
        (PlacedReplica(pair(LEFT, LEFT), ((0,),)), "impossible design"),
        (PlacedReplica(pair(LEFT, RIGHT), ((0,), (1,))), "misplaced"),
        (
            PlacedReplica(pair(LEFT, RIGHT, crossings=(True,)), ((0,), (0,))),
            "misplaced",
        ),
        (
            PlacedReplica(Design(1, (StageChoice(0, 0, 2),), ()), ((0,),)),
            "breaks a rule",
        ),
    ],
)
def test_a_wrong_fleet_never_leaves(replica: PlacedReplica, complaint: str) -> None:
    with pytest.raises(SolverFailure, match=complaint):
        verified(
            "test",
            by_hand(("throughput",)),
            Fleet((replica,)),
            Status.FEASIBLE,
            "time",
        )


def test_a_false_proof_never_leaves() -> None:
    fleet = Fleet((PlacedReplica(pair(LEFT, RIGHT), ((0,),)),))
    problem = by_hand(("gpus",))
    assert verified("test", problem, fleet, Status.OPTIMAL, "proof").values == (2,)
    with pytest.raises(SolverFailure, match="proved"):
        verified("test", problem, fleet, Status.OPTIMAL, "proof", bounds=(1,))
