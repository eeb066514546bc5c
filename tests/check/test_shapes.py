"""Plans whose shapes, islands or slots break a rule, each named by the checker."""

from __future__ import annotations

from typing import Any

import pytest
from tests.check.builders import ONE_STAGE, Sketch, instance, plan_for, spoiled
from tests.check.mixtures import (
    FFN,
    ONE_ISLAND,
    TWO_ISLANDS,
    mixture,
    report_of,
    sketch_of,
)
from tests.check.right import PLAN, STAGE, SUBJECT, broken

from shardwright.check import check

FOUR = sketch_of(ONE_ISLAND, 3)
WIDE = {"tp": 1, "attn_dp": 4, "moe_tp": 1, "ep": 4}
BOTH = "a-0 a-1"
NARROW = {"cluster.gpu_types.big.island_gpus": 2}


def found(sketch: Sketch, **changes: Any) -> tuple[str, ...]:
    return report_of(mixture(changes), sketch).broken()


def test_right_shapes_are_accepted() -> None:
    assert found(FOUR) == ()
    assert found(sketch_of(TWO_ISLANDS, 2, BOTH)) == ()


@pytest.mark.parametrize(
    ("shape", "slots", "rules"),
    [
        # attention or experts do not come to four GPUs
        ({**ONE_ISLAND, "attn_dp": 1}, 3, ("shape_product",)),
        ({**ONE_ISLAND, "attn_dp": 4}, 3, ("shape_product",)),
        ({**ONE_ISLAND, "moe_dp": 2}, 3, ("shape_product",)),
        ({**ONE_ISLAND, "ep": 2}, 5, ("shape_product",)),
        ({**ONE_ISLAND, "cp": 2}, 3, ("shape_product",)),
        # three ranks cannot share two copies, and one rank none
        ({"tp": 4, "moe_tp": 1, "ep": 2, "moe_dp": 2}, 5, ("shape_product",)),
        ({**WIDE, "tp": 3}, 3, ("shape_product", "tensor_groups_inside_island")),
        # slots
        (ONE_ISLAND, 2, ("expert_slots",)),
        (ONE_ISLAND, 0, ("expert_slots",)),
    ],
)
def test_spoiled_shape(
    shape: dict[str, int], slots: int, rules: tuple[str, ...]
) -> None:
    assert found(sketch_of(shape, slots)) == rules


def test_slots_of_a_dense_model() -> None:
    assert broken(SUBJECT, spoiled(PLAN, {f"{STAGE}.expert_slots": 1})) == {
        "expert_slots",
        "equal_shape_per_stage",
    }


def test_experts_that_no_layer_has() -> None:
    # the model is dense: no slots, and no rows of rules for experts
    kinds = [SUBJECT.model.layer_kinds[0].model_dump(mode="json")]
    kinds.append(mixture().model.layer_kinds[0].model_dump(mode="json"))
    kinds[1]["name"] = "unused"
    subject = instance({"model.layer_kinds": kinds})
    report = check(subject, plan_for(subject, ONE_STAGE))
    report.raise_if_bad()
    assert "ep_within_experts" not in {row.rule for row in report.rows}


def test_ep_above_the_experts() -> None:
    few = {f"{FFN}.experts": 3}
    assert found(sketch_of(ONE_ISLAND, 1), **few) == ("ep_within_experts",)


# --- islands --------------------------------------------------------------------------


def test_islands_in_part() -> None:
    two_each = sketch_of(ONE_ISLAND, 3, BOTH, range(2))
    report = report_of(mixture(), two_each)
    assert report.broken() == ("stage_inside_island",)
    assert "island 0 of a-0 without GPU 2 and 3" in report.violations[0].message


def test_withheld_gpus_are_no_part_of_an_island() -> None:
    # Two islands of four with GPUs 2 and 3 reserved, or 3 alone: one is left out then.
    sketch = sketch_of(ONE_ISLAND, 3, BOTH, range(2))
    nodes = {"name": "a", "gpu": "big", "gpus": 4, "count": 2}
    assert found(sketch, **{"cluster.nodes": [{**nodes, "reserved": [2, 3]}]}) == ()
    left = {"cluster.nodes": [{**nodes, "failed": [3]}]}
    assert found(sketch, **left) == ("stage_inside_island",)


def test_islands_of_different_sizes() -> None:
    # node b has an island of its two GPUs; both islands are whole
    nodes = [
        {"name": "a", "gpu": "big", "gpus": 4},
        {"name": "b", "gpu": "big", "gpus": 2},
    ]
    subject = mixture({"cluster.nodes": nodes, f"{FFN}.experts": 12})
    shape = {"tp": 1, "attn_dp": 6, "moe_tp": 1, "ep": 6}
    plan = plan_for(subject, sketch_of(shape, 2, "a", range(6)))
    moved = {
        f"{STAGE}.gpus.{i}": {"node": "b", "gpu": i - 4, "rank": i} for i in (4, 5)
    }
    report = check(subject, spoiled(plan, moved))
    violations = [v for v in report.violations if v.rule == "stage_inside_island"]
    assert [v.left for v in violations] == [1]
    assert "another number of GPUs" in violations[0].message


def test_several_islands_need_expert_parallelism() -> None:
    shape = {"tp": 1, "attn_dp": 8, "moe_tp": 8, "ep": 1}
    report = report_of(mixture(), sketch_of(shape, 10, BOTH))
    assert report.broken() == ("stage_inside_island", "tensor_groups_inside_island")


