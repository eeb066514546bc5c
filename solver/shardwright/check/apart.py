"""Rules of stages whose routed experts have GPUs of their own (cost-model §11)."""

from __future__ import annotations

from collections.abc import Iterator

from shardwright.check.case import Case, Rule
from shardwright.check.figures import StageFigures
from shardwright.check.maps import expert_counts
from shardwright.check.report import RuleRow, at_least, at_most, equal
from shardwright.check.stage import allows_apart
from shardwright.schema.plan import ExpertUnit, Shape, Stage


def disaggregated_experts(case: Case) -> Iterator[RuleRow]:
    """no expert_unit unless the engine may have one, with analytic latencies only"""
    engine = case.instance.engine
    refused = int(not allows_apart(case.instance))
    words = f"disaggregated stages that {engine.name} does not run are"
    detail = f"latencies are {engine.latencies}; engine.rules.disaggregated_experts"
    for stage, _ in _units(case):
        yield at_most(
            "disaggregated_experts",
            stage.label,
            words,
            refused,
            0,
            "stages",
            detail=detail,
        )


def disaggregated_shape(case: Case) -> Iterator[RuleRow]:
    """tp·attn_dp = G_a, moe_tp·ep = G_e, moe_dp = cp = 1, v >= 2, slots and experts"""
    rule, layers = "disaggregated_shape", len(expert_counts(case.instance.model))
    for stage, unit in _units(case):
        shape, who = stage.stage.shape, stage.label
        rest = len(stage.stage.gpus) - unit.gpus
        for words, found, due in (
            ("tp*attn_dp is", shape.tp * shape.attn_dp, rest),
            ("moe_tp*ep is", shape.moe_tp * shape.ep, unit.gpus),
            ("moe_dp is", shape.moe_dp, 1),
            ("cp is", shape.cp, 1),
        ):
            yield equal(rule, who, words, found, due, "GPU")
        yield at_least(rule, who, "ping_pong (v) is", unit.ping_pong, 2, "parts")
        slots = stage.stage.expert_slots
        yield at_least(rule, who, "expert_slots is", slots, 1, "slots")
        yield at_least(rule, who, "layers with routed experts are", layers, 1, "layer")


def disaggregated_alike(case: Case) -> Iterator[RuleRow]:
    """with one expert_unit in a replica all have one; one shape, slots, G_e and v"""
    for replica in case.figures.replicas:
        stages = [stage.stage for stage in replica.stages]
        if any(stage.expert_unit is not None for stage in stages):
            kinds = {_kind(stage) for stage in stages}
            detail = ", ".join(_written(stage) for stage in stages)
            yield at_most(
                "disaggregated_alike",
                replica.label,
                "different stages are",
                len(kinds),
                1,
                "shapes",
                detail=detail,
            )


_Kind = tuple[Shape, int, int, int]


def _kind(stage: Stage) -> _Kind:
    """What disaggregated stages of a replica have in common; 0 without a unit."""
    unit = stage.expert_unit
    gpus, parts = (unit.gpus, unit.ping_pong) if unit is not None else (0, 0)
    return stage.shape, stage.expert_slots, gpus, parts


def _written(stage: Stage) -> str:
    shape, slots, gpus, parts = _kind(stage)
    degrees = f"tp {shape.tp} attn_dp {shape.attn_dp}"
    degrees += f" moe_tp {shape.moe_tp} ep {shape.ep} with {slots} slots"
    return f"{degrees} on {gpus} expert GPUs in {parts} parts" if gpus else degrees


def _units(case: Case) -> Iterator[tuple[StageFigures, ExpertUnit]]:
    """Every disaggregated stage and its expert GPUs."""
    for stage in case.stages():
        if stage.stage.expert_unit is not None:
            yield stage, stage.stage.expert_unit


APART: tuple[Rule, ...] = (
    disaggregated_experts,
    disaggregated_shape,
    disaggregated_alike,
)
