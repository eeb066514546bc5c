"""Experts on GPUs of their own: cost-model, section 11, worked out on paper."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from tests.check.builders import Changes, Sketch, plan_for, spoiled
from tests.check.mixtures import FFN, SLOW, mixture
from tests.check.right import STAGE, broken

from shardwright.check import Report, check
from shardwright.check.figures import StageFigures
from shardwright.check.stations import PingPong, Stations
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind
from shardwright.schema.plan import Plan

# Islands of eight GPUs: four with attention (tp 2, d 2), four with experts (ep 4), two
# parts. m = 8, c = 40, ŝ = 1000, x̂ = 2·1000, φ = 1/50, chunk = s = 100.
SHAPE = {"tp": 2, "attn_dp": 2, "moe_tp": 1, "ep": 4}
PLACES = [(0, 2, "big", "a-0", range(8))]
SKETCH = Sketch(PLACES, 8, 1, 100, shape=SHAPE, slots=3, unit=(4, 2))
HALVES = [(0, 1, "big", "a-0", range(8)), (1, 2, "big", "a-1", range(8))]
TWO = replace(SKETCH, stages=HALVES)
EIGHTS = {
    "cluster.gpu_types.big": {**SLOW, "island_gpus": 8},
    "cluster.nodes": [{"name": "a", "gpu": "big", "gpus": 8, "count": 2}],
}
UNIT = f"{STAGE}.expert_unit"
NEXT_UNIT = "pools.0.replicas.0.stages.1.expert_unit"


def subject_of(changes: Changes | None = None) -> Instance:
    return mixture({**EIGHTS, **(changes or {})})


def report_of(subject: Instance, sketch: Sketch = SKETCH) -> Report:
    report = check(subject, plan_for(subject, sketch))
    report.raise_if_bad()
    return report


def stages_of(changes: Changes, sketch: Sketch = SKETCH) -> tuple[StageFigures, ...]:
    return report_of(subject_of(changes), sketch).figures.replicas[0].stages


SUBJECT = subject_of()
PLAN = plan_for(SUBJECT, SKETCH)
RIGHT = report_of(SUBJECT)
FIGURES = RIGHT.figures.replicas[0].stages[0]


# --- memory ---------------------------------------------------------------------------


def test_memory_of_an_attention_gpu() -> None:
    # Layer 2·(248 + 36) without the slots (test_mixtures.py); embedding, head, norm.
    # Width max((2 + 1)·4, 2·⌈6/2⌉) = 12. A buffer for each of K = 2 experts and one.
    memory = FIGURES.memory
    assert memory.weights == 2 * 568 + 2 * 1024 + 16
    assert memory.kv_cache == 2 * 4670 * 8
    assert memory.activations == 104 * 2 * (24 + 12) + 5 * 128 * 4
    assert memory.communication == 10**8 + 104 * 16 * 3
    assert memory.framework == 10**9


def test_memory_of_an_expert_gpu() -> None:
    # Three slots of 96 weights in two layers; P = ⌈(8 + 100)·2·3/10⌉ = ⌈64.8⌉ = 65
    # pairs of 2·8 + 2·4 values, and twice 8 in the buffers.
    memory = FIGURES.expert_memory
    assert memory is not None
    assert memory.weights == 2 * 3 * 96 * 2
    assert memory.kv_cache == 0
    assert memory.activations == 65 * 2 * 24
    assert memory.communication == 10**8 + 65 * 2 * 8 * 2
    assert memory.framework == 10**9


def test_redundant_experts_and_biases_on_expert_gpus() -> None:
    # Two groups of moe_tp 2: 6 slots, R = 2, of 3·8·2 weights and 2·2 + 8 biases;
    # P = ⌈108·2·6/12⌉ = 108 of 2·8 + 2·2 values
    shape = {**SHAPE, "moe_tp": 2, "ep": 2}
    sketch = replace(SKETCH, shape=shape, slots=6)
    memory = stages_of({f"{FFN}.bias": True}, sketch)[0].expert_memory
    assert memory is not None
    assert memory.weights == 2 * (6 * 48 * 2 + 6 * 12 * 2)
    assert memory.activations == 108 * 2 * 20


def test_a_pipeline_has_one_communicator_more_on_attention_gpus_alone() -> None:
    for stage in stages_of({}, TWO):
        assert stage.memory.communication == 2 * 10**8 + 104 * 16 * 3
        assert stage.expert_memory is not None
        assert stage.expert_memory.communication == 10**8 + 65 * 32


def test_widths_of_experts_do_not_count_beside_them() -> None:
    # Shared width 50: 2·⌈50/2⌉ = 50 values; experts as wide as they like
    changes = {f"{FFN}.shared_intermediate": 50, f"{FFN}.intermediate": 4000}
    stage = stages_of(changes)[0]
    assert stage.memory.activations == 104 * 2 * (24 + 50) + 5 * 128 * 4


def test_imbalance_counts_every_gpu_with_its_own_bytes() -> None:
    assert FIGURES.expert_memory is not None
    attention, experts = FIGURES.memory.total(), FIGURES.expert_memory.total()
    found = RIGHT.figures.replicas[0].memory_imbalance()
    assert found == Fraction(attention * 8, 4 * attention + 4 * experts) - 1
    assert found > 0


# --- time -----------------------------------------------------------------------------

# Of 50 iterations one has 1000 prompt tokens on a rank: parts of n_v = 2 + 500 and
# N_v = 1004 tokens, else 2 and 4. µs, without and with:
#   matrices     2·248·n_v/5e5                         1,984     497,984
#   decode att.  2·1100·4·2/5e5                       35,200      35,200
#   prefill att. 2·500·500·2·4/2e5                         -  20,000,000
#   all-reduces  2·(10 + n_v·16/5e5), and 2 overhead     150      32,150
# T_a                                                 37,334  20,565,334
# T_w  12 + N_v·0.525·16/5e5                            79.2    16,879.2
#      ω = 1 − (3/4)² = 7/16; β = 3·4/10: ω·β = 0.525 is above ω·4/4
# T_e  2·96·(N_v·2/4)·β/5e5, and 2 overhead            923.6   231,323.6
# Attention binds: t = 2·T_a, in the mean (49·74,668 + 41,130,668)/50 = 895,788; its
# all-reduces are 2·2·(74 or 16,074) of it: 1,576. Fill 2·T_w + T_e: 1,082 or 265,082.
LAYER, FILL = 895_788_000, 6_362_000
# the stage constant and its collectives are those of test_mixtures.py
CONSTANT, EDGES = 10_488_080, 778_000 + 1_039_120


def test_decode_time() -> None:
    assert FIGURES.decode.total_ns == 2 * LAYER + CONSTANT + FILL
    assert FIGURES.decode.communication_ns == 2 * 1_576_000 + EDGES


def test_prefill_time() -> None:
    # n_v = 2 + 50, N_v = 54. µs: 51,584 + 35,200 + 2,000,000 + 2 + 2·1,674 = 2,090,134;
    # T_w 12 + 907.2; T_e 2·96·32.4/5e5 + 2 = 12,443.6; fill 14,282.
    prefill = FIGURES.prefill
    assert prefill.total_ns == 2 * 4_180_268_000 + 14_512_400 + 14_282_000
    assert prefill.communication_ns == 2 * 4 * 1_674_000 + 3_338_000 + 1_059_600


def test_the_other_layers_are_waited_for_in_every_stage() -> None:
    # The first stage has a dense FFN of width 6 alone: far below S*, which is of the
    # second stage's kind: 37,334 + 1,082 = 38,416, with prompts 20,830,416; mean
    # 454,256. Without communication S* is 37,186 + 923.6 and 20,533,186 + 231,323.6.
    kind: dict[str, Any] = SUBJECT.model.layer_kinds[0].model_dump(mode="json")
    ffn = {"intermediate": 6}
    plain = {"name": "plain", "attention": None, "ffn": ffn, "norm_width": 0}
    changes = {
        "model.layer_kinds": [plain, kind],
        "model.layers": ["plain", "block"],
    }
    first, second = stages_of(changes, TWO)
    # Constant: 50 + 4; embedding 384/1e6 and all-reduce 778
    assert first.decode.total_ns == 454_256_000 + 1_216_000 + FILL
    assert first.decode.communication_ns == 1_618_400 + 778_000
    assert first.expert_memory is not None
    assert first.expert_memory.weights == 0
    assert first.expert_memory.activations == 65 * 2 * 24
    assert second.decode.total_ns == LAYER + CONSTANT - 384_000 - 778_000 + FILL


def test_attention_alone_has_one_all_reduce() -> None:
    # Without shared experts: 2·(96 + 80) matrices, one all-reduce less in each part
    changes = {f"{FFN}.shared_experts": 0, f"{FFN}.shared_intermediate": 0}
    decode = stages_of(changes)[0].decode
    # 2·72·24/5e5 in the mean of both parts
    less = 6_912_000
    assert decode.total_ns == 2 * (LAYER - less - 788_000) + CONSTANT + FILL
    assert decode.communication_ns == 2 * 788_000 + EDGES


def test_expert_overhead_is_of_the_expert_gpus() -> None:
    costs = {"layer_overhead_us": 2, "step_overhead_us": 50, "sequence_overhead_us": 1}
    engines = {"vllm": {**costs, "expert_overhead_us": 7}}
    gpu = EIGHTS["cluster.gpu_types.big"]
    assert isinstance(gpu, dict)
    calibration = {**gpu["calibration"], "engines": engines}
    changes = {"cluster.gpu_types.big": {**gpu, "calibration": calibration}}
    # only the fill has it: the layers are bound by attention
    decode = stages_of(changes)[0].decode
    assert decode.total_ns == 2 * LAYER + CONSTANT + FILL + 7_000


def _kind(name: str) -> LayerKind:
    ffn = {"intermediate": 4}
    document = {"name": name, "attention": None, "ffn": ffn, "norm_width": 0}
    return LayerKind.model_validate(document)


def _stations(attention: int, reduces: int, way: int, experts: int) -> Stations:
    return Stations(*map(Fraction, (attention, reduces, way, experts)))


@pytest.mark.parametrize(
    ("parts", "several", "whole", "communication", "fill"),
    [
        # experts bind: 2·7 against 4 + 2·1 + 7; hidden communication is in no share
        (2, [(4, 1, 1, 7)], 14, 0, 6),
        # a way binds: 2·9 against 4 + 18 + 7: S*, of which 3 + 7 or 2·7 remain
        (2, [(4, 1, 9, 7)], 29, 15, 9),
        # three parts: 3·9 is below S*, four are above it
        (3, [(4, 1, 9, 7)], 29, 8, 18),
        (4, [(4, 1, 9, 7)], 36, 8, 20),
        # the other kind's attention is in S* and in b, not in 2·max(T)
        (2, [(4, 1, 1, 7), (20, 0, 0, 0)], 29, 2, 9),
    ],
)
def test_layer_and_fill(
    parts: int,
    several: list[tuple[int, int, int, int]],
    whole: int,
    communication: int,
    fill: int,
) -> None:
    named = {f"kind {i}": _stations(*times) for i, times in enumerate(several)}
    play = PingPong(parts, named)
    found = play.layer(_kind("kind 0"))
    assert found == (Fraction(whole), Fraction(communication))
    assert play.fill() == fill


# --- pools ----------------------------------------------------------------------------


def test_only_attention_gpus_move_caches() -> None:
    # V = 1e-6·0.5·1e9 = 500 B/s between islands, b = 1000·2·16 B: ρ = ⌊500·200·1000/b⌋
    gpu = {**SLOW, "island_gpus": 8, "network_gbyte_per_s": 1e-6}
    subject = subject_of({"cluster.gpu_types.big": gpu, "pools": "disaggregated"})
    taking = replace(SKETCH, role="prefill")
    making = replace(SKETCH, role="decode", stages=[(0, 2, "big", "a-1", range(8))])
    report = check(subject, plan_for(subject, taking, making))
    report.raise_if_bad()
    rates = [r.rate_mtok_per_s for r in report.figures.replicas]
    assert rates[1] == 4 * (500 * 200 * 1000 // 32_000)


# --- rules ----------------------------------------------------------------------------


def test_the_right_plan_is_accepted() -> None:
    rules = {row.rule for row in RIGHT.rows}
    assert {name for name in rules if name.startswith("disaggregated_")} == {
        "disaggregated_experts",
        "disaggregated_shape",
        "disaggregated_alike",
    }
    assert not rules & {"shape_product", "engine_shape"}
    words = [row.quantity for row in RIGHT.rows if row.rule == "memory_fits"]
    assert words == [
        "memory of each attention GPU is",
        "memory of each expert GPU is",
    ]


CLAIMS = {"memory_parts", "decode_time", "prefill_time"}


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({f"{UNIT}.memory_bytes.weights": 1}, {"claims"}),
        ({f"{UNIT}.memory_bytes.kv_cache": 1}, {"claims"}),
        ({f"{STAGE}.shape.moe_dp": 2}, {"disaggregated_shape"}),
        ({f"{STAGE}.shape.cp": 2}, {"disaggregated_shape"}),
        ({f"{STAGE}.shape.tp": 1}, {"claims", "disaggregated_shape"}),
        ({f"{STAGE}.shape.attn_dp": 1}, {"claims", "disaggregated_shape"}),
        ({f"{STAGE}.shape.moe_tp": 2}, {"claims", "disaggregated_shape"}),
        ({f"{STAGE}.shape.ep": 3}, {"claims", "disaggregated_shape", "expert_slots"}),
        ({f"{UNIT}.gpus": 3}, {"disaggregated_shape", "tensor_groups_inside_island"}),
        ({f"{UNIT}.gpus": 2}, {"disaggregated_shape"}),
        ({f"{UNIT}.gpus": 9}, {"disaggregated_shape", "claims"}),
        ({f"{UNIT}.ping_pong": 1}, {"claims", "disaggregated_shape"}),
        ({f"{UNIT}.ping_pong": 3}, {"claims"}),
        ({f"{STAGE}.expert_slots": 0},
         {"claims", "disaggregated_shape", "expert_slots"}),
        ({UNIT: None}, {"shape_product", "claims"}),
        ({f"{STAGE}.gpus.7.node": "a-1"}, {"stage_inside_island"}),
        ({f"{STAGE}.gpus.0.gpu": 7, f"{STAGE}.gpus.7.gpu": 0}, set()),
    ],
)  # fmt: skip
def test_spoiled_plan(changes: dict[str, Any], rules: set[str]) -> None:
    found = broken(SUBJECT, spoiled(PLAN, changes))
    if found & CLAIMS:
        found = found - CLAIMS | {"claims"}
    assert found == rules


@pytest.mark.parametrize(
    ("engine", "allowed"),
    [
        ({"name": "generic"}, True),
        ({"name": "generic", "rules": {"disaggregated_experts": True}}, True),
        ({"name": "generic", "rules": {"disaggregated_experts": False}}, False),
        ({"name": "generic", "latencies": "silicon"}, False),
        ({"name": "vllm"}, False),
        ({"name": "sglang"}, False),
        ({"name": "trtllm"}, False),
        ({"name": "vllm", "rules": {"disaggregated_experts": True}}, True),
    ],
)
def test_who_may_have_such_stages(engine: Changes, allowed: bool) -> None:
    found = broken(subject_of({"engine": engine}), PLAN)
    assert ("disaggregated_experts" in found) is not allowed
    assert "engine_shape" not in found


@pytest.mark.parametrize(
    ("changes", "broken_rules"),
    [
        ({}, set()),
        ({f"{NEXT_UNIT}.ping_pong": 3}, {"disaggregated_alike"}),
        ({NEXT_UNIT: None}, {"disaggregated_alike", "shape_product"}),
        ({UNIT: None}, {"disaggregated_alike", "shape_product"}),
        (
            {"pools.0.replicas.0.stages.1.expert_slots": 4},
            {"disaggregated_alike"},
        ),
    ],
)
def test_stages_of_a_replica_are_alike(
    changes: dict[str, Any], broken_rules: set[str]
) -> None:
    plan = spoiled(plan_for(SUBJECT, TWO), changes)
    assert broken(SUBJECT, plan) - CLAIMS == broken_rules


def test_replicas_may_differ() -> None:
    other = replace(SKETCH, stages=[(0, 2, "big", "a-1", range(8))], unit=(4, 3))
    check(SUBJECT, plan_for(SUBJECT, SKETCH, other)).raise_if_bad()


def test_a_dense_model_has_no_such_stages() -> None:
    kind: dict[str, Any] = SUBJECT.model.layer_kinds[0].model_dump(mode="json")
    changes = {"model.layer_kinds": [{**kind, "ffn": {"intermediate": 6}}]}
    found = check(subject_of(changes), PLAN)
    messages = [str(violation) for violation in found.violations]
    assert any("layers with routed experts are 0" in text for text in messages)


@pytest.mark.parametrize(
    ("fix", "rows"),
    [
        ({"afd": [4, 4], "ping_pong": 2, "tp": 2, "ep": 4}, 0),
        ({"afd": [4, 2]}, 1),
        ({"afd": [2, 6]}, 2),
        ({"ping_pong": 3}, 1),
    ],
)
def test_fixed_units(fix: Changes, rows: int) -> None:
    report = check(subject_of({"fix": fix}), PLAN)
    assert len(report.violations) == rows
    assert set(report.broken()) <= {"fix"}


def test_colocated_stages_break_a_fixed_unit() -> None:
    shape = {"tp": 4, "attn_dp": 2, "moe_tp": 2, "ep": 4}
    together = plan_for(SUBJECT, replace(SKETCH, shape=shape, unit=None))
    subject = subject_of({"fix": {"afd": [4, 4], "ping_pong": 2}})
    report = check(subject, together)
    words = {violation.message.split("; ")[0] for violation in report.violations}
    assert words == {
        "replica 0 stage 0: attention GPUs (afd) are 8 GPU",
        "replica 0 stage 0: expert GPUs (afd) are 0 GPU",
        "replica 0 stage 0: ping_pong is 0 parts",
    }


@pytest.mark.parametrize("wide", [4, 100_000])
def test_both_sorts_of_gpu_have_to_fit(wide: int) -> None:
    """Narrow experts leave attention the larger share, wide ones do not."""
    changes = {f"{FFN}.intermediate": wide, "limits.memory_fraction": 1.0}
    stage = stages_of(changes)[0]
    assert stage.expert_memory is not None
    sizes = stage.memory.total(), stage.expert_memory.total()
    assert (sizes[1] > sizes[0]) is (wide > 4)
    plan: Plan = plan_for(subject_of(changes), SKETCH)
    for memory, rules in ((max(sizes), set()), (max(sizes) - 1, {"memory_fits"})):
        gpu = {**SLOW, "island_gpus": 8, "memory": f"{memory} B"}
        subject = subject_of({**changes, "cluster.gpu_types.big": gpu})
        assert broken(subject, plan) == rules
        assert len(check(subject, plan).violations) == len(rules)


def test_limit_of_imbalance() -> None:
    found = RIGHT.figures.replicas[0].memory_imbalance()
    above = float(found) * 1.000001
    assert not broken(subject_of({"limits.memory_imbalance": above}), PLAN)
    below = subject_of({"limits.memory_imbalance": float(found) * 0.999999})
    assert broken(below, PLAN) == {"memory_imbalance"}
