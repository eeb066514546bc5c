"""Disaggregated stages end to end: solved, checked, compared with colocated ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardwright import load, solve
from shardwright.check import RULES
from shardwright.plan.answer import answer
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.result import Status
from shardwright.solve import Solution

ROOT = Path(__file__).parents[1]
SEED = ROOT / "instances" / "seeds" / "moe-30b-16gpu-apart.yaml"
BESIDE = ROOT / "instances" / "moe" / "qwen3-235b-a22b-fp8-8xh200-generic.yaml"

pytestmark = pytest.mark.skipif(
    "disaggregated_shape" not in RULES,
    reason="the checker does not have the rules of disaggregated stages yet",
)


def _without_rate(instance: Instance, fix: Fix) -> Instance:
    workload = instance.workload.model_copy(update={"request_rate_per_s": None})
    changes = {"workload": workload, "objective": ("throughput",), "fix": fix}
    return instance.model_copy(update=changes)


def _compared(solution: Solution) -> dict[str, dict[str, Any]]:
    found = solution.result.metrics["disaggregation"]
    return {plan["stages"]: plan for plan in found["plans"]}


def test_the_better_kind_is_chosen_and_both_are_shown() -> None:
    solution = solve(load(BESIDE), time_limit_s=60)
    assert solution.status is Status.OPTIMAL
    chosen = solution.result.metrics["disaggregation"]["chosen"]
    plans = _compared(solution)
    assert all(plan["status"] == "OPTIMAL" for plan in plans.values())
    rates = {kind: plan["output_tokens_per_s"] for kind, plan in plans.items()}
    assert chosen == max(rates, key=lambda kind: rates[kind])
    text = answer(solution.result, solution.plan)
    assert f"Experts beside attention or apart (this plan: {chosen})" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_seeds_layout_is_worth_less_than_its_gpus_hold() -> None:
    """Attention on GPUs 0-3, experts on 4-7, as reported; beside the best plan."""
    fix = Fix(afd=(4, 4), tp=2, ep=4, pp=1, dp=1, sequences=128)
    solution = solve(_without_rate(load(SEED), fix), time_limit_s=60)
    assert solution.plan is not None
    (replica,) = solution.plan.document.replicas()
    (stage,) = replica.stages
    assert [gpu.gpu for gpu in stage.gpus] == list(range(8))
    assert stage.expert_slots == 16
    plans = _compared(solution)
    assert plans["disaggregated"]["fixed"]
    assert not plans["colocated"]["fixed"]
    rates = {kind: plan["output_tokens_per_s"] for kind, plan in plans.items()}
    assert rates["colocated"] > 2 * rates["disaggregated"]


def test_a_fixed_layout_that_breaks_a_limit_is_told_with_both_plans() -> None:
    fix = Fix(afd=(4, 4), tp=2, ep=4, pp=1, dp=1, sequences=128)
    solution = solve(load(SEED).model_copy(update={"fix": fix}), time_limit_s=60)
    assert solution.status is Status.INFEASIBLE
    assert solution.fixed_report is not None
    assert {v.rule for v in solution.fixed_report.violations} == {"request_rate"}
    assert _compared(solution)["colocated"]["status"] == "OPTIMAL"
    text = answer(solution.result, None, fixed=solution.fixed)
    assert "breaks rules" in text
    assert json.loads(solution.result.model_dump_json())["metrics"]["disaggregation"]
