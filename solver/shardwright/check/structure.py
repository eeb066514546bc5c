"""Rules of structure: layers, shapes, ranks and GPUs. Tolerance 0."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from shardwright.check.case import Case, Rule
from shardwright.check.figures import StageFigures, gpu_name
from shardwright.check.report import RuleRow, at_least, at_most, equal, none_of
from shardwright.check.stage import has_experts
from shardwright.schema.instance import Instance


def layers_covered(case: Case) -> Iterator[RuleRow]:
    """start_0 = 0, start_(s+1) = end_s, end_(p-1) = L"""
    rule = "layers_covered"
    for replica in case.figures.replicas:
        end = 0
        for stage in replica.stages:
            start = stage.stage.layers[0]
            yield equal(rule, stage.label, "first layer is", start, end, "layer")
            end = stage.stage.layers[1]
        count = len(case.instance.model.layers)
        yield equal(rule, replica.label, "layers end at", end, count, "layer")


def stage_not_empty(case: Case) -> Iterator[RuleRow]:
    """end_s - start_s >= 1"""
    for stage in case.stages():
        start, end = stage.stage.layers
        yield at_least(
            "stage_not_empty",
            stage.label,
            "number of layers is",
            end - start,
            1,
            "layer",
        )


def operating_point(case: Case) -> Iterator[RuleRow]:
    """M, m, chunk, c, K as in the column of the pool's role (cost-model §10), q <= M"""
    rule = "operating_point"
    for replica in case.figures.replicas:
        claim, own, who = replica.replica.operating_point, replica.point, replica.label
        if replica.role == "prefill":
            found, due = claim.sequences, own.sequences
            yield equal(rule, who, "sequences (M) is", found, due, "sequences")
        found, due = claim.prefill_chunk_tokens, own.chunk
        yield equal(rule, who, "prefill_chunk_tokens is", found, due, "tokens")
        yield equal(
            rule,
            who,
            "micro_batch_sequences (m) is",
            claim.micro_batch_sequences,
            own.micro_batch_sequences,
            "sequences",
        )
        yield equal(
            rule,
            who,
            "prompt_tokens (c) is",
            claim.prompt_tokens,
            own.prompt_tokens,
            "tokens",
        )
        yield equal(
            rule,
            who,
            "chunk_count (K) is",
            claim.chunk_count,
            own.chunk_count,
            "iterations",
        )
        yield at_most(
            rule,
            who,
            "micro_batches (q) is",
            own.micro_batches,
            own.sequences,
            "micro-batches",
        )


def shape_product(case: Case) -> Iterator[RuleRow]:
    """tp·attn_dp·cp = moe_tp·ep·moe_dp = GPUs; attn_dp·cp mod moe_dp = 0; dense: 1"""
    rule = "shape_product"
    dense = not has_experts(case.instance.model)
    for stage in case.together():
        shape, gpus, who = stage.stage.shape, len(stage.stage.gpus), stage.label
        attention = shape.tp * shape.attn_dp * shape.cp
        experts = shape.moe_tp * shape.ep * shape.moe_dp
        yield equal(rule, who, "tp*attn_dp*cp is", attention, gpus, "GPU")
        yield equal(rule, who, "moe_tp*ep*moe_dp is", experts, gpus, "GPU")
        ranks = shape.attn_dp * shape.cp
        words = f"attention ranks that moe_dp {shape.moe_dp} leaves over are"
        yield equal(rule, who, words, ranks % shape.moe_dp, 0, "GPU")
        due = {"attn_dp": 1, "ep": 1, "moe_dp": shape.cp}
        for degree, value in due.items() if dense else ():
            found = getattr(shape, degree)
            yield equal(rule, who, f"{degree} of a dense model is", found, value, "GPU")


def rank_order(case: Case) -> Iterator[RuleRow]:
    """ranks of a replica are 0 .. G-1, stage after stage; tp fastest, cp, attn_dp"""
    for replica in case.figures.replicas:
        base = 0
        for stage in replica.stages:
            gpus = stage.stage.gpus
            wrong = [
                f"{gpu_name(gpu)} has rank {gpu.rank}, not {base + i}"
                for i, gpu in enumerate(gpus)
                if gpu.rank != base + i
            ]
            base += len(gpus)
            yield none_of("rank_order", stage.label, "GPUs out of order are", wrong)


def gpu_exists(case: Case) -> Iterator[RuleRow]:
    """node of the cluster, 0 <= index < gpus of the node"""
    for stage in case.stages():
        gpus = stage.stage.gpus
        wrong = [gpu_name(gpu) for gpu in gpus if not case.inventory.exists(gpu)]
        yield none_of("gpu_exists", stage.label, "GPUs unknown are", wrong)


def gpu_available(case: Case) -> Iterator[RuleRow]:
    """no GPU that is reserved or failed"""
    for stage in case.stages():
        states = [(gpu, case.inventory.withheld(gpu)) for gpu in stage.stage.gpus]
        wrong = [f"{gpu_name(gpu)} is {state}" for gpu, state in states if state]
        yield none_of("gpu_available", stage.label, "GPUs withheld are", wrong)


def gpu_used_once(case: Case) -> Iterator[RuleRow]:
    """every GPU serves at most one rank of one stage"""
    users: dict[str, list[str]] = {}
    for stage in case.stages():
        for gpu in stage.stage.gpus:
            users.setdefault(gpu_name(gpu), []).append(stage.label)
    for name, labels in users.items():
        yield at_most(
            "gpu_used_once",
            f"GPU {name}",
            "ranks served are",
            len(labels),
            1,
            "ranks",
            detail=", ".join(labels),
        )


def gpu_type(case: Case) -> Iterator[RuleRow]:
    """gpu_type of the stage = type of the node, for each of its GPUs"""
    for stage in case.stages():
        wrong = _of_other_type(case, stage)
        what = f"GPUs that are not {stage.stage.gpu_type} are"
        if stage.stage.gpu_type not in case.instance.cluster.gpu_types:
            known = sorted(case.instance.cluster.gpu_types)
            wrong = wrong or [f"the instance has the types {', '.join(known)}"]
        yield none_of("gpu_type", stage.label, what, wrong)


def _of_other_type(case: Case, stage: StageFigures) -> list[str]:
    """GPUs of a known node of another type; unknown nodes are gpu_exists's."""
    types = [(gpu, case.inventory.type_of(gpu)) for gpu in stage.stage.gpus]
    return [
        f"{gpu_name(gpu)} is {found}"
        for gpu, found in types
        if found not in (None, stage.stage.gpu_type)
    ]


def instance_hash(case: Case) -> Iterator[RuleRow]:
    """instance_sha256, where given, = SHA-256 of the canonical JSON of the instance"""
    claimed = case.plan.instance_sha256
    if claimed:
        own = _digest(case.instance)
        wrong = int(claimed != own)
        yield at_most(
            "instance_hash",
            "plan",
            "other instances are",
            wrong,
            0,
            "instances",
            detail=f"the plan is for {claimed}, this instance is {own}",
        )


def _digest(instance: Instance) -> str:
    document = instance.model_dump(mode="json", by_alias=True)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


STRUCTURE: tuple[Rule, ...] = (
    layers_covered,
    stage_not_empty,
    operating_point,
    shape_product,
    rank_order,
    gpu_exists,
    gpu_available,
    gpu_used_once,
    gpu_type,
    instance_hash,
)
