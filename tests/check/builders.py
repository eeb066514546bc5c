"""Small instances and right plans for them, and the tools that spoil them.

A plan is drafted without claims, and its claims are filled in from the checker's own
figures; test_hand.py ties those figures to numbers worked out on paper.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from shardwright.check import check
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan

Changes = Mapping[str, Any]
PARTS = ("weights", "kv_cache", "activations", "communication", "framework")

CALIBRATION: dict[str, Any] = {
    "name": "round numbers",
    "hbm_efficiency": 0.5,
    "kv_read_efficiency": 0.25,
    "matmul_efficiency": {"bf16": 0.5},
    "attention_efficiency": 0.2,
    "link_efficiency": 0.5,
    "network_efficiency": 0.5,
    "allreduce_latency_us": {"2": 10, "4": 12},
    "hop_latency_us": 5,
    "network_latency_us": 15,
    "layer_overhead_us": 2,
    "step_overhead_us": 50,
    "sequence_overhead_us": 1,
    "framework_memory": "1 GB",
    "communicator_memory": "100 MB",
    "source": "made up",
    "confidence": "low",
}

BIG: dict[str, Any] = {
    "name": "big",
    "memory": "80 GB",
    "hbm_gbyte_per_s": 2000,
    "dense_tflops": {"bf16": 1000},
    "link_technology": "link",
    "link_gbyte_per_s": 100,
    "island_gpus": 4,
    "network_gbyte_per_s": 50,
    "price_usd_per_hour": 2.5,
    "calibration": CALIBRATION,
}

SMALL: dict[str, Any] = {
    **BIG,
    "name": "small",
    "memory": "40 GB",
    "hbm_gbyte_per_s": 1000,
    "network_gbyte_per_s": 25,
    "price_usd_per_hour": 1.1,
    "calibration": {**CALIBRATION, "network_latency_us": 20},
}

TINY: dict[str, Any] = {
    "name": "tiny",
    "hidden": 256,
    "vocabulary": 1000,
    "tied_embeddings": False,
    "max_position_tokens": 4096,
    "final_norm_width": 256,
    "layer_kinds": [
        {
            "name": "block",
            "attention": {"heads": 8, "kv_heads": 2, "head_dim": 32},
            "ffn": {"intermediate": 1024},
            "norm_width": 512,
        }
    ],
    "layers": ["block"] * 8,
}

DOCUMENT: dict[str, Any] = {
    "name": "tiny on ten GPUs",
    "model": TINY,
    "cluster": {
        "gpu_types": {"big": BIG, "small": SMALL},
        "nodes": [
            {"name": "a", "gpu": "big", "gpus": 4, "count": 2},
            {"name": "b", "gpu": "small", "gpus": 2},
        ],
    },
    "workload": {
        "input_tokens": {"constant": 1000},
        "output_tokens": {"constant": 200},
        "max_context_tokens": 4096,
        "max_batch": 32,
    },
    "limits": {"memory_fraction": 0.85},
}


def changed(document: Any, changes: Changes) -> Any:
    """A copy with the values at dotted paths replaced; a new last key is added."""
    document = copy.deepcopy(document)
    for path, value in copy.deepcopy(dict(changes)).items():
        *parents, last = path.split(".")
        place = document
        for key in parents:
            place = (
                place[int(key)]
                if isinstance(place, list)
                else place.setdefault(key, {})
            )
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    return document


def instance(changes: Changes | None = None) -> Instance:
    """The tiny instance with changes."""
    document = changed(DOCUMENT, changes or {})
    return Instance.model_validate_json(json.dumps(document))


def spoiled(plan: Plan, changes: Changes) -> Plan:
    """The plan with changes at dotted paths."""
    document = changed(plan.model_dump(mode="json"), changes)
    return Plan.model_validate_json(json.dumps(document))


@dataclass(frozen=True)
class Sketch:
    """A replica in short: (first layer, end, type, node, GPUs) of each stage.

    Several nodes are named with blanks between: each gives the same GPUs. ``shape``
    is of every stage; without it a stage is tensor-parallel over its GPUs. Sketches in
    a row with the same ``role`` share a pool. ``unit``: expert GPUs and parts
    of every stage, for experts on GPUs of their own.
    """

    stages: Sequence[tuple[int, int, str, str, Sequence[int]]]
    sequences: int = 16
    micro_batches: int = 2
    chunk: int = 512
    shape: Mapping[str, int] | None = None
    slots: int = 0
    role: str = "mixed"
    unit: tuple[int, int] | None = None


TWO_STAGES = Sketch([(0, 4, "big", "a-0", (0, 1)), (4, 8, "big", "a-0", (2, 3))])
ONE_STAGE = Sketch([(0, 8, "big", "a-1", (0, 1))], micro_batches=1)


def plan_for(
    subject: Instance, *sketches: Sketch, maps: Sequence[Changes] | None = None
) -> Plan:
    """A plan whose claims are all right, with these expert maps."""
    draft = _plan(subject, sketches, maps)
    figures = check(subject, draft).figures
    document = draft.model_dump(mode="json")
    for replica, own in zip(_replicas(document), figures.replicas, strict=True):
        point = replica["operating_point"]
        point["sequences"] = own.point.sequences
        point["micro_batch_sequences"] = own.point.micro_batch_sequences
        point["prompt_tokens"] = own.point.prompt_tokens
        point["chunk_count"] = own.point.chunk_count
        for stage, own_stage in zip(replica["stages"], own.stages, strict=True):
            stage["memory_bytes"] = own_stage.memory.model_dump()
            if own_stage.expert_memory is not None:
                held = own_stage.expert_memory.model_dump()
                stage["expert_unit"]["memory_bytes"] = held
            stage["decode_time_ns"] = own_stage.decode.total_ns
            stage["prefill_time_ns"] = own_stage.prefill.total_ns
    return restated(subject, Plan.model_validate_json(json.dumps(document)))


def restated(subject: Instance, plan: Plan) -> Plan:
    """The plan with the latency that its claimed stage times lead to."""
    document = plan.model_dump(mode="json")
    figures = check(subject, zeroed(plan)).figures
    for replica, own in zip(_replicas(document), figures.replicas, strict=True):
        replica["latency"] = {
            "tpot_ns": own.stated.tpot_ns,
            "ttft_ns": own.stated.ttft_ns,
            "prefill_ns": own.stated.prefill_ns,
            "rate_mtok_per_s": own.stated.rate_mtok_per_s,
        }
    return Plan.model_validate_json(json.dumps(document))


def zeroed(plan: Plan) -> Plan:
    """The plan without claims of latency, so that none of them is taken up."""
    zeros = {"tpot_ns": 0, "ttft_ns": 0, "prefill_ns": 0, "rate_mtok_per_s": 0}
    document = plan.model_dump(mode="json")
    for replica in _replicas(document):
        replica["latency"] = zeros
    return Plan.model_validate_json(json.dumps(document))


def _replicas(document: Any) -> list[Any]:
    return [replica for pool in document["pools"] for replica in pool["replicas"]]


def _plan(
    subject: Instance, sketches: Sequence[Sketch], maps: Sequence[Changes] | None
) -> Plan:
    pools = groupby(sketches, lambda sketch: sketch.role)
    document = {
        "instance_name": subject.name,
        "instance_sha256": "",
        "pools": [
            {"role": role, "replicas": [_draft(sketch) for sketch in group]}
            for role, group in pools
        ],
        "expert_map": maps,
    }
    return Plan.model_validate_json(json.dumps(document))


def _draft(sketch: Sketch) -> dict[str, Any]:
    stages: list[dict[str, Any]] = []
    rank = 0
    for start, end, gpu_type, nodes, gpus in sketch.stages:
        places = [(node, gpu) for node in nodes.split() for gpu in gpus]
        ranks = [
            {"node": node, "gpu": gpu, "rank": rank + i}
            for i, (node, gpu) in enumerate(places)
        ]
        rank += len(ranks)
        stage = _draft_stage([start, end], gpu_type, ranks)
        shape = sketch.shape or stage["shape"]
        stage["expert_unit"] = _draft_unit(sketch.unit)
        stages.append({**stage, "shape": {**shape}, "expert_slots": sketch.slots})
    return {
        "operating_point": {
            "sequences": sketch.sequences,
            "micro_batches": sketch.micro_batches,
            "micro_batch_sequences": int(sketch.role != "prefill"),
            "prefill_chunk_tokens": 0 if sketch.role == "decode" else sketch.chunk,
            "prompt_tokens": 0,
            "chunk_count": 1,
        },
        "stages": stages,
        "latency": {
            "tpot_ns": 0,
            "ttft_ns": 0,
            "prefill_ns": 0,
            "rate_mtok_per_s": 0,
        },
    }


def _draft_unit(unit: tuple[int, int] | None) -> dict[str, Any] | None:
    if unit is None:
        return None
    gpus, parts = unit
    return {"gpus": gpus, "ping_pong": parts, "memory_bytes": dict.fromkeys(PARTS, 0)}


def _draft_stage(
    layers: list[int], gpu_type: str, ranks: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "layers": layers,
        "shape": {"tp": len(ranks), "moe_tp": len(ranks)},
        "gpu_type": gpu_type,
        "gpus": ranks,
        "memory_bytes": dict.fromkeys(PARTS, 0),
        "decode_time_ns": 0,
        "prefill_time_ns": 0,
    }
