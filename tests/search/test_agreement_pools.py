"""Pools of prefill and decode replicas: the default solver against brute force.

The cases of the general generator, with pools switched on; end-to-end targets, which
tie both halves of a request, are left out. How many cases are feasible and infeasible
is asserted, so that the test cannot become vacuous.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.agreement import Verdict, agree_on
from tests.generators import instance_of, random_document

from shardwright.problem import compile_problem
from shardwright.schema.errors import UnsupportedRule
from shardwright.search import solver
from shardwright.search.base import SearchLimits

SEEDS = range(110)
POOLS = ("any", "disaggregated")
FEWEST = 20


def document(seed: int, pools: str) -> dict[str, Any]:
    """A random instance whose pools are to be chosen."""
    found = random_document(seed)
    slo = [t for t in found.get("slo", []) if t["metric"] != "e2e"]
    return {**found, "pools": pools, "slo": slo}


@pytest.fixture(scope="module")
def verdicts() -> list[tuple[str, Verdict]]:
    """Every case judged once."""
    return [
        (pools, agree_on(document(seed, pools), ["default"], seed=seed))
        for seed in SEEDS
        for pools in POOLS
    ]


def test_default_agrees_with_brute_force(verdicts: list[tuple[str, Verdict]]) -> None:
    complaints = [(v.seed, pools, v.complaints) for pools, v in verdicts]
    assert not [c for c in complaints if c[2]]


def test_both_answers_are_common(verdicts: list[tuple[str, Verdict]]) -> None:
    counts = Counter((pools, v.feasible) for pools, v in verdicts)
    assert all(counts[p, f] >= FEWEST for p in POOLS for f in (True, False)), counts


def test_pools_are_chosen_where_they_win(verdicts: list[tuple[str, Verdict]]) -> None:
    """Some optimum uses them, some does not, though both may be had."""
    both = [v for pools, v in verdicts if pools == "any" and v.feasible]
    chosen = Counter(_roles(v) for v in both)
    assert chosen[frozenset({"mixed"})] >= FEWEST // 5
    assert chosen[frozenset({"prefill", "decode"})] >= FEWEST // 5


def _roles(verdict: Verdict) -> frozenset[str]:
    problem = compile_problem(instance_of(verdict.document))
    assert verdict.oracle.fleet is not None
    return frozenset(
        problem.points[r.design.point].role for r in verdict.oracle.fleet.replicas
    )


@pytest.mark.parametrize("name", ["direct", "milp-highs", "greedy"])
def test_other_solvers_refuse_pools(name: str) -> None:
    problem = compile_problem(instance_of(document(0, "any")))
    with pytest.raises(UnsupportedRule, match="prefill and decode"):
        solver(name).solve(problem, SearchLimits(time_limit_s=1))


def test_an_end_to_end_target_excludes_pools() -> None:
    slo = [{"metric": "e2e", "limit_ms": 1e6}]
    with pytest.raises(UnsupportedRule, match="e2e"):
        compile_problem(instance_of({**document(0, "disaggregated"), "slo": slo}))
    either = compile_problem(instance_of({**document(0, "any"), "slo": slo}))
    assert {point.role for point in either.points} == {"mixed"}
