"""Launchability, idle reasons and failure impact."""

from __future__ import annotations

import pytest
from tests.plan.cases import design, instance
from tests.plan.fleets import view

from shardwright.plan import PlanView, decode, why_idle
from shardwright.plan.idle import smallest_replica
from shardwright.plan.impact import gpu_impacts, node_impacts
from shardwright.problem import Fleet, PlacedReplica, compile_problem
from shardwright.schema.plan import Plan


def obstacles(seen: PlanView) -> dict[str, list[str]]:
    return {v.engine: [o.rule for o in v.obstacles] for v in seen.engines}


def test_the_seeds_plan_launches_everywhere() -> None:
    assert obstacles(view("seed")) == {"vllm": [], "sglang": [], "trtllm": []}


def test_unequal_stages_are_forbidden_by_all_engines() -> None:
    found = obstacles(view("mixed"))
    assert found["vllm"] == ["equal_shape_per_stage"] * 2
    assert found["sglang"].count("equal_gpus_per_node") == 1
    assert "Not launchable with vllm" in view("mixed").table("summary")


def test_odd_degrees_and_other_micro_batches_are_forbidden() -> None:
    one = instance(
        engine={"name": "generic"}, grid={"micro_batches": [1], "sequences": [16]}
    )
    problem = compile_problem(one)
    stages = [("H100", 3, 40), ("H100", 3, 40)]
    point = next(i for i, p in enumerate(problem.points) if p.chunk_tokens == 2048)
    wide = design(problem, stages, point=point)
    plan = decode(one, problem, Fleet((PlacedReplica(wide, ((0,),)),)), "")
    verdicts = PlanView(one, plan).engines
    rules = {o.rule for o in verdicts[0].obstacles}
    assert rules == {"micro_batches_equal_stages", "heads_divisible"}


def test_engines_differ_on_shapes_of_experts() -> None:
    found = obstacles(view("loads"))
    assert found["vllm"] == ["whole_experts_or_tensor"]
    assert found["sglang"] == []
    assert found["trtllm"] == ["attention_dp_one_or_all"]
    wide = obstacles(view("experts"))
    assert wide == {"vllm": [], "sglang": [], "trtllm": []}


def _with_shape(name: str, index: int, **changes: object) -> PlanView:
    """The view with another shape in every stage of one replica."""
    seen = view(name)
    document = seen.document.model_dump()
    for stage in document["pools"][0]["replicas"][index]["stages"]:
        stage.update({k: v for k, v in changes.items() if k in stage})
        shape = {k: v for k, v in changes.items() if k in stage["shape"]}
        stage["shape"].update(shape)
    return PlanView(seen.instance, Plan.model_validate(document))


def test_engines_refuse_slots_widths_and_copies() -> None:
    copies = _with_shape("experts", 0, ep=8, moe_dp=2, expert_slots=4)
    assert obstacles(copies)["sglang"] == ["copies_follow_context"]
    narrow = _with_shape("experts", 1, moe_tp=3)
    assert "experts_split_evenly" in obstacles(narrow)["vllm"]
    across = _with_shape("experts", 0, tp=16, attn_dp=1, moe_tp=1, ep=16)
    assert "whole_ranks_per_node" in obstacles(across)["trtllm"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "objective gpus comes first: 4 GPUs are the fewest (proven)"),
        ({"limits": {"max_gpus": 4}}, "max_gpus: 4 is reached"),
        (
            {"objective": ["throughput"]},
            "no design uses it better (proven): 4 H100 left, a replica of TP1 PP3, 3 "
            "GPUs, would fit in memory; tp may be 1, 2, 4, 8",
        ),
        (
            {"objective": ["throughput"], "limits": {"memory_fraction": 0.45}},
            "no design uses it better (proven): 4 H100 left, the smallest replica is "
            "TP1 PP5, 5 GPUs; tp may be 1, 2, 4, 8",
        ),
        (
            {"limits": {"spare_gpus": 4}},
            "spare (spare_gpus: 4)",
        ),
    ],
)
def test_reasons(changes: dict[str, object], words: str) -> None:
    one = instance(**changes)
    problem = compile_problem(one)
    four = design(problem, [("H100", 4, 80)], sequences=32)
    plan = decode(one, problem, Fleet((PlacedReplica(four, ((0,),)),)), "")
    reasons = why_idle(one, problem, plan, proven=True)
    assert set(reasons) == {("node", i) for i in range(4, 8)}
    assert set(reasons.values()) == {words}


def test_smallest_replica_of_the_seed() -> None:
    problem = compile_problem(instance())
    # 141 GB of weights on 68 GB each: two GPUs hold 136 GB, three are needed
    assert smallest_replica(problem, "H100") == (1, 3)
    assert smallest_replica(compile_problem(instance(limits={})), "H100") == (1, 3)


def test_a_failure_stops_the_whole_replica() -> None:
    """The seed says 12.5% of capacity; one pipeline of eight GPUs loses it all."""
    seen = view("seed")
    (impact,) = gpu_impacts(seen.anatomy)
    assert impact.lost_share == 1.0
    assert impact.gpus_stopped == 8
    assert impact.holds_rate is False


def test_failures_of_equal_replicas() -> None:
    seen = view("single")
    assert [i.lost_share for i in gpu_impacts(seen.anatomy)] == [0.25] * 4
    assert [i.replicas for i in node_impacts(seen.anatomy)] == [(0, 1, 2, 3)]
    assert all(i.holds_rate is None for i in gpu_impacts(seen.anatomy))
