"""What the solver claims of random instances passes the checker, and no more than that.

``solve`` raises CheckFailed otherwise. The two are written separately from
docs/cost-model.md: here the constants of the law of time are drawn as well, pools,
percentiles, margins and losses to survive.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from tests.generators import instance_of, random_document

from shardwright.solve import solve

Doc = dict[str, Any]
ENGINES = ("vllm", "sglang", "trtllm", "generic")


def loosened(seed: int, experts: bool) -> Doc:
    """A random document without limits on what may be used, and prices for all GPUs."""
    found = random_document(seed, experts=experts)
    limits = {"memory_fraction": found["limits"].get("memory_fraction", 1.0)}
    for gpu in found["cluster"]["gpu_types"].values():
        gpu["price_usd_per_hour"] = gpu.get("price_usd_per_hour") or 1.5
        gpu["calibration"].update(_constants(Random(seed)))
    return {**found, "limits": limits, "slo": [], "fix": {}}


def _constants(rng: Random) -> Doc:
    """Everything that the law of time knows beyond the larger of two times."""
    return {
        "roofline_exponent": rng.choice((0, 1, 1.5, 2.7, 8)),
        "hidden_accesses": rng.choice((0, 4, 9.5)),
        "attention_ramp_tokens": rng.choice((0, 100, 310.5)),
        "unpacking_factor": rng.choice((1, 1.3, 2)),
        "expert_tile_rows": rng.choice((0, 8, 64)),
        "overhead_factor": rng.choice((1, 0.7, 2)),
        "engines": {
            name: _costs(rng) for name in rng.sample(ENGINES, rng.randint(0, 3))
        },
    }


def _costs(rng: Random) -> Doc:
    return {
        "layer_overhead_us": rng.choice((0, 20, 33.3)),
        "expert_overhead_us": rng.choice((0, 11)),
        "step_overhead_us": rng.choice((20, 150.5)),
        "sequence_overhead_us": rng.choice((0, 7)),
        "compute_factor": rng.choice((1, 0.8)),
    }


def with_percentiles(document: Doc) -> Doc:
    """The document with targets on percentiles that are missed by few."""
    targets = (("ttft", 90, 2000), ("prefill", 50, 1900), ("tpot", 90, 500))
    slo = [
        {"metric": metric, "percentile": percentile, "limit_ms": limit}
        for metric, percentile, limit in targets
    ]
    limits = {**document["limits"], "latency_margin": 0.07}
    return {**document, "slo": slo, "limits": limits}


def to_survive(document: Doc) -> Doc:
    """The document with little to do, of which half is to go on without a node."""
    workload = {**document["workload"], "request_rate_per_s": 0.5}
    survive = [{"nodes": 1, "load": 0.5}, {"gpus": 1, "load": 0.25}]
    limits = {**document["limits"], "survive": survive}
    return {**document, "workload": workload, "limits": limits}


@pytest.mark.parametrize(
    ("experts", "pools", "extra", "seeds", "fewest"),
    [
        (False, "mixed", None, 30, 10),
        (True, "mixed", None, 20, 7),
        (False, "disaggregated", None, 40, 6),
        (True, "disaggregated", None, 30, 4),
        (False, "any", with_percentiles, 10, 4),
        (True, "disaggregated", with_percentiles, 16, 2),
        (False, "mixed", to_survive, 20, 3),
    ],
)
def test_plans_of_random_instances_pass(
    experts: bool, pools: str, extra: Any, seeds: int, fewest: int
) -> None:
    found: Counter[str] = Counter()
    for seed in range(seeds):
        document = {**loosened(seed, experts), "pools": pools}
        document = extra(document) if extra else document
        solution = solve(
            instance_of(document), time_limit_s=10, workers=1, explain=False
        )
        plan = solution.plan.document if solution.plan is not None else None
        found["infeasible" if plan is None else "feasible"] += 1
    assert fewest <= found["feasible"], found
    assert found["infeasible"] >= 3, found
