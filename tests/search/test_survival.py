"""Rule survive: the default solver against brute force, and node losses as placed.

GPU failures are exact and held against the exhaustive optimum on seeded cases; the
share of feasible ones is asserted. Node failures are counted part by part, so a plan is
only held against what it really loses.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from tests.agreement import Verdict, agree_on
from tests.generators import instance_of, random_document

from shardwright.problem import compile_problem
from shardwright.schema.errors import UnsupportedRule
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits

SEEDS = range(160)
FEWEST = 24


def document(seed: int, kind: str) -> dict[str, Any]:
    """A random instance that has to go on without some GPUs or nodes."""
    draw, found = Random(seed), random_document(seed)
    found["workload"].setdefault("request_rate_per_s", draw.choice([0.5, 1, 2, 4]))
    count = draw.choice([1, 1, 2])
    rule = {kind: count, "load": draw.choice([0.1, 0.3, 0.5, 0.8])}
    found["limits"]["survive"] = [rule]
    return found


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    """Every case judged once."""
    return [agree_on(document(s, "gpus"), ["default"], seed=s) for s in SEEDS]


def test_gpu_failures_agree_with_brute_force(verdicts: list[Verdict]) -> None:
    assert not [(v.seed, v.complaints) for v in verdicts if v.complaints]


def test_the_cases_are_not_vacuous(verdicts: list[Verdict]) -> None:
    feasible = [v for v in verdicts if v.feasible]
    assert min(len(feasible), len(verdicts) - len(feasible)) >= FEWEST
    for verdict in feasible:
        assert verdict.oracle.fleet is not None
        assert len(verdict.oracle.fleet.replicas) >= 2


def test_node_failures_leave_the_load() -> None:
    """Recomputed here from the islands; every plan survives, some instance has none."""
    found = {True: 0, False: 0}
    for seed in SEEDS:
        problem = compile_problem(instance_of(document(seed, "nodes")))
        answer = solver("default").solve(problem, SearchLimits(time_limit_s=10))
        found[answer.fleet is not None] += 1
        if answer.fleet is None:
            continue
        [rule] = problem.bounds.survive
        rates = [
            problem.figures(r.design).rate_mtok_per_s for r in answer.fleet.replicas
        ]
        nodes = [
            {problem.islands[v].node for run in r.islands for v in run}
            for r in answer.fleet.replicas
        ]
        for lost in set().union(*nodes):
            left = sum(r for r, n in zip(rates, nodes, strict=True) if lost not in n)
            assert left >= rule.rate_mtok_per_s
    assert min(found.values()) >= FEWEST // 3, found


@pytest.mark.parametrize("name", ["direct", "milp-cbc", "greedy"])
def test_other_solvers_refuse_it(name: str) -> None:
    problem = compile_problem(instance_of(document(0, "gpus")))
    with pytest.raises(UnsupportedRule, match="survive"):
        solver(name).solve(problem, SearchLimits(time_limit_s=1))


def test_two_small_replicas_survive_where_one_large_cannot() -> None:
    """Without the rule one replica is enough; with it two are needed."""
    for seed in SEEDS:
        with_rule = document(seed, "gpus")
        with_rule["limits"]["survive"][0]["gpus"] = 1
        problem = compile_problem(instance_of(with_rule))
        answer = solver("default").solve(problem, SearchLimits(time_limit_s=10))
        if answer.status is Status.OPTIMAL:
            assert answer.fleet is not None
            assert len(answer.fleet.replicas) >= 2
