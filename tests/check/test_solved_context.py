"""What the solver claims of context groups and copies of experts passes the checker.

``solve`` raises CheckFailed otherwise: memory is equal to the byte, times to 1e-9. The
constants of the law of time, pools, percentiles and expert loads are drawn as for other
stages; degrees are fixed, so that most plans have them.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from tests.check.test_solved import _constants, to_survive, with_percentiles
from tests.check.test_solved_apart import _loaded
from tests.generators import instance_of, random_document

from shardwright.solve import solve

Doc = dict[str, Any]
ENGINES = ("generic", "sglang", "vllm")
DENSE_ENGINES = ("generic", "vllm")


def grouped(seed: int, experts: bool) -> Doc:
    """A random document on one island, with cp fixed and at times moe_dp."""
    found = random_document(seed, experts=experts, context=True)
    rng = Random(seed)
    for gpu in found["cluster"]["gpu_types"].values():
        gpu["memory"], gpu["price_usd_per_hour"] = "1 GB", 1.5
        gpu["calibration"].update(_constants(rng))
    kind = next(iter(found["cluster"]["gpu_types"]))
    nodes = [{"name": "n", "gpu": kind, "gpus": rng.choice((4, 6, 8))}]
    fix = {"cp": rng.choice((2, 2, 3, 4))}
    if rng.random() < 0.5:
        fix["moe_dp"] = rng.choice((1, fix["cp"], 2))
    workload = {**found["workload"], "request_rate_per_s": None}
    found = {
        **found,
        "cluster": {**found["cluster"], "nodes": nodes},
        "limits": {"memory_fraction": 1.0, "communication_share": 0.99},
        "engine": {"name": rng.choice(ENGINES if experts else DENSE_ENGINES)},
        "workload": workload,
        "slo": [],
        "fix": fix,
    }
    found["grid"].pop("moe_dp", None)
    if found["engine"]["name"] == "vllm":
        _latent(found["model"])
    blocks = [kind["ffn"] for kind in found["model"]["layer_kinds"] if kind["ffn"]]
    mixed = all(block.get("type") == "moe" for block in blocks)
    return _loaded(found, rng) if experts and mixed and rng.random() < 0.4 else found


def _latent(model: Doc) -> None:
    for kind in model["layer_kinds"]:
        if kind["attention"] is not None:
            kind["attention"] = {
                "type": "mla", "heads": 4, "q_lora_rank": 32, "kv_lora_rank": 48,
                "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
            }  # fmt: skip


def on_two_nodes(document: Doc) -> Doc:
    """The document on two nodes, of which it survives one."""
    cluster = document["cluster"]
    nodes = [{**cluster["nodes"][0], "count": 2}]
    return to_survive({**document, "cluster": {**cluster, "nodes": nodes}})


@pytest.mark.parametrize(
    ("experts", "pools", "extra", "seeds", "fewest"),
    [
        (False, "mixed", None, 12, 6),
        (True, "mixed", None, 20, 8),
        (True, "disaggregated", None, 10, 2),
        (False, "any", with_percentiles, 4, 2),
        (True, "mixed", with_percentiles, 6, 2),
        (False, "mixed", on_two_nodes, 6, 2),
    ],
)
def test_plans_of_random_instances_pass(
    experts: bool, pools: str, extra: Any, seeds: int, fewest: int
) -> None:
    found: Counter[str] = Counter()
    for seed in range(seeds):
        document = {**grouped(seed, experts), "pools": pools}
        document = extra(document) if extra else document
        subject = instance_of(document)
        solution = solve(subject, time_limit_s=10, workers=1, explain=False)
        if solution.plan is None:
            found["infeasible"] += 1
            continue
        plan = solution.plan.document
        shape = plan.replicas()[0].stages[0].shape
        assert shape.cp == document["fix"]["cp"]
        found["feasible"] += 1
        found[f"moe_dp {shape.moe_dp > 1}"] += 1
        found[f"kv {document['engine']['name']}"] += 1
    print(found)
    assert fewest <= found["feasible"], found
