"""Instances and fleets written by hand: no catalogue, no search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardwright.cost.shape import StageShape
from shardwright.problem import (
    Design,
    Fleet,
    PlacedReplica,
    Problem,
    StageChoice,
    compile_problem,
)
from shardwright.schema.instance import Instance

CALIBRATION: dict[str, Any] = {
    "name": "by hand",
    "hbm_efficiency": 0.8,
    "kv_read_efficiency": 0.7,
    "matmul_efficiency": {"bf16": 0.7},
    "attention_efficiency": 0.5,
    "link_efficiency": 0.75,
    "network_efficiency": 0.8,
    "allreduce_latency_us": {2: 8.0, 4: 10.0, 8: 14.0},
    "hop_latency_us": 10.0,
    "network_latency_us": 20.0,
    "layer_overhead_us": 4.0,
    "step_overhead_us": 500.0,
    "sequence_overhead_us": 5.0,
    "framework_memory": "2 GB",
    "communicator_memory": "500 MB",
    "source": "made up",
    "confidence": "low",
}

H100: dict[str, Any] = {
    "name": "H100",
    "memory": "80 GB",
    "hbm_gbyte_per_s": 3350,
    "dense_tflops": {"bf16": 989},
    "link_technology": "NVLink 4",
    "link_gbyte_per_s": 450,
    "island_gpus": 8,
    "network_gbyte_per_s": 50,
    "price_usd_per_hour": 2.5,
    "calibration": CALIBRATION,
}

L4: dict[str, Any] = {
    **H100,
    "name": "L4",
    "memory": "24 GB",
    "hbm_gbyte_per_s": 300,
    "dense_tflops": {"bf16": 121},
    "link_technology": "PCIe 4",
    "link_gbyte_per_s": 25,
    "network_gbyte_per_s": 12.5,
    "price_usd_per_hour": None,
}

LLAMA: dict[str, Any] = {
    "name": "llama-70b-like",
    "hidden": 8192,
    "vocabulary": 128256,
    "tied_embeddings": False,
    "max_position_tokens": 8192,
    "final_norm_width": 8192,
    "layer_kinds": [
        {
            "name": "global",
            "attention": {"heads": 64, "kv_heads": 8, "head_dim": 128},
            "ffn": {"intermediate": 28672},
            "norm_width": 16384,
        }
    ],
    "layers": ["global"] * 80,
}


def windowed_model() -> dict[str, Any]:
    """Layers of two kinds: five with a window to one without, tied embeddings."""
    attention = {"heads": 32, "kv_heads": 16, "head_dim": 128, "qk_norm_width": 256}
    ffn = {"intermediate": 21504}
    kinds = [
        {"name": "local", "attention": {**attention, "window_tokens": 1024}},
        {"name": "global", "attention": attention},
    ]
    return {
        **LLAMA,
        "name": "gemma-27b-like",
        "hidden": 5376,
        "vocabulary": 262208,
        "tied_embeddings": True,
        "layer_kinds": [{**k, "ffn": ffn, "norm_width": 21504} for k in kinds],
        "layers": (["local"] * 5 + ["global"]) * 10,
    }


def mixture_model() -> dict[str, Any]:
    """One dense layer, then 8 of 32 experts, top-4 out of 2 of 4 groups, one shared."""
    attention = {"heads": 16, "kv_heads": 4, "head_dim": 128}
    experts = {
        "type": "moe",
        "experts": 32,
        "top_k": 4,
        "intermediate": 1024,
        "shared_experts": 1,
        "shared_intermediate": 1024,
        "n_group": 4,
        "topk_group": 2,
    }
    kinds: list[dict[str, Any]] = [
        {"name": "dense", "attention": attention, "ffn": {"intermediate": 8192}},
        {"name": "moe", "attention": attention, "ffn": experts},
    ]
    return {
        **LLAMA,
        "name": "mixture-like",
        "hidden": 2048,
        "vocabulary": 32000,
        "final_norm_width": 2048,
        "layer_kinds": [{**kind, "norm_width": 4096} for kind in kinds],
        "layers": ["dense", *["moe"] * 8],
    }


def instance(**changes: Any) -> Instance:
    """The seed: a 70B model on one node of 8 H100, with what a test changes."""
    document: dict[str, Any] = {
        "name": "seed",
        "model": LLAMA,
        "cluster": {
            "gpu_types": {"H100": H100},
            "nodes": [{"name": "node", "gpu": "H100", "gpus": 8}],
        },
        "workload": {
            "request_rate_per_s": 8,
            "input_tokens": {"constant": 2048},
            "output_tokens": {"constant": 256},
            "max_batch": 64,
            "max_context_tokens": 8192,
        },
        "slo": [
            {"metric": "ttft", "limit_ms": 1500},
            {"metric": "prefill", "limit_ms": 500},
            {"metric": "tpot", "limit_ms": 50},
        ],
        "limits": {"memory_fraction": 0.85, "memory_imbalance": "5%"},
    }
    return as_documents_come({**document, **changes})


def as_documents_come(document: dict[str, Any]) -> Instance:
    """Lists of a file become the tuples that strict schemas ask for."""
    return Instance.model_validate(_frozen(document))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(one) for key, one in value.items()}
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value


def mixed_cluster() -> dict[str, Any]:
    """Two H100 nodes, one of them with GPUs withheld, and a node of L4 pairs."""
    return {
        "gpu_types": {"H100": H100, "L4": L4},
        "nodes": [
            {"name": "big", "gpu": "H100", "gpus": 8, "count": 2, "reserved": [1]},
            {
                "name": "small",
                "gpu": "L4",
                "gpus": 4,
                "island_gpus": 2,
                "failed": [3],
            },
        ],
    }


def design(
    problem: Problem,
    stages: Sequence[tuple[str, int | StageShape, int]],
    *,
    sequences: int = 64,
    crossings: list[bool] | None = None,
    chunk: int = 2048,
    point: int | None = None,
) -> Design:
    """Stages of (class, tp or shape, layers) at a point, or at the one with q = p."""
    if point is None:
        asked = (sequences, chunk, len(stages))
        found = [(p.sequences, p.chunk_tokens, p.micro_batches) for p in problem.points]
        point = found.index(asked)
    chosen, start = [], 0
    for name, tp, layers in stages:
        chosen.append(StageChoice(unit(problem, name, tp), start, start + layers))
        start += layers
    wanted = crossings or [False] * (len(stages) - 1)
    return Design(point, tuple(chosen), tuple(wanted))


def unit(problem: Problem, name: str, tp: int | StageShape) -> int:
    """Index of a unit; a tp alone is a dense shape."""
    shape = StageShape.dense(tp) if isinstance(tp, int) else tp
    return next(
        i
        for i, u in enumerate(problem.units)
        if problem.classes[u.gpu_class].name == name and u.shape == shape
    )


def seed_fleet(problem: Problem) -> Fleet:
    """The seed's own plan: tp2 pp4 with 20 layers each."""
    chosen = design(problem, [("H100", 2, 20)] * 4, sequences=64)
    return Fleet((PlacedReplica(chosen, ((0,),)),))


def seed() -> tuple[Instance, Problem, Fleet]:
    """Instance, problem and fleet of the seed's own plan."""
    one = instance()
    problem = compile_problem(one)
    return one, problem, seed_fleet(problem)
