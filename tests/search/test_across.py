"""Tensor parallelism over islands: at its real cost, and only where asked for."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from tests.check.builders import DOCUMENT, changed
from tests.generators import instance_of, random_document

from shardwright.check import check
from shardwright.plan.launch import launchability
from shardwright.problem import Problem, compile_problem
from shardwright.schema.errors import UnsupportedRule
from shardwright.schema.instance import Instance
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits
from shardwright.solve import solve

CASES = 70


def document_of(seed: int) -> dict[str, Any]:
    """Equal islands of which one alone mostly does not hold the model."""
    found, draw = random_document(seed), Random(seed + 10**6)
    gpu = found["cluster"]["nodes"][0]["gpu"]
    gpus, count = draw.choice(((1, 2), (1, 2), (1, 4), (2, 2)))
    node = {"name": "n", "gpu": gpu, "gpus": gpus, "count": count}
    found["cluster"]["nodes"] = [node]
    network = found["cluster"]["gpu_types"][gpu]
    network["network_gbyte_per_s"] = network["link_gbyte_per_s"]
    network["calibration"]["network_latency_us"] = draw.choice((1, 20))
    found["fix"] = draw.choice(({}, {"pp": 1}))
    found["objective"] = draw.choice((["throughput"], ["gpus", "tpot"], ["tpot"]))
    found["limits"] = {"max_tensor_parallel": 8, "memory_fraction": 1.0}
    if draw.random() < 0.85:
        found["slo"] = []
        found["workload"].pop("request_rate_per_s", None)
    held = _least_bytes(compile_problem(instance_of(found)))
    if held:
        share = held * draw.choice((0.8, 0.95, 1.1)) / 10**9
        found["limits"]["memory_fraction"] = min(1.0, round(share, 7))
    return found


def _least_bytes(problem: Problem) -> int:
    """What one stage on one island holds at least on each GPU."""
    t, kinds = problem.tables, list(problem.layer_kinds)
    own = [u for u, unit in enumerate(problem.units) if unit.islands == 1]
    whole = t.memory_layer[:, own][:, :, kinds].sum(axis=2) + t.memory_role[:, own, 3]
    return int(whole.min()) if whole.size else 0


def test_default_and_exhaustive_agree() -> None:
    seen: Counter[str] = Counter()
    for seed in range(CASES):
        asked = instance_of(document_of(seed))
        problem = compile_problem(asked)
        if not any(unit.islands > 1 for unit in problem.units):
            seen["none"] += 1
            continue
        limits = SearchLimits(30, workers=1)
        outcome = solver("default").solve(problem, limits)
        brute = solver("exhaustive").solve(problem, limits)
        assert outcome.status is brute.status, seed
        assert outcome.values == brute.values, seed
        seen[outcome.status.value] += 1
        if outcome.fleet is not None:
            units = {s.unit for r in outcome.fleet.replicas for s in r.design.stages}
            seen["across"] += any(problem.units[u].islands > 1 for u in units)
            assert solve(asked, explain=False, workers=1).plan is not None
    assert seen["OPTIMAL"] >= 12
    assert seen["INFEASIBLE"] >= 20
    assert seen["across"] >= 8


def big(**changes: Any) -> Instance:
    """Two islands of four; a replica has all eight in one stage."""
    more = {
        "cluster.nodes": [{"name": "a", "gpu": "big", "gpus": 4, "count": 2}],
        "model.layer_kinds.0.attention.kv_heads": 8,
        "limits.max_tensor_parallel": 8,
        "fix.tp": 8,
        **changes,
    }
    return instance_of(changed(DOCUMENT, more))


def test_eight_ranks_on_two_islands() -> None:
    solution = solve(big(), workers=1)
    assert solution.status is Status.OPTIMAL
    assert solution.plan is not None
    (stage,) = solution.plan.document.replicas()[0].stages
    assert [gpu.node for gpu in stage.gpus] == ["a-0"] * 4 + ["a-1"] * 4
    verdicts = launchability(solution.plan.anatomy)
    assert all(verdict.launchable for verdict in verdicts)
    assert "network" in solution.plan.table("communication")


def test_only_where_asked_for() -> None:
    """Without the limit there is no such stage, and the checker refuses one."""
    plan = solve(big(), workers=1).plan
    assert plan is not None
    alone = big(**{"limits.max_tensor_parallel": None})
    assert solve(alone, workers=1, explain=False).status is Status.INFEASIBLE
    document = plan.document.model_copy(update={"instance_sha256": ""})
    assert "stage_inside_island" in check(alone, document).broken()


def test_a_slower_network_costs_more() -> None:
    fast = solve(big(), workers=1).plan
    slow = solve(
        big(**{"cluster.gpu_types.big.network_gbyte_per_s": 5}), workers=1
    ).plan
    assert fast is not None
    assert slow is not None
    assert slow.metrics["total"]["tpot_ms"] > fast.metrics["total"]["tpot_ms"]


def test_certificates_do_not_cover_it() -> None:
    from shardwright.planning.certify import certify

    with pytest.raises(UnsupportedRule):
        certify(
            big(objective=["throughput"]),
            {"throughput": 1},
            {"throughput": 2},
            SearchLimits(10, workers=1),
        )