def test_dense_stage_on_two_whole_islands() -> None:
    subject = instance(NARROW)
    sketch = Sketch([(0, 8, "big", "a-0", range(4))], micro_batches=1)
    assert report_of(subject, sketch).broken() == ("stage_inside_island",)


@pytest.mark.parametrize(
    "shape",
    [
        {"tp": 4, "attn_dp": 1, "moe_tp": 1, "ep": 4},
        {"tp": 1, "attn_dp": 4, "moe_tp": 4, "ep": 1},
    ],
)
def test_tensor_groups_do_not_fit_an_island(shape: dict[str, int]) -> None:
    # islands of two GPUs; groups of four
    slots = -(-10 // shape["ep"])
    rules = found(sketch_of(shape, slots), **NARROW)
    assert "tensor_groups_inside_island" in rules
    assert ("stage_inside_island" in rules) == (shape["ep"] == 1)


def test_tensor_groups_torn_by_the_order_of_ranks() -> None:
    subject = mixture(NARROW)
    plan = plan_for(subject, FOUR)
    swapped = spoiled(plan, {f"{STAGE}.gpus.1.gpu": 2, f"{STAGE}.gpus.2.gpu": 1})
    report = check(subject, swapped)
    assert report.broken() == ("tensor_groups_inside_island",)
    assert "ranks 0 to 1, ranks 2 to 3" in report.violations[0].message


# --- engines --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "shape", "rules"),
    [
        ("vllm", ONE_ISLAND, ()),
        ("vllm", {**ONE_ISLAND, "moe_tp": 4, "ep": 1}, ()),
        ("vllm", {**ONE_ISLAND, "moe_tp": 2, "ep": 2}, ("engine_shape",)),
        ("vllm", {**ONE_ISLAND, "ep": 2, "moe_dp": 2}, ("engine_shape",)),
        ("trtllm", WIDE, ()),
        ("trtllm", {**WIDE, "tp": 4, "attn_dp": 1}, ()),
        ("trtllm", {**WIDE, "moe_tp": 2, "ep": 2}, ()),
        ("trtllm", ONE_ISLAND, ("engine_shape",)),
        ("sglang", ONE_ISLAND, ()),
        ("sglang", {**ONE_ISLAND, "moe_tp": 2, "ep": 2}, ()),
        ("sglang", {**ONE_ISLAND, "ep": 2, "moe_dp": 2}, ("engine_shape",)),
        ("generic", {**ONE_ISLAND, "ep": 2, "moe_dp": 2}, ()),
    ],
)
def test_engine_shape(
    engine: str, shape: dict[str, int], rules: tuple[str, ...]
) -> None:
    sketch = sketch_of(shape, -(-10 // shape["ep"]))
    assert found(sketch, engine={"name": engine}) == rules


@pytest.mark.parametrize(
    ("engine", "slots", "rules"),
    [
        # ten experts on four GPUs: 3 slots with R = 2 redundant ones where they fill up
        ("sglang", 3, ()),
        ("sglang", 4, ("expert_slots", "experts_divisible")),
        ("sglang", 2, ("expert_slots", "experts_divisible")),
        ("vllm", 4, ("expert_slots",)),
        ("generic", 4, ()),
    ],
)
def test_slots_of_engines(engine: str, slots: int, rules: tuple[str, ...]) -> None:
    assert found(sketch_of(ONE_ISLAND, slots), engine={"name": engine}) == rules


def test_filled_slots_are_in_balance() -> None:
    # β = 12/10 for vllm and 1 for sglang: 11,059.2 and 9,216 µs of experts
    times = {
        engine: report_of(mixture({"engine": {"name": engine}}), FOUR)
        .figures.replicas[0]
        .stages[0]
        .decode.total_ns
        for engine in ("vllm", "sglang")
    }
    assert times["vllm"] - times["sglang"] == 2 * (11_059_200 - 9_216_000)


def test_stages_with_other_slots_or_shapes() -> None:
    stages = [(0, 1, "big", "a-0", range(4)), (1, 2, "big", "a-1", range(4))]
    sketch = Sketch(stages, 8, 2, 100, shape=ONE_ISLAND, slots=3)
    subject = mixture({"engine.rules": {"equal_shape_per_stage": True}})
    plan = plan_for(subject, sketch)
    assert broken(subject, plan) == set()
    report = check(subject, spoiled(plan, {f"{STAGE}.expert_slots": 4}))
    assert "equal_shape_per_stage" in report.broken()
    text = next(str(v) for v in report.violations if v.rule == "equal_shape_per_stage")
    assert "tp 2 attn_dp 2 moe_tp 1 ep 4 moe_dp 1 with 4 slots" in text
    shape = {**WIDE, "cp": 1, "moe_dp": 1}
    report = check(subject, spoiled(plan, {f"{STAGE}.shape": shape}))
    assert "equal_shape_per_stage" in report.broken()


@pytest.mark.parametrize("degree", ["tp", "attn_dp", "moe_tp", "ep"])
def test_fixed_degrees(degree: str) -> None:
    right = {**ONE_ISLAND}[degree]
    assert found(FOUR, fix={degree: right}) == ()
    report = report_of(mixture({"fix": {degree: right + 1}}), FOUR)
    assert report.broken() == ("fix",)
    assert f"{degree} is {right} GPU; must be {right + 1} GPU" in str(
        report.violations[0]
    )


def test_max_tensor_parallel_counts_tp_alone() -> None:
    limits = {"limits.max_tensor_parallel": 1}
    assert found(sketch_of(WIDE, 3), **limits) == ()
    assert found(FOUR, **limits) == ("max_tensor_parallel",)
