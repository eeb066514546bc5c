"""Every kind of spoiled plan is refused, naming the rule that it breaks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.check.builders import (
    ONE_STAGE,
    TWO_STAGES,
    Sketch,
    instance,
    plan_for,
    restated,
    spoiled,
)
from tests.check.right import (
    FIGURES,
    KV_CACHE,
    LATENCY,
    LONE_STAGE,
    LONE_TPOT,
    NEXT,
    PLAN,
    POINT,
    RIGHT,
    STAGE,
    SUBJECT,
    WEIGHTS,
    broken,
    value_at,
)

from shardwright.check import RULES, check


def test_the_right_plan_is_accepted() -> None:
    RIGHT.raise_if_bad()
    assert RIGHT.ok
    assert not RIGHT.violations
    rates = {"fix", "grid", "request_rate", "objective_value", "instance_hash"}
    optional = (
        rates
        | {name for name in RULES if name.endswith("_limit")}
        | {name for name in RULES if name.startswith("max_") or "imbalance" in name}
        | {"communication_share", "survive", "load_claim"}
        | {"tensor_groups_inside_island", "ep_within_experts"}
        | {"experts_divisible", "engine_shape", "expert_map"}
        | {name for name in RULES if name.startswith("disaggregated_")}
    )
    assert {row.rule for row in RIGHT.rows} | optional == set(RULES)


def test_one_of_many_equal_replicas_is_told_apart() -> None:
    """Figures of equal replicas are computed once, whatever their claims differ in."""
    subject = instance({"cluster.nodes.0.count": 4})
    whole = [[(0, 8, "big", f"a-{n}", (0, 1))] for n in range(4)]
    each = [Sketch(stages, micro_batches=1) for stages in whole]
    plan = plan_for(subject, *each)
    assert check(subject, plan).ok
    stage = "pools.0.replicas.2.stages.0"
    claims = {
        f"{stage}.memory_bytes.weights": "memory_parts",
        f"{stage}.decode_time_ns": "decode_time",
        f"{stage}.prefill_time_ns": "prefill_time",
        f"{stage}.shape.tp": "shape_product",
        f"{stage}.gpus.1.node": "stage_inside_island",
        "pools.0.replicas.2.latency.tpot_ns": "tpot",
        "pools.0.replicas.2.operating_point.prompt_tokens": "operating_point",
    }
    for path, rule in claims.items():
        value: object = "a-3" if path.endswith("node") else 7
        report = check(subject, spoiled(plan, {path: value}))
        hit = {v.entity for v in report.violations if v.rule == rule}
        assert hit, path
        assert all(name.startswith("replica 2") for name in hit), path


# --- structure ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        # a layer is skipped, served twice, left over at the end, or out of order;
        # the claims of the stage then belong to other layers
        ({f"{STAGE}.layers": [0, 3]}, {"layers_covered", "claims"}),
        ({f"{STAGE}.layers": [0, 5]}, {"layers_covered", "claims"}),
        ({f"{NEXT}.layers": [4, 7]}, {"layers_covered", "claims"}),
        ({f"{NEXT}.layers": [4, 9]}, {"layers_covered"}),
        ({f"{STAGE}.layers": [1, 4]}, {"layers_covered", "claims"}),
        ({f"{STAGE}.layers": [4, 8], f"{NEXT}.layers": [0, 4]}, {"layers_covered"}),
        # one layer moves to the next stage without its claims
        ({f"{STAGE}.layers": [0, 3], f"{NEXT}.layers": [3, 8]}, {"claims"}),
        # GPUs
        ({f"{STAGE}.gpus.0.gpu": 9}, {"gpu_exists"}),
        ({f"{NEXT}.gpus.0.node": "z"}, {"gpu_exists"}),
        ({f"{STAGE}.gpus.1.gpu": 2}, {"gpu_used_once"}),
        ({f"{STAGE}.gpus.1.gpu": 0}, {"gpu_used_once"}),
        ({f"{LONE_STAGE}.gpus.1": {"node": "b", "gpu": 1, "rank": 1}},
         {"stage_inside_island", "gpu_type"}),
        ({f"{STAGE}.gpus.0.rank": 1, f"{STAGE}.gpus.1.rank": 0}, {"rank_order"}),
        ({f"{NEXT}.gpus.1.rank": 4}, {"rank_order"}),
        # shapes
        ({f"{STAGE}.shape.ep": 2}, {"shape_product", "equal_shape_per_stage"}),
        ({f"{STAGE}.shape.moe_tp": 1, f"{STAGE}.shape.ep": 2},
         {"shape_product", "equal_shape_per_stage"}),
        ({f"{STAGE}.shape.cp": 2, f"{NEXT}.shape.cp": 2},
         {"shape_product", "context_parallel", "claims"}),
        # operating point
        ({f"{POINT}.micro_batch_sequences": 9}, {"operating_point"}),
        ({f"{POINT}.prompt_tokens": 41}, {"operating_point"}),
        ({f"{POINT}.chunk_count": 3}, {"operating_point"}),
        # claims
        ({WEIGHTS: value_at(WEIGHTS) - 1}, {"memory_parts"}),
        ({KV_CACHE: value_at(KV_CACHE) + 1}, {"memory_parts"}),
        ({f"{NEXT}.memory_bytes.framework": 10**9 + 1}, {"memory_parts"}),
        ({LONE_TPOT: value_at(LONE_TPOT) + 1}, {"tpot"}),
        ({LONE_TPOT: value_at(LONE_TPOT) - 1}, {"tpot"}),
        ({f"{LATENCY}.tpot_ns": value_at(f"{LATENCY}.tpot_ns") - 3}, {"tpot"}),
        ({f"{LATENCY}.ttft_ns": value_at(f"{LATENCY}.ttft_ns") - 1}, {"ttft"}),
        ({f"{LATENCY}.rate_mtok_per_s": value_at(f"{LATENCY}.rate_mtok_per_s") + 1},
         {"rate_claim"}),
        ({f"{LATENCY}.prefill_ns": value_at(f"{LATENCY}.prefill_ns") - 2},
         {"prefill_latency"}),
    ],
)  # fmt: skip
def test_spoiled_plan(changes: dict[str, Any], rules: set[str]) -> None:
    found = broken(SUBJECT, spoiled(PLAN, changes))
    if "claims" in rules:
        claims = {"memory_parts", "decode_time", "prefill_time"}
        assert claims <= found
        found = found - claims | {"claims"}
    assert found == rules


def test_nonsense_is_reported_not_raised() -> None:
    changes = {f"{NEXT}.layers": [8, 8], f"{NEXT}.gpu_type": "huge"}
    found = broken(SUBJECT, spoiled(PLAN, changes))
    assert {"layers_covered", "stage_not_empty", "gpu_type"} <= found


def test_empty_stage() -> None:
    # [8, 8) follows [0, 8) without a gap: only the empty stage is wrong
    stages = [(0, 8, "big", "a-0", (0, 1)), (8, 8, "big", "a-0", (2, 3))]
    plan = plan_for(SUBJECT, Sketch(stages))
    assert broken(SUBJECT, plan) == {"stage_not_empty"}


def test_stage_across_two_nodes() -> None:
    plan = plan_for(SUBJECT, ONE_STAGE)
    apart = spoiled(plan, {f"{STAGE}.gpus.1.node": "a-0"})
    report = check(SUBJECT, apart)
    assert report.broken() == ("stage_inside_island",)
    assert "island 0 of a-1, island 0 of a-0" in report.violations[0].message


def test_gpu_swapped_across_islands() -> None:
    changes = {"cluster.gpu_types.big.island_gpus": 2}
    subject = instance(changes)
    plan = plan_for(subject, TWO_STAGES)
    assert broken(subject, plan) == set()
    swapped = spoiled(plan, {f"{STAGE}.gpus.1.gpu": 2, f"{NEXT}.gpus.0.gpu": 1})
    report = check(subject, swapped)
    assert report.broken() == ("stage_inside_island",)
    assert [v.entity for v in report.violations] == [
        "replica 0 stage 0",
        "replica 0 stage 1",
    ]


@pytest.mark.parametrize("state", ["reserved", "failed"])
def test_withheld_gpu(state: str) -> None:
    subject = instance({f"cluster.nodes.0.{state}": [1]})
    report = check(subject, PLAN)
    assert report.broken() == ("gpu_available",)
    # both nodes of the group lose GPU 1
    assert [v.entity for v in report.violations] == [
        "replica 0 stage 0",
        "replica 1 stage 0",
    ]
    assert f"a-0/1 is {state}" in report.violations[0].message


def test_wrong_type() -> None:
    stages = [(0, 4, "small", "a-0", (0, 1)), (4, 8, "big", "a-0", (2, 3))]
    assert broken(SUBJECT, plan_for(SUBJECT, Sketch(stages))) == {"gpu_type"}


def test_unknown_type_is_timed_as_the_node_at_hand() -> None:
    assert broken(SUBJECT, spoiled(PLAN, {f"{STAGE}.gpu_type": "huge"})) == {"gpu_type"}
    nowhere = {f"{STAGE}.gpu_type": "huge", f"{STAGE}.gpus.0.node": "z"}
    nowhere[f"{STAGE}.gpus.1.node"] = "z"
    found = broken(SUBJECT, spoiled(PLAN, nowhere))
    assert {"gpu_type", "gpu_exists"} <= found


def test_instance_hash() -> None:
    wrong = spoiled(PLAN, {"instance_sha256": "0" * 64})
    report = check(SUBJECT, wrong)
    assert report.broken() == ("instance_hash",)
    own = report.violations[0].message.split()[-1]
    assert broken(SUBJECT, spoiled(PLAN, {"instance_sha256": own})) == set()
    other = instance({"name": "another"})
    assert broken(other, spoiled(PLAN, {"instance_sha256": own})) == {"instance_hash"}


# --- claims of time -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "rule"),
    [("decode_time_ns", "decode_time"), ("prefill_time_ns", "prefill_time")],
)
@pytest.mark.parametrize("factor", [1.01, 0.99])
def test_stage_time_off_by_one_percent(field: str, rule: str, factor: float) -> None:
    value = int(value_at(f"{STAGE}.{field}") * factor)
    wrong = spoiled(PLAN, {f"{STAGE}.{field}": value})
    # The rest of the claims follow from the wrong time, so it alone is at fault.
    assert broken(SUBJECT, restated(SUBJECT, wrong)) == {rule}


@pytest.mark.parametrize("field", ["decode_time_ns", "prefill_time_ns"])
def test_rounding_allowance_of_stage_times(field: str) -> None:
    # Four layers and the stage constant are rounded: 5 ns, and 1e-9 of < 1 ms.
    value = value_at(f"{STAGE}.{field}")
    for off, good in ((5, True), (-5, True), (6, False), (-6, False)):
        plan = restated(SUBJECT, spoiled(PLAN, {f"{STAGE}.{field}": value + off}))
        assert check(SUBJECT, plan).ok == good


def test_latency_follows_from_claimed_times() -> None:
    # A claimed time within its allowance must be carried through to the nanosecond.
    value = value_at(f"{STAGE}.prefill_time_ns") + 5
    plan = spoiled(PLAN, {f"{STAGE}.prefill_time_ns": value})
    assert broken(SUBJECT, plan) == {"prefill_latency", "ttft"}


def test_hops_have_one_ns_each() -> None:
    # S binds: one hop and the return may each be 1 ns off, and what follows is exact.
    changes = {"cluster.gpu_types.big.calibration.network_latency_us": 5000}
    subject = instance(changes)
    plan = plan_for(subject, TWO_STAGES)
    law = check(subject, plan).figures.replicas[0].law
    assert law.tpot_ns == law.pass_ns
    for off, good in ((2, True), (-2, True), (3, False), (-3, False)):
        theta = law.tpot_ns + off
        latency = {
            "tpot_ns": theta,
            "prefill_ns": law.prefill_ns,
            "ttft_ns": -(-theta // 4) + law.prefill_ns,
            "rate_mtok_per_s": 16 * 10**12 // theta,
        }
        report = check(subject, spoiled(plan, {LATENCY: latency}))
        assert ("tpot" not in report.broken()) == good
        assert report.ok == good


def test_prefill_hop_has_one_ns() -> None:
    latency = {name: value_at(f"{LATENCY}.{name}") for name in ("tpot_ns", "ttft_ns")}
    latency["rate_mtok_per_s"] = value_at(f"{LATENCY}.rate_mtok_per_s")
    latency["prefill_ns"] = value_at(f"{LATENCY}.prefill_ns") + 1
    latency["ttft_ns"] += 1
    assert broken(SUBJECT, spoiled(PLAN, {LATENCY: latency})) == set()


def test_lying_stage_times_do_not_hide_a_limit() -> None:
    true = FIGURES.replicas[0].law.tpot_ns
    subject = instance({"slo": [{"metric": "tpot", "limit_ms": true / 1e6 - 0.001}]})
    plan = plan_for(SUBJECT, TWO_STAGES)
    short = {f"{s}.decode_time_ns": 1000 for s in (STAGE, NEXT)}
    lie = restated(subject, spoiled(plan, short))
    assert broken(subject, lie) == {"decode_time", "tpot_limit"}


def test_zero_time_is_no_division_by_zero() -> None:
    plan = plan_for(SUBJECT, ONE_STAGE)
    zero = spoiled(plan, {f"{STAGE}.decode_time_ns": 0, f"{LATENCY}.tpot_ns": 0})
    assert "decode_time" in broken(SUBJECT, zero)


# --- engine ---------------------------------------------------------------------------

UNEVEN = Sketch([(0, 4, "big", "a-0", (0, 1)), (4, 8, "big", "a-0", (2,))])
THREE = Sketch([(0, 8, "big", "a-0", (0, 1, 2))], micro_batches=1)
UNMATCHED = Sketch(TWO_STAGES.stages, micro_batches=1)


@pytest.mark.parametrize(
    ("sketch", "rule"),
    [
        (UNEVEN, "equal_shape_per_stage"),
        (THREE, "heads_divisible"),
        (UNMATCHED, "micro_batches_equal_stages"),
    ],
)
def test_engine_rules(sketch: Sketch, rule: str) -> None:
    for engine in ("vllm", "sglang", "trtllm"):
        subject = instance({"engine": {"name": engine}})
        assert broken(subject, plan_for(subject, sketch)) == {rule}
    generic = instance({"engine": {"name": "generic"}})
    assert broken(generic, plan_for(generic, sketch)) == set()
    switched = instance({"engine": {"name": "vllm", "rules": {rule: False}}})
    assert broken(switched, plan_for(switched, sketch)) == set()
    asked = instance({"engine": {"name": "generic", "rules": {rule: True}}})
    assert broken(asked, plan_for(asked, sketch)) == {rule}


def test_kv_heads_divide_or_are_replicated() -> None:
    # 12 heads: tp 4 divides the heads; 3 KV heads neither split over 4 nor divide it
    attention = {"heads": 12, "kv_heads": 3, "head_dim": 32}
    subject = instance({"model.layer_kinds.0.attention": attention})
    four = Sketch([(0, 8, "big", "a-0", (0, 1, 2, 3))], micro_batches=1)
    assert broken(subject, plan_for(subject, four)) == {"heads_divisible"}
    # 2 KV heads on 4 ranks are replicated twice each
    assert broken(SUBJECT, plan_for(SUBJECT, four)) == set()
    no_op = instance({"model.layer_kinds.0.attention": None})
    assert broken(no_op, plan_for(no_op, THREE)) == set()
