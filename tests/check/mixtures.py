"""A mixture of experts small enough to count on one's fingers, and plans for it."""

from __future__ import annotations

from typing import Any

from tests.check.builders import BIG, Changes, Sketch, instance, plan_for

from shardwright.check import Report, check
from shardwright.check.figures import StageFigures
from shardwright.schema.instance import Instance

# h = 8, V = 100 (V' = 128), 4 heads and 2 KV heads of width 2; E = 10 experts of
# width 4, top 2, one shared of width 6.
KIND: dict[str, Any] = {
    "name": "block",
    "attention": {"heads": 4, "kv_heads": 2, "head_dim": 2},
    "ffn": {
        "type": "moe",
        "experts": 10,
        "top_k": 2,
        "intermediate": 4,
        "shared_experts": 1,
        "shared_intermediate": 6,
        "router_bias": True,
        "correction_bias": True,
    },
    "norm_width": 16,
}

# After efficiencies: memory 1e6 B/s, cache 5e5 B/s, links 5e5 B/s, network 2.5e5 B/s,
# matrices 5e5 FLOP/s, attention 2e5 FLOP/s.
SLOW: dict[str, Any] = {
    **BIG,
    "hbm_gbyte_per_s": 0.002,
    "dense_tflops": {"bf16": 1e-6},
    "link_gbyte_per_s": 0.001,
    "network_gbyte_per_s": 0.0005,
}

MIXTURE: dict[str, Any] = {
    "model": {
        "name": "fingers",
        "hidden": 8,
        "vocabulary": 100,
        "tied_embeddings": False,
        "max_position_tokens": None,
        "final_norm_width": 8,
        "layer_kinds": [KIND],
        "layers": ["block", "block"],
    },
    "engine": {"name": "generic"},
    "cluster.gpu_types.big": SLOW,
}

FFN = "model.layer_kinds.0.ffn"
ONE_ISLAND = {"tp": 2, "attn_dp": 2, "moe_tp": 1, "ep": 4}
TWO_ISLANDS = {"tp": 2, "attn_dp": 4, "moe_tp": 1, "ep": 8}


def mixture(changes: Changes | None = None) -> Instance:
    """The tiny mixture on two islands of four GPUs, with changes."""
    return instance({**MIXTURE, **(changes or {})})


def sketch_of(
    shape: Changes, slots: int, nodes: str = "a-0", gpus: range = range(4)
) -> Sketch:
    """One stage; m = 8 sequences, chunks of 100 tokens."""
    places = [(0, 2, "big", nodes, gpus)]
    return Sketch(places, 8, 1, 100, shape=dict(shape), slots=slots)


def report_of(subject: Instance, sketch: Sketch) -> Report:
    """The report of a plan whose claims are right."""
    return check(subject, plan_for(subject, sketch))


def stage_of(subject: Instance, sketch: Sketch) -> StageFigures:
    """The stage of a plan that keeps every rule."""
    report = report_of(subject, sketch)
    report.raise_if_bad()
    return report.figures.replicas[0].stages[0]
