"""What the solver claims of disaggregated stages passes the checker.

``solve`` raises CheckFailed otherwise. Parts are fixed, so that every plan has stages
whose routed experts lie on GPUs of their own; the constants of the law of time, pools
and percentiles are drawn as for colocated stages.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from tests.check.test_solved import ENGINES, _constants, with_percentiles
from tests.generators import instance_of, random_document

from shardwright.schema.plan import Plan
from shardwright.solve import solve

Doc = dict[str, Any]


def apart(seed: int) -> Doc:
    """A random document with limits on shares, and fixed parts of micro-batches."""
    found, rng = random_document(seed, apart=True), Random(seed)
    for gpu in found["cluster"]["gpu_types"].values():
        gpu["price_usd_per_hour"] = gpu.get("price_usd_per_hour") or 1.5
        gpu["calibration"].update(_constants(rng))
    limits = {"memory_fraction": found["limits"].get("memory_fraction", 1.0)}
    limits |= {"memory_imbalance": 4.0, "communication_share": rng.choice((0.5, 0.9))}
    fix = {"ping_pong": rng.choice((2, 2, 3, 5))}
    return {**found, "limits": limits, "slo": [], "fix": fix}


def shaped(document: Doc) -> Doc:
    """The document on one larger node, with a drawn shape, engine and expert loads."""
    rng = Random(document["name"])
    types = document["cluster"]["gpu_types"]
    nodes = [{"name": "n", "gpu": next(iter(types)), "gpus": rng.choice((6, 8))}]
    shapes: tuple[Doc, ...] = ({}, {"pp": 2}, {"moe_tp": 2}, {"attn_dp": 2})
    fix = {**document["fix"], **rng.choice(shapes), **rng.choice(shapes)}
    workload = {**document["workload"], "request_rate_per_s": None}
    found = {
        **document,
        "cluster": {"gpu_types": types, "nodes": nodes},
        "limits": {"memory_fraction": 1.0},
        "workload": workload,
        "fix": fix,
    }
    if rng.random() < 0.4:
        rules = {"disaggregated_experts": True}
        found["engine"] = {"name": rng.choice(ENGINES), "rules": rules}
    return _loaded(found, rng) if rng.random() < 0.5 else found


def _loaded(document: Doc, rng: Random) -> Doc:
    """The document with tokens counted for every expert, all layers of as many."""
    count, with_experts = rng.choice((2, 4, 6)), []
    for kind in document["model"]["layer_kinds"]:
        if kind["ffn"] is not None:
            kind["ffn"]["experts"] = count
            with_experts.append(kind["name"])
    layers = [name for name in document["model"]["layers"] if name in with_experts]
    rows = [[rng.randint(1, 9) for _ in range(count)] for _ in layers]
    if rows:
        document["workload"]["expert_loads"] = {"tokens": rows}
    return document


def _plan(document: Doc) -> Plan | None:
    subject = instance_of(document)
    solution = solve(subject, time_limit_s=10, workers=1, explain=False)
    return solution.plan.document if solution.plan is not None else None


def _seen(plan: Plan | None) -> str:
    if plan is None:
        return "infeasible"
    units = [s.expert_unit for r in plan.replicas() for s in r.stages]
    assert all(unit is not None for unit in units)
    return "feasible"


@pytest.mark.parametrize(
    ("pools", "extra", "seeds", "fewest"),
    [
        ("mixed", None, 14, 3),
        ("mixed", shaped, 20, 6),
        ("disaggregated", shaped, 16, 3),
        ("any", with_percentiles, 8, 1),
        ("disaggregated", with_percentiles, 12, 1),
    ],
)
def test_plans_of_random_instances_pass(
    pools: str, extra: Any, seeds: int, fewest: int
) -> None:
    found: Counter[str] = Counter()
    for seed in range(seeds):
        document = {**apart(seed), "pools": pools}
        found[_seen(_plan(extra(document) if extra else document))] += 1
    assert fewest <= found["feasible"], found
    assert found["infeasible"] >= 3, found
