"""Stages that spread over several islands: the default solver against brute force.

Every other case has spreading units only, the others have both kinds.
"""

from __future__ import annotations

from functools import cache

import pytest
from tests.agreement import faults, judge
from tests.generators import instance_of, random_document

from shardwright.problem import Problem, compile_problem, with_units
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits, SearchOutcome

CASES = 48
BLOCK = 16


@cache
def case(seed: int) -> tuple[Problem, SearchOutcome]:
    """A problem and its optimum by brute force."""
    problem = compile_problem(instance_of(random_document(seed, spread=True)))
    if seed % 2:
        problem = with_units(problem, lambda unit: unit.islands > 1)
    return problem, solver("exhaustive").solve(problem, _limits(60))


def _limits(seconds: float) -> SearchLimits:
    return SearchLimits(time_limit_s=seconds, workers=1)


def spreads(seed: int) -> bool:
    """Whether the best fleet has a stage on several islands."""
    problem, oracle = case(seed)
    replicas = oracle.fleet.replicas if oracle.fleet else ()
    stages = [stage for replica in replicas for stage in replica.design.stages]
    return any(problem.units[stage.unit].islands > 1 for stage in stages)


@pytest.mark.parametrize("first", range(0, CASES, BLOCK))
def test_default_agrees_with_brute_force(first: int) -> None:
    for seed in range(first, first + BLOCK):
        problem, oracle = case(seed)
        answer = solver("default").solve(problem, _limits(10))
        assert answer.status in (Status.OPTIMAL, Status.INFEASIBLE), seed
        assert not faults(problem, answer), seed
        assert not judge(problem, oracle, answer), seed


@pytest.mark.parametrize(
    ("name", "seeds"), [("direct", range(24)), ("milp-highs", range(0, 24, 6))]
)
def test_the_whole_programs_agree(name: str, seeds: range) -> None:
    late = 0
    for seed in seeds:
        problem, oracle = case(seed)
        answer = solver(name).solve(problem, _limits(3))
        late += answer.status not in (Status.OPTIMAL, Status.INFEASIBLE)
        assert not faults(problem, answer), seed
        assert not judge(problem, oracle, answer), seed
    assert late <= len(seeds) / 2


def test_feasible_infeasible_and_spreading_optima_are_common() -> None:
    outcomes = [case(seed)[1].status for seed in range(CASES)]
    feasible = outcomes.count(Status.OPTIMAL)
    infeasible = outcomes.count(Status.INFEASIBLE)
    spread = sum(spreads(seed) for seed in range(CASES))
    print(f"{feasible} feasible ({spread} over islands), {infeasible} infeasible")
    assert feasible + infeasible == CASES
    assert min(feasible, infeasible) >= CASES / 5
    assert spread >= CASES / 12
