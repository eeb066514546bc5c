"""A disaggregated stage as a plan: GPUs by role, memory by role, tables, launch."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from tests.plan.cases import design, instance, mixture_model

from shardwright.check import check
from shardwright.cost.shape import StageShape
from shardwright.plan import PlanView, decode
from shardwright.plan.balance import memory_imbalance
from shardwright.plan.disaggregated import stations
from shardwright.problem import Fleet, PlacedReplica, Problem, compile_problem
from shardwright.schema.errors import UnsupportedRule
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan

SHAPE = StageShape(2, 1, 1, 2, expert_gpus=2, ping_pong=2)
"""Attention TP2 and two expert GPUs."""

GENERIC = {"name": "generic", "rules": {"equal_shape_per_stage": True}}


@cache
def case() -> tuple[Instance, Problem, Plan]:
    """Two stages of 2 + 2 GPUs on one node."""
    asked = instance(
        model=mixture_model(),
        engine=GENERIC,
        grid={"sequences": [64], "micro_batches": [2], "prefill_chunk_tokens": [2048]},
    )
    problem = compile_problem(asked)
    made = design(problem, [("H100", SHAPE, 5), ("H100", SHAPE, 4)])
    fleet = Fleet((PlacedReplica(made, ((0,),)),))
    return asked, problem, decode(asked, problem, fleet, "")


def view() -> PlanView:
    asked, _, plan = case()
    return PlanView(asked, plan)


def test_attention_gpus_come_first_and_ranks_go_on() -> None:
    stages = case()[2].replicas()[0].stages
    assert [[g.gpu for g in s.gpus] for s in stages] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [g.rank for s in stages for g in s.gpus] == list(range(8))
    for stage in stages:
        assert stage.expert_unit is not None
        assert (stage.expert_unit.gpus, stage.expert_unit.ping_pong) == (2, 2)
        assert stage.shape.tp * stage.shape.attn_dp == 2
        assert stage.shape.moe_tp * stage.shape.ep == 2
        assert stage.expert_slots == 16


def test_memory_by_role_is_the_problems() -> None:
    _, problem, plan = case()
    made = design(problem, [("H100", SHAPE, 5), ("H100", SHAPE, 4)])
    figures = problem.figures(made)
    stages = plan.replicas()[0].stages
    roles = [stage.memory_by_role() for stage in stages]
    assert [r[0][2].total() for r in roles] == list(figures.memory_bytes)
    assert [r[1][2].total() for r in roles] == list(figures.expert_memory_bytes)
    assert [(name, gpus) for name, gpus, _ in roles[0]] == [
        ("attention", 2),
        ("expert", 2),
    ]
    expert = roles[0][1][2]
    assert expert.kv_cache == 0
    assert expert.weights == 4 * 16 * 3 * 2048 * 1024 * 2  # 4 of its 5 layers


def test_imbalance_counts_every_gpu_with_its_own_bytes() -> None:
    stages = case()[2].replicas()[0].stages
    held = [
        m.total() for s in stages for _, n, m in s.memory_by_role() for _ in range(n)
    ]
    assert memory_imbalance(stages) == Fraction(max(held) * 8, sum(held)) - 1


def test_either_sort_of_gpu_must_fit() -> None:
    """Capacity at the fuller sort fits; a byte less does not."""
    _, problem, _ = case()
    bounds = replace(problem.bounds, memory_imbalance=None)
    problem = replace(problem, bounds=bounds)
    made = design(problem, [("H100", SHAPE, 5), ("H100", SHAPE, 4)])
    figures = problem.figures(made)
    need = max(*figures.memory_bytes, *figures.expert_memory_bytes)
    for capacity, fits in ((need, True), (need - 1, False)):
        classes = tuple(replace(k, capacity_bytes=capacity) for k in problem.classes)
        assert replace(problem, classes=classes).design_fits(made) == fits


def test_the_matrix_names_roles() -> None:
    text = view().table("gpus")
    rows = [line.split()[-2:] for line in text.splitlines() if line.startswith("node ")]
    roles = [row for row in rows if row[1] in ("A", "E")]
    assert roles == [*[["P", "A"], ["S", "A"], ["S", "E"], ["S", "E"]] * 2]


def test_memory_balance_and_stations_have_a_row_for_either_sort() -> None:
    seen = view()
    for marks, table in (
        ((" A ", " E "), "memory"),
        ((" attention", " expert "), "balance"),
    ):
        assert all(mark in seen.table(table) for mark in marks)
    assert "dispatch" in seen.table("communication")
    assert "moe" in seen.table("disaggregated")
    assert "disaggregated" in seen.tables()


def test_every_table_fits_a_terminal() -> None:
    seen = view()
    for name in seen.tables():
        for line in seen.table(name).splitlines():
            assert len(line) <= 100, name
            assert line == line.rstrip(), name


def test_stations_add_up_to_the_stages_time() -> None:
    seen = view()
    replica = seen.document.replicas()[0]
    load = seen.anatomy.loads(replica.operating_point).decode
    for stage in replica.stages:
        layers = stations(seen.anatomy, stage, load)
        periods = sum(kind.layers * kind.share * kind.period_ns for kind in layers)
        assert periods < stage.decode_time_ns
        assert {kind.share > 0 for kind in layers} == {True}
        assert max(kind.experts_busy for kind in layers) <= 1
        counted = sum(kind.layers * kind.share for kind in layers)
        assert counted == pytest.approx(stage.layers[1] - stage.layers[0])


def test_no_engine_launches_it_and_each_says_why() -> None:
    for verdict in view().engines:
        assert verdict.obstacles[0].rule == "disaggregated_experts"


def test_a_document_reads_back() -> None:
    plan = case()[2]
    assert Plan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan


def test_a_checker_without_the_rules_refuses_cleanly() -> None:
    from shardwright.check import RULES

    asked, _, plan = case()
    if "disaggregated_shape" in RULES:
        assert check(asked, plan).rows
        return
    with pytest.raises(UnsupportedRule, match="disaggregated"):
        check(asked, plan)


def _units(**changes: Any) -> list[StageShape]:
    problem = compile_problem(instance(model=mixture_model(), **changes))
    return [u.shape for u in problem.units if u.shape.disaggregated]


def test_only_generic_or_a_switch_allows_them() -> None:
    grid = {"sequences": [8], "micro_batches": [1], "prefill_chunk_tokens": [2048]}
    assert _units(engine=GENERIC, grid=grid)
    off = {"name": "generic", "rules": {"disaggregated_experts": False}}
    assert not _units(engine=off, grid=grid)
    for name in ("vllm", "sglang", "trtllm"):
        assert not _units(engine={"name": name}, grid=grid)
        on = {"name": name, "rules": {"disaggregated_experts": True}}
        assert _units(engine=on, grid=grid)


def test_fix_names_the_split() -> None:
    grid = {"sequences": [8], "micro_batches": [1], "prefill_chunk_tokens": [2048]}
    found = _units(engine=GENERIC, grid=grid, fix={"afd": [5, 3], "ping_pong": 4})
    assert {(s.attention_gpus, s.expert_gpus, s.ping_pong) for s in found} == {
        (5, 3, 4)
    }
    assert {(s.moe_tp, s.ep) for s in found} == {(1, 3)}
    found = _units(engine=GENERIC, grid=grid, fix={"afd": [4, 4], "ep": 2})
    assert {(s.moe_tp, s.ep) for s in found} == {(2, 2)}
