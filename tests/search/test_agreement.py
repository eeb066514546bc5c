"""Solvers against brute force on seeded tiny instances.

The smallest third goes to every solver, the rest to those that are fast enough. More,
and longer: ``python -m tests.fuzz --count 5000 --seed 0``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from tests.agreement import (
    Verdict,
    agree_on,
    faults,
    judge,
    regression_documents,
)
from tests.generators import instance_of, random_document

from shardwright.formulations.ranges import StageTables
from shardwright.formulations.shape import Shape
from shardwright.problem import compile_problem
from shardwright.schema.result import Status
from shardwright.search import SOLVER_NAMES, solver
from shardwright.search._template import TemplateSolver
from shardwright.search.base import SearchLimits
from shardwright.search.direct import DirectSolver

CASES = 300
BLOCK = 25
TIME_LIMIT_S = 3.0

MOST_UNPROVEN = {"default": 3, "direct": 5, "milp-highs": 12, "milp-cbc": 12}
"""Cases of a block that may run out of time, on a busy machine too."""

EVERY_CASE = ("default", "direct", "greedy")
SMALLEST_THIRD = ("milp-highs", "milp-cbc")
SEVENTH_OF_IT = (
    DirectSolver("direct-no-presolve", parameters={"cp_model_presolve": False}),
    TemplateSolver(),
)


@cache
def documents() -> tuple[dict[str, Any], ...]:
    """All cases, the smallest programs first."""
    cases = [random_document(seed) for seed in range(CASES)]
    return tuple(sorted(cases, key=_size))


def _size(document: dict[str, Any]) -> int:
    problem = compile_problem(instance_of(document))
    if not problem.points or not problem.units:
        return 0
    shape = Shape(problem, StageTables(problem))
    return shape.slots * len(problem.points) * (len(shape.arcs) + len(shape.hops))


def block(number: int) -> list[Verdict]:
    """Verdicts on one block of cases, by the solvers that its size allows."""
    found = []
    begin = number * BLOCK
    for i, document in enumerate(documents()[begin : begin + BLOCK], start=begin):
        chosen: list[Any] = list(EVERY_CASE)
        if i < CASES // 3:
            chosen += SMALLEST_THIRD
            chosen += SEVENTH_OF_IT if i % 7 == 0 else ()
        found.append(agree_on(document, chosen, TIME_LIMIT_S))
    return found


@pytest.mark.parametrize("number", range(CASES // BLOCK))
def test_solvers_agree_with_brute_force(number: int) -> None:
    verdicts = block(number)
    complaints = [(v.document["name"], v.complaints) for v in verdicts if v.complaints]
    assert not complaints
    late = [name for v in verdicts for name in v.unproven]
    for name, most in MOST_UNPROVEN.items():
        assert late.count(name) <= most, f"{name} proved too little: {late}"


def test_both_answers_are_common() -> None:
    """Feasible and infeasible at least a quarter each; long pipelines exist."""
    outcomes = [
        solver("exhaustive").solve(
            compile_problem(instance_of(document)), SearchLimits(workers=1)
        )
        for document in documents()
    ]
    feasible = [o for o in outcomes if o.status is Status.OPTIMAL]
    infeasible = [o for o in outcomes if o.status is Status.INFEASIBLE]
    print(f"{len(feasible)} feasible, {len(infeasible)} infeasible")
    assert len(feasible) + len(infeasible) == CASES
    assert min(len(feasible), len(infeasible)) >= CASES / 4
    fleets = [o.fleet for o in feasible if o.fleet is not None]
    pipelines = [f for f in fleets if any(len(r.design.stages) > 1 for r in f.replicas)]
    assert len(pipelines) >= len(fleets) / 10


@pytest.mark.parametrize(
    ("name", "document"),
    regression_documents() or [pytest.param("none kept", None, marks=pytest.mark.skip)],
)
def test_failures_once_found_stay_fixed(name: str, document: dict[str, Any]) -> None:
    verdict = agree_on(document, (*EVERY_CASE, *SMALLEST_THIRD), 20.0)
    assert not verdict.complaints, name


@pytest.mark.parametrize("name", [n for n in SOLVER_NAMES if n != "exhaustive"])
def test_no_time_means_no_claim(name: str) -> None:
    """Time that is up before the start: UNKNOWN at best, and never a false word."""
    for document in documents()[CASES // 2 :: 25]:
        problem = compile_problem(instance_of(document))
        oracle = solver("exhaustive").solve(problem, SearchLimits(workers=1))
        for limits in (
            SearchLimits(time_limit_s=0.0, workers=1),
            SearchLimits(workers=1, stop=lambda: True),
        ):
            answer = solver(name).solve(problem, limits)
            assert not [*faults(problem, answer), *judge(problem, oracle, answer)]
            if answer.status in (Status.FEASIBLE, Status.UNKNOWN):
                assert answer.stopped_by in ("time", "user")
