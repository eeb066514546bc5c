"""Disaggregated stages in pools and under percentile targets, against brute force."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from tests.agreement import faults, judge
from tests.fuzz.percentiles import document as with_percentiles
from tests.fuzz.percentiles import small
from tests.generators import instance_of, random_document

from shardwright.problem import Problem, compile_problem, with_units
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits, SearchOutcome

POOLS = range(24)
PERCENTILES = range(40)


def _limits() -> SearchLimits:
    return SearchLimits(time_limit_s=30, workers=1)


def _only_apart(problem: Problem) -> Problem:
    return with_units(problem, lambda unit: unit.shape.disaggregated)


@cache
def pooled(seed: int) -> tuple[Problem, SearchOutcome]:
    """An instance with pools, every other one without colocated stages."""
    found = random_document(seed, apart=True)
    slo = [t for t in found.get("slo", []) if t["metric"] != "e2e"]
    asked = instance_of({**found, "pools": "any", "slo": slo})
    problem = compile_problem(asked)
    if seed % 2:
        problem = _only_apart(problem)
    return problem, solver("exhaustive").solve(problem, _limits())


def test_pools_agree_with_brute_force() -> None:
    kinds: Counter[str] = Counter()
    for seed in POOLS:
        problem, oracle = pooled(seed)
        answer = solver("default").solve(problem, _limits())
        assert not [*faults(problem, answer), *judge(problem, oracle, answer)], seed
        assert answer.status in (Status.OPTIMAL, Status.INFEASIBLE)
        kinds[oracle.status.value] += 1
    assert min(kinds["OPTIMAL"], kinds["INFEASIBLE"]) >= 4, kinds


def test_only_attention_gpus_send_the_cache() -> None:
    seen = 0
    for seed in POOLS:
        problem, _ = pooled(seed)
        each = problem.transfer.mtok_per_s_per_gpu
        for point, at in enumerate(problem.points):
            for unit, u in enumerate(problem.units):
                gpus = problem.caching_gpus([unit, unit])
                assert gpus == 2 * u.shape.attention_gpus <= 2 * u.gpus
                if at.role != "mixed" and each is not None and u.shape.disaggregated:
                    assert problem.rate_mtok_per_s(point, 1, gpus) == gpus * each
                    seen += 1
    assert seen


def test_percentile_targets_agree_with_brute_force() -> None:
    kinds: Counter[str] = Counter()
    for seed in PERCENTILES:
        case = {**with_percentiles(seed), "name": "apart"}
        mixture = random_document(seed, apart=True)
        case |= {key: mixture[key] for key in ("model", "cluster", "engine")}
        if not small(case):
            continue
        problem = _only_apart(compile_problem(instance_of(case)))
        oracle = solver("exhaustive").solve(problem, _limits())
        answer = solver("default").solve(problem, _limits())
        assert not [*faults(problem, answer), *judge(problem, oracle, answer)], seed
        kinds[oracle.status.value] += 1
        kinds["unproven"] += answer.status is Status.FEASIBLE
    assert min(kinds["OPTIMAL"], kinds["INFEASIBLE"]) >= 4, kinds
    assert kinds["unproven"] <= 4, kinds


@pytest.mark.parametrize("seed", [0, 2])
def test_taking_units_away_keeps_the_iteration_laws_in_step(seed: int) -> None:
    case = {**with_percentiles(seed), "name": "apart"}
    mixture = random_document(seed, apart=True)
    case |= {key: mixture[key] for key in ("model", "cluster", "engine")}
    whole = compile_problem(instance_of(case))
    part = _only_apart(whole)
    assert whole.load is not None and part.load is not None
    kept = [i for i, u in enumerate(whole.units) if u.shape.disaggregated]
    laws = (whole.load.laws.layer[:, :, kept], part.load.laws.layer)
    assert (laws[0] == laws[1]).all() and laws[1].shape[2] == len(part.units)
