"""Explanations: every repair is solved and checked, every figure can be had."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from shardwright.check import check
from shardwright.explain import Explanation, explain
from shardwright.explain.changes import with_target, with_workload
from shardwright.explain.combined import least_factor
from shardwright.explain.repairs import attainable_ms, fewest, single_repairs
from shardwright.explain.solving import Allowance, least
from shardwright.ingest import load
from shardwright.schema.instance import Instance
from shardwright.schema.workload import SloTarget
from shardwright.solve import solve

ROOT = Path(__file__).parents[2]
MEANS = ROOT / "instances" / "seeds" / "llama3-70b-8xh100-means.yaml"


@cache
def seed() -> Instance:
    """The seed with targets on means: quick to solve."""
    return load(MEANS)


@cache
def overloaded() -> Explanation:
    """Four times the load that the seed asks for."""
    return explain(with_workload(seed(), request_rate_per_s=32.0), time_limit_s=120)


@cache
def feasible() -> Explanation:
    """A quarter of the load."""
    return explain(with_workload(seed(), request_rate_per_s=2.0), time_limit_s=120)


def test_repairs_are_plans_that_pass_the_checker() -> None:
    found = overloaded()
    assert not found.feasible
    assert len(found.repairs) + len(found.combined) >= 3
    for repair in (*found.repairs, *found.combined):
        plan = repair.solution.plan
        assert plan is not None
        assert check(repair.solution.instance, plan.document).ok
        assert repair.size > 0
    assert [r.size for r in found.repairs] == sorted(r.size for r in found.repairs)


def test_the_largest_rate_is_the_largest() -> None:
    [rate] = [a for a in overloaded().attainable if a.target == "request rate"]
    assert rate.best is not None
    at = with_workload(seed(), request_rate_per_s=rate.best)
    above = with_workload(seed(), request_rate_per_s=rate.best * 1.002)
    assert solve(at, explain=False).plan is not None
    assert solve(above, explain=False).plan is None


def test_a_target_is_loosened_to_where_it_holds() -> None:
    target = SloTarget(metric="tpot", limit_ms=1.0)
    tight = seed().model_copy(update={"slo": (target,)})
    tight = with_workload(tight, request_rate_per_s=1.0)
    limit = attainable_ms(tight, target, Allowance(120))
    assert limit is not None
    assert solve(with_target(tight, target, limit), explain=False).plan is not None
    below = with_target(tight, target, limit / 1.03)
    assert solve(below, explain=False).plan is None


def test_a_hopeless_target_is_said_to_be_hopeless() -> None:
    hopeless = with_workload(seed(), request_rate_per_s=500.0)
    assert attainable_ms(hopeless, hopeless.slo[0], Allowance(120)) is None


def test_a_feasible_instance_has_slack_ends_and_other_choices() -> None:
    found = feasible()
    assert found.feasible
    rules = {row["rule"] for row in found.document()["binding"]}
    assert {"memory_fits", "request_rate", "tpot_limit"} <= rules
    fields = {b.field for b in found.break_evens}
    assert {"largest request rate", "smallest memory fraction"} <= fields
    assert any(a.choice.startswith("TP") for a in found.alternatives)
    for other in found.alternatives:
        if other.degrees is not None:
            assert other.values[0][1] >= found.solution.result.objectives[0].value


@pytest.mark.parametrize("made", [overloaded, feasible])
def test_the_text_fits_a_terminal(made: object) -> None:
    text = made().text()  # type: ignore[operator]
    assert max(map(len, text.splitlines())) <= 100


def test_without_time_nothing_is_invented() -> None:
    hopeless = with_workload(seed(), request_rate_per_s=500.0)
    repairs, complete = single_repairs(hopeless, Allowance(0.0))
    assert repairs == []
    assert not complete


def test_least_finds_the_edge() -> None:
    assert least(1, 100, lambda x: x >= 37.5, 0.001) == pytest.approx(37.5, rel=0.002)


@pytest.mark.parametrize("known", [1, 3])
@pytest.mark.parametrize("guess", [0, 2, 5, 13, 400])
def test_the_fewest_is_found_from_any_guess(known: int, guess: int) -> None:
    top = 64
    for needed in range(known + 1, top + 5):
        asked: list[int] = []

        def holds(count: int, needed: int = needed, asked: list[int] = asked) -> bool:
            asked.append(count)
            return count >= needed

        found = fewest(known, top, guess, holds)
        assert found == (needed if needed <= top else None)
        assert known < min(asked) <= max(asked) <= top


@cache
def impossible() -> Explanation:
    """Targets that no load makes attainable."""
    targets = (
        SloTarget(metric="ttft", limit_ms=20.0),
        SloTarget(metric="tpot", limit_ms=5.0),
    )
    asked = seed().model_copy(update={"slo": targets})
    asked = with_workload(asked, request_rate_per_s=None)
    return explain(asked, time_limit_s=120)


def test_targets_beyond_reach_come_with_the_best_there_is() -> None:
    found = impossible()
    assert not found.feasible
    for one in found.attainable:
        assert one.best is None
        assert one.floor is not None
        assert one.floor > one.asked
    assert len(found.repairs) + len(found.combined) >= 3


def test_combined_targets_are_no_looser_than_they_must_be() -> None:
    found = impossible()
    [loose] = [r for r in found.combined if r.instance.precision.weights == "bf16"]
    assert least_factor(loose.instance, Allowance(120)) == 1.0
    for target in loose.instance.slo:
        tighter = with_target(loose.instance, target, target.limit_ms / 1.03)
        assert solve(tighter, explain=False).plan is None
