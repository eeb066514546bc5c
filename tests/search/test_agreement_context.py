"""Context parallelism and copies of experts: the solvers against brute force.

Cases of the general generator whose grid has degrees of both, dense and with experts,
on SGLang (where copies stand alone in a replica) and on generic engines.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from tests.agreement import faults, judge
from tests.generators import instance_of, random_document

from shardwright.problem import Problem, compile_problem
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits, SearchOutcome

CASES = 36


@cache
def case(seed: int, experts: bool) -> tuple[Problem, SearchOutcome]:
    """A problem and its optimum by brute force."""
    document = random_document(seed, experts=experts, context=True)
    goals = [goal for goal in document.get("objective", ()) if goal != "ttft"]
    document["objective"] = goals or ["throughput", "tpot"]  # ttft is a long bisection
    problem = compile_problem(instance_of(document))
    return problem, solver("exhaustive").solve(problem, _limits(60))


def _limits(seconds: float) -> SearchLimits:
    return SearchLimits(time_limit_s=seconds, workers=1)


@pytest.mark.parametrize("name", ["default", "greedy"])
@pytest.mark.parametrize("experts", [False, True])
def test_solvers_agree_with_brute_force(name: str, experts: bool) -> None:
    for seed in range(CASES):
        problem, oracle = case(seed, experts)
        answer = solver(name).solve(problem, _limits(10))
        if name == "default":
            assert answer.status in (Status.OPTIMAL, Status.INFEASIBLE), seed
        assert not faults(problem, answer), seed
        assert not judge(problem, oracle, answer), seed


@pytest.mark.parametrize(
    ("name", "seeds"), [("direct", range(8)), ("milp-highs", range(0, 8, 4))]
)
@pytest.mark.parametrize("experts", [False, True])
def test_the_whole_programs_agree(name: str, seeds: range, experts: bool) -> None:
    late = 0
    for seed in seeds:
        problem, oracle = case(seed, experts)
        answer = solver(name).solve(problem, _limits(1.5))
        late += answer.status not in (Status.OPTIMAL, Status.INFEASIBLE)
        assert not faults(problem, answer), seed
        assert not judge(problem, oracle, answer), seed
    assert late <= len(seeds) / 2


@pytest.mark.parametrize("experts", [False, True])
def test_both_answers_and_all_degrees_are_common(experts: bool) -> None:
    found: Counter[str] = Counter()
    for seed in range(CASES):
        problem, oracle = case(seed, experts)
        found[oracle.status.value] += 1
        replicas = oracle.fleet.replicas if oracle.fleet else ()
        used = {s.unit for replica in replicas for s in replica.design.stages}
        shapes = [problem.units[u].shape for u in used]
        found["context groups"] += any(s.cp > 1 for s in shapes)
        found["copies"] += any(s.moe_dp > 1 for s in shapes)
        found["standing alone"] += any(map(problem.stands_alone, used))
    print(found)
    assert min(found["OPTIMAL"], found["INFEASIBLE"]) >= CASES / 4, found
    assert min(found["context groups"], found["copies"]) >= CASES / 12, found
    assert found["standing alone"] >= int(experts), found
