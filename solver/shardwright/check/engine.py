"""Rules of the engine, where they are on."""

from __future__ import annotations

from collections.abc import Iterator

from shardwright.check.case import Case, Rule
from shardwright.check.report import RuleRow, at_most, equal
from shardwright.check.stage import has_experts
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind, MlaAttention
from shardwright.schema.plan import Stage

_STRICT_ENGINES = ("vllm", "sglang", "trtllm")

_LONG_PROMPT = 32_768
"""Mean prompt from which cp > 1 is tried when nothing says so."""


def is_on(instance: Instance, rule: str) -> bool:
    """The instance's switch, or the engine's default: all on, ``generic`` all off."""
    switch: bool | None = getattr(instance.engine.rules, rule)
    return instance.engine.name in _STRICT_ENGINES if switch is None else switch


def heads_divisible(case: Case) -> Iterator[RuleRow]:
    """H mod tp = 0 and (K_h mod tp = 0 or tp mod K_h = 0), for every kind"""
    if not is_on(case.instance, "heads_divisible"):
        return
    kinds = case.instance.model.layer_kinds
    for stage in case.stages():
        wrong = [_heads(kind) for kind in kinds if not _divides(kind, stage.tp)]
        yield at_most(
            "heads_divisible",
            stage.label,
            f"layer kinds whose heads do not split over tp {stage.tp} are",
            len(wrong),
            0,
            "kinds",
            detail=", ".join(wrong),
        )


def _divides(kind: LayerKind, tp: int) -> bool:
    if kind.attention is None:
        return True
    heads, kv_heads = kind.attention.heads, kind.attention.kv_heads
    return heads % tp == 0 and (kv_heads % tp == 0 or tp % kv_heads == 0)


def _heads(kind: LayerKind) -> str:
    assert kind.attention is not None
    heads, kv_heads = kind.attention.heads, kind.attention.kv_heads
    return f"{kind.name} has {heads} heads and {kv_heads} KV heads"


def equal_shape_per_stage(case: Case) -> Iterator[RuleRow]:
    """all stages of a replica have one shape and as many expert_slots"""
    if not is_on(case.instance, "equal_shape_per_stage"):
        return
    for replica in case.figures.replicas:
        stages = [stage.stage for stage in replica.stages]
        shapes = {(stage.shape, stage.expert_slots) for stage in stages}
        experts = has_experts(case.instance.model)
        degrees = ", ".join(_written(stage, experts) for stage in stages)
        yield at_most(
            "equal_shape_per_stage",
            replica.label,
            "different stage shapes are",
            len(shapes),
            1,
            "shapes",
            detail=degrees,
        )


def _written(stage: Stage, experts: bool) -> str:
    """The shape in short; without experts its tensor-parallel degree says it all."""
    shape = stage.shape
    if not experts:
        return f"tp {shape.tp}"
    return (
        f"tp {shape.tp} attn_dp {shape.attn_dp} moe_tp {shape.moe_tp} "
        f"ep {shape.ep} moe_dp {shape.moe_dp} with {stage.expert_slots} slots"
    )


def micro_batches_equal_stages(case: Case) -> Iterator[RuleRow]:
    """q = p"""
    if not is_on(case.instance, "micro_batches_equal_stages"):
        return
    for replica in case.figures.replicas:
        yield equal(
            "micro_batches_equal_stages",
            replica.label,
            "micro_batches (q) is",
            replica.point.micro_batches,
            len(replica.stages),
            "micro-batches",
        )


def context_parallel(case: Case) -> Iterator[RuleRow]:
    """cp = 1: trtllm, measured latencies; vllm: not all MLA; sglang: dense, or AMD"""
    engine = case.instance.engine
    if runs_context(case.instance):
        return
    for stage in case.stages():
        yield at_most(
            "context_parallel",
            stage.label,
            f"cp with {engine.name} and {engine.latencies} latencies is",
            stage.stage.shape.cp,
            1,
            "GPU",
        )


def runs_context(instance: Instance) -> bool:
    """Whether the engine has context parallelism, and its times a law."""
    engine = instance.engine
    if engine.latencies != "analytic" or engine.name == "trtllm":
        return False
    if engine.name == "sglang":
        types, nodes = instance.cluster.gpu_types, instance.cluster.nodes
        amd = any(types[group.gpu].vendor == "AMD" for group in nodes)
        return has_experts(instance.model) and not amd
    kinds = [kind.attention for kind in instance.model.layer_kinds if kind.attention]
    return engine.name != "vllm" or all(isinstance(a, MlaAttention) for a in kinds)


def may_choose_context(instance: Instance) -> bool:
    """Whether a plan of the searched grid could have cp > 1."""
    if not runs_context(instance):
        return False
    if instance.fix.cp is not None:
        return instance.fix.cp > 1
    if instance.grid.context_parallel is not None:
        return max(instance.grid.context_parallel) > 1
    return instance.workload.input_tokens.mean_tokens() >= _LONG_PROMPT


ENGINE: tuple[Rule, ...] = (
    context_parallel,
    heads_divisible,
    equal_shape_per_stage,
    micro_batches_equal_stages,
)
