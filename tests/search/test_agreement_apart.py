"""Disaggregated stages: solvers against brute force.

Tiny mixtures of experts whose engine may lay experts on GPUs of their own, with limits
around such designs: memory to the byte on either sort of GPU, imbalance, shares. Every
other case has disaggregated units only, the others have both kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from tests.agreement import faults, judge
from tests.generators import instance_of, random_document

from shardwright.problem import Problem, Unit, compile_problem, with_units
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits, SearchOutcome
from shardwright.search.goals import better

CASES = 48
BLOCK = 12
DIRECT = range(24)


@cache
def case(seed: int) -> tuple[Problem, SearchOutcome]:
    """A problem and its optimum by brute force."""
    problem = compile_problem(instance_of(random_document(seed, apart=True)))
    if seed % 2:
        problem = with_units(problem, lambda unit: unit.shape.disaggregated)
    return problem, solver("exhaustive").solve(problem, _limits(60))


def _limits(seconds: float) -> SearchLimits:
    return SearchLimits(time_limit_s=seconds, workers=1)


def complaints(seed: int, name: str, seconds: float = 10) -> tuple[list[str], Status]:
    """What a solver's answer has against the optimum."""
    problem, oracle = case(seed)
    answer = solver(name).solve(problem, _limits(seconds))
    found = [*faults(problem, answer), *judge(problem, oracle, answer)]
    return [f"{seed} {name}: {text}" for text in found], answer.status


def is_apart(seed: int) -> bool:
    """Whether the best fleet has a disaggregated stage."""
    problem, oracle = case(seed)
    stages = [
        s
        for r in (oracle.fleet.replicas if oracle.fleet else ())
        for s in r.design.stages
    ]
    return any(problem.units[s.unit].shape.disaggregated for s in stages)


@pytest.mark.parametrize("first", range(0, CASES, BLOCK))
def test_default_and_greedy_agree_with_brute_force(first: int) -> None:
    seeds = range(first, first + BLOCK)
    found = [complaints(seed, name) for seed in seeds for name in ("default", "greedy")]
    assert not [text for texts, _ in found for text in texts]
    proven = [status for _, status in found[::2]]
    assert set(proven) <= {Status.OPTIMAL, Status.INFEASIBLE}


def test_feasible_infeasible_and_disaggregated_optima_are_common() -> None:
    outcomes = [case(seed)[1].status for seed in range(CASES)]
    feasible = outcomes.count(Status.OPTIMAL)
    infeasible = outcomes.count(Status.INFEASIBLE)
    apart = sum(is_apart(seed) for seed in range(CASES))
    print(f"{feasible} feasible ({apart} with experts apart), {infeasible} infeasible")
    assert feasible + infeasible == CASES
    assert min(feasible, infeasible) >= CASES / 5
    assert apart >= CASES / 6


def test_the_direct_model_agrees() -> None:
    found = [complaints(seed, "direct", 4) for seed in DIRECT]
    assert not [text for texts, _ in found for text in texts]
    late = [s for _, s in found if s not in (Status.OPTIMAL, Status.INFEASIBLE)]
    assert len(late) <= len(DIRECT) / 2


def test_units_taken_away_only_take_choices_away() -> None:
    """Both kinds together are no worse than either of them alone."""
    seen = 0
    for seed in range(0, CASES, 4):
        problem = case(seed)[0]
        both = solver("default").solve(problem, _limits(10))
        for apart in (False, True):
            part = with_units(problem, _is(apart))
            alone = solver("default").solve(part, _limits(10))
            if alone.values:
                assert not better(problem.goals, alone.values, both.values)
                seen += 1
    assert seen >= 5


def _is(apart: bool) -> Callable[[Unit], bool]:
    return lambda unit: unit.shape.disaggregated == apart
