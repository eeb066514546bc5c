"""Rules of experts on the GPUs of a stage, and of what engines can run. Tolerance 0."""

from __future__ import annotations

from collections.abc import Iterator

from shardwright.check.case import Case, Rule
from shardwright.check.experts import fills_slots, least_slots, redundant
from shardwright.check.figures import StageFigures
from shardwright.check.maps import balanced
from shardwright.check.report import RuleRow, at_least, at_most, equal
from shardwright.check.stage import expert_blocks, has_experts
from shardwright.schema.plan import Shape


def ep_within_experts(case: Case) -> Iterator[RuleRow]:
    """ep <= E of every layer, with experts"""
    least = min(_counts(case), default=0)
    for stage in case.stages() if least else ():
        ep = stage.stage.shape.ep
        yield at_most("ep_within_experts", stage.label, "ep is", ep, least, "GPU")


def expert_slots(case: Case) -> Iterator[RuleRow]:
    """s = ⌈E/ep⌉, E the largest (generic, or loads and ep > 1: >=); dense: s = 0"""
    most = max(_counts(case), default=0)
    generic = case.instance.engine.name == "generic"
    for stage in case.stages():
        slots, ep = stage.stage.expert_slots, stage.layout.ep
        free = generic or balanced(case.instance, ep)
        row, least = at_least if most and free else equal, least_slots(most, ep)
        yield row("expert_slots", stage.label, "expert_slots is", slots, least, "slots")


def experts_divisible(case: Case) -> Iterator[RuleRow]:
    """s·ep = E + R, 0 <= R < ep (sglang, trtllm); loads and ep > 1: all, R < 2·ep"""
    most = max(_counts(case), default=0)
    for stage in case.stages() if most else ():
        if fills_slots(case.instance, stage.layout.ep):
            yield from _filled(case, stage, most)


def _filled(case: Case, stage: StageFigures, experts: int) -> Iterator[RuleRow]:
    rule, who = "experts_divisible", stage.label
    slots, ep = stage.stage.expert_slots, stage.layout.ep
    extra = redundant(case.instance, slots, ep, experts)
    words = f"expert_slots*ep with {extra} redundant experts is"
    yield equal(rule, who, words, slots * ep, experts + extra, "slots")
    most = (2 * ep if balanced(case.instance, ep) else ep) - 1
    yield at_most(rule, who, "redundant experts are", extra, most, "slots")


def _counts(case: Case) -> list[int]:
    """E of each layer kind that has experts."""
    return [block.experts for block in expert_blocks(case.instance.model)]


def engine_shape(case: Case) -> Iterator[RuleRow]:
    """vllm: {moe_tp, ep} = {1, G}; trtllm: attn_dp in {1, G}; sglang: moe_dp 1, cp"""
    engine = case.instance.engine.name
    if engine == "generic" or not has_experts(case.instance.model):
        return
    alone = {
        id(replica.stages[0])
        for replica in case.figures.replicas
        if len(replica.stages) == 1
    }
    for stage in case.together():
        shape, gpus = stage.stage.shape, len(stage.stage.gpus)
        yield at_most(
            "engine_shape",
            stage.label,
            f"shapes that {engine} does not run are",
            int(not _runs(engine, shape, gpus, alone=id(stage) in alone)),
            0,
            "shapes",
            detail=f"tp {shape.tp}, attn_dp {shape.attn_dp}, cp {shape.cp}, "
            f"moe_tp {shape.moe_tp}, ep {shape.ep}, moe_dp {shape.moe_dp} "
            f"on {gpus} GPUs",
        )


def _runs(engine: str, shape: Shape, gpus: int, *, alone: bool) -> bool:
    if engine == "vllm":
        return (shape.moe_tp, shape.ep) in ((1, gpus), (gpus, 1))
    if engine == "trtllm":
        return shape.attn_dp in (1, gpus) and shape.moe_dp == 1
    if shape.moe_dp == 1:
        return True
    # SGLang: copies follow the context group, without a pipeline, whole or in slices
    return shape.moe_dp == shape.cp and alone and 1 in (shape.ep, shape.moe_tp)


PLACEMENT: tuple[Rule, ...] = (
    ep_within_experts,
    expert_slots,
    experts_divisible,
    engine_shape,
)
