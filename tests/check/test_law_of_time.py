"""The law of time (cost-model, section 4) worked out on paper term by term."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from tests.check import mixtures, test_latent
from tests.check import test_mixtures as mixtures_paper
from tests.check.builders import Changes, Sketch, instance
from tests.check.mixtures import ONE_ISLAND, mixture, sketch_of
from tests.check.slow import BALANCED, CONSTANTS, GPU, decode_ns, dense, report_of

from shardwright.check.exact import power_norm
from shardwright.check.stage import Point

SUM = {f"{CONSTANTS}.roofline_exponent": 1}
COSTS: dict[str, Any] = {
    "layer_overhead_us": 2,
    "step_overhead_us": 50,
    "sequence_overhead_us": 1,
}


# --- joined times ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "exponent", "joined"),
    [
        (3, 4, 2.0, 5),
        (4, 3, 2.0, 5),
        (Fraction(5, 7), Fraction(12, 7), 2.0, Fraction(13, 7)),
        (3, 4, 1.0, 7),
        (3, 4, 0.0, 4),
        (0, 0, 2.5, 0),
        (7, 0, 2.5, 7),
    ],
)
def test_power_norm(
    first: Fraction, second: Fraction, exponent: float, joined: Fraction
) -> None:
    found = power_norm(first, second, exponent)
    # cut to 30 digits, never above
    assert 0 <= joined - found < Fraction(1, 10**28)


@pytest.mark.parametrize(("exponent", "power", "value"), [(4.0, 4, 2), (2.5, 5, 4)])
def test_power_norm_of_equals(exponent: float, power: int, value: int) -> None:
    # 2^(1/4) and 2^(2/5)
    found = power_norm(1, 1, exponent)
    assert abs(found**power - value) < Fraction(1, 10**27)


def test_power_norm_of_far_apart_times() -> None:
    assert power_norm(1, Fraction(1, 10**12), 100.0) == 1
    assert power_norm(10**12, 1, 1.0) == 10**12 + 1


def test_the_larger_by_default() -> None:
    assert decode_ns() == BALANCED


def test_matrices_and_head_are_joined() -> None:
    # 672 µs of reads join each layer's matrices, 2,048 the head; attention stays
    assert decode_ns(SUM) - BALANCED == 2 * 672_000 + 2_048_000


def test_experts_are_joined() -> None:
    # test_mixtures.test_decode_time, and the reads: 496 µs of matrices; 192 B in each
    # of three slots, 1 − (4/5)^8 awake in 49 of 50 iterations, all in the other:
    # 0.98·479.36323584 + 0.02·576 µs; the head's 1,024
    stage = mixtures.stage_of(mixture(SUM), sketch_of(ONE_ISLAND, 3))
    layer = mixtures_paper.LAYER + 496_000 + 481_296
    assert stage.decode.total_ns == 2 * layer + mixtures_paper.CONSTANT + 1_024_000


def test_latent_attention_is_joined() -> None:
    # test_latent.test_latent_time, and the reads: cache 176,000 µs, matrices 568, head
    # 1,024
    stage = mixtures.stage_of(instance({**test_latent.TINY, **SUM}), test_latent.TWO)
    layer = 4_041_622_000 + 176_000_000 + 568_000
    assert stage.decode.total_ns == 2 * layer + 20_906_160 + 1_024_000


# --- single constants -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        # 3·n·16 B at 1e6 B/s, n = 12 in the mean
        ({"hidden_accesses": 3}, 2 * 576_000),
        # 50 + 10 positions for 50: a fifth of 32,000 µs more
        ({"attention_ramp_tokens": 10}, 2 * 6_400_000),
        # 2 µs three times
        ({"overhead_factor": 3}, 2 * 4_000),
        # nothing is unpacked: the weights' format is computed in
        ({"unpacking_factor": 2}, 0),
    ],
)
def test_constant(changes: Changes, more: int) -> None:
    named = {f"{CONSTANTS}.{name}": value for name, value in changes.items()}
    assert decode_ns(named) - BALANCED == more


def test_the_ramp_comes_on_top_of_the_window() -> None:
    # 20 + 10 positions for 50: 12,800 µs less; 20 resident tokens for 200: 46,080 less
    changes = {
        f"{CONSTANTS}.attention_ramp_tokens": 10,
        "model.layer_kinds.0.attention.window_tokens": 20,
    }
    assert decode_ns(changes) - BALANCED == -2 * (12_800_000 + 46_080_000)


PUBLISHED = {"dtype": "fp8", "block": None, "scale_bytes": 4}
NATIVE = {
    "cluster.gpu_types.big.dense_tflops": {"bf16": 1e-6, "fp8": 1e-6},
    f"{CONSTANTS}.matmul_efficiency": {"bf16": 0.5, "fp8": 0.5},
}


@pytest.mark.parametrize(
    ("changes", "factor", "reads_us"),
    [
        ({}, 1, 336),
        ({}, 1.5, 504),
        # attention 192 alone is packed; the FFN's 144 are in bf16
        ({"model.quantization": {**PUBLISHED, "parts": ["attention"]}}, 2, 672),
        ({"model.quantization": {**PUBLISHED, "parts": ["attention"]}}, 1.5, 576),
        # computed in fp8: not unpacked
        (NATIVE, 2, 336),
    ],
)
def test_packed_weights(changes: Changes, factor: float, reads_us: int) -> None:
    packed = {"precision": {"weights": "fp8"}, f"{CONSTANTS}.unpacking_factor": factor}
    found = decode_ns({**SUM, **packed, **changes})
    assert found - BALANCED == 2 * reads_us * 1000 + 2_048_000


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        # n = 8: 4.8 pairs on the busiest GPU, or 2 rows for 2.49668352 slots awake:
        # 2·96·0.19336704/5e5 s in 49 of 50 iterations; n = 2008: 1204.8 pairs
        (2, 72_768),
        (1, 0),
    ],
)
def test_tiles_of_experts(rows: int, more: int) -> None:
    changes = {f"{CONSTANTS}.expert_tile_rows": rows}
    stage = mixtures.stage_of(mixture(changes), sketch_of(ONE_ISLAND, 3))
    layer = mixtures_paper.LAYER + more
    assert stage.decode.total_ns == 2 * layer + mixtures_paper.CONSTANT


# --- engines --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "engines", "more"),
    [
        # 3 µs more in each of two layers, 10 + 8·1 in the stage
        ("generic", {"generic": {"layer_overhead_us": 5, "step_overhead_us": 60,
                                 "sequence_overhead_us": 2}}, 24_000),
        ("generic", {"vllm": {**COSTS, "step_overhead_us": 60}}, 10_000),
        ("sglang", {"vllm": {**COSTS, "step_overhead_us": 60}, "sglang": COSTS}, 0),
        ("trtllm", {"vllm": {**COSTS, "step_overhead_us": 60}}, 10_000),
        # neither the engine's nor vLLM's: the calibration's own
        ("generic", {"sglang": {**COSTS, "step_overhead_us": 60}}, 0),
        ("vllm", {"vllm-2024": {**COSTS, "step_overhead_us": 60}}, 0),
        # half the FLOP/s: matrices 16,128 and prefill attention 32,000 µs in the mean;
        # the head 4,096·8.04
        ("vllm", {"vllm": {**COSTS, "compute_factor": 0.5}},
         2 * 48_128_000 + 32_931_840),
        # of no concern without experts, or to an iteration
        ("vllm", {"vllm": {**COSTS, "expert_overhead_us": 9, "request_overhead_ms": 9,
                           "admission_steps": 9, "cold_start_s": 9}}, 0),
    ],
)  # fmt: skip
def test_costs_of_the_engine(engine: str, engines: Changes, more: int) -> None:
    changes = {"engine.name": engine, f"{CONSTANTS}.engines": engines}
    assert decode_ns(changes) - BALANCED == more


def test_overhead_of_experts() -> None:
    # 2·(2 + 7) µs for 2
    engines = {"generic": {**COSTS, "expert_overhead_us": 7}}
    changes = {f"{CONSTANTS}.engines": engines, f"{CONSTANTS}.overhead_factor": 2}
    stage = mixtures.stage_of(mixture(changes), sketch_of(ONE_ISLAND, 3))
    layer = mixtures_paper.LAYER + 16_000
    assert stage.decode.total_ns == 2 * layer + mixtures_paper.CONSTANT


# --- balanced iterations --------------------------------------------------------------


def point_of(sketch: Sketch, changes: Changes | None = None) -> Point:
    return report_of(dense(changes), sketch).figures.replicas[0].point


@pytest.mark.parametrize(
    ("changes", "part", "carried", "share"),
    [
        ({}, 100, 100, Fraction(1, 25)),
        # c = 8·100/4 = 200 above ŝ: every iteration carries as much
        ({"workload.output_tokens": {"constant": 4}}, 100, 200, Fraction(1)),
        # 100·(1 − 0.255) = 74.5 to compute: c = ⌈2.98⌉
        ({"workload.prefix_cache_hit_ratio": 0.255}, 75, 75, Fraction(3, 75)),
        # engines take no more than 8192 at once; c = 400
        ({"workload.input_tokens": {"constant": 10_000}}, 8192, 8192,
         Fraction(400, 8192)),
    ],
)  # fmt: skip
def test_prompts_come_whole(
    changes: Changes, part: int, carried: int, share: Fraction
) -> None:
    point = point_of(Sketch(GPU, 8, 1, 512), changes)
    found = (point.prompt_part, point.carried(1), point.carrying(1))
    assert found == (part, carried, share)


def test_attention_ranks_take_their_prompts_together() -> None:
    # m = 3 sequences, c = ⌈1.5⌉: a prompt on each of two ranks, on three of four
    point = point_of(Sketch(GPU, 3, 1, 512))
    assert [point.carried(ranks) for ranks in (1, 2, 4)] == [100, 200, 300]
    assert [point.carrying(ranks) for ranks in (1, 2, 4)] == [
        Fraction(2, 100), Fraction(2, 200), Fraction(2, 300),
    ]  # fmt: skip


def test_no_chunk_changes_tpot() -> None:
    times = {decode_ns(sketch=Sketch(GPU, 8, 1, chunk)) for chunk in (4, 30, 100, 4096)}
    assert times == {BALANCED}


def test_prompts_spread_where_they_are_many() -> None:
    # answers of one token: c = x̂ = 800, φ = 1; on two ranks 400 each, above ŝ = 100.
    # n_r = 404: all-reduces of 6,464 B, 10 + 12,928 µs
    changes = {
        "workload.input_tokens": {"constant": 100},
        "workload.output_tokens": {"constant": 1},
    }
    subject = mixture(changes)
    sketch = Sketch(GPU4, 8, 1, 800, shape=ONE_ISLAND, slots=3)
    stage = report_of(subject, sketch).figures.replicas[0].stages[0]
    reduce = 10_000 + 12_928_000
    # dispatch 12 + (808/4)·16·2·(3/4)/5e5 each way; gather of 4 + 400/100 rows
    layer = reduce + 2 * (12_000 + 9_696_000)
    gather = 10_000 + 8 * 256_000
    assert stage.decode.communication_ns == 2 * layer + reduce + gather


GPU4 = [(0, 2, "big", "a-0", range(4))]


def test_whole_prompts_where_they_are_few() -> None:
    # c = 4 of x̂ = 200 prompt tokens, a prompt on each rank: n_r = 4 + 100/50 in the
    # mean, 6·16/5e5; 4 + (100/100)/50 rows
    subject = mixture({"workload.input_tokens": {"constant": 100}})
    sketch = Sketch(GPU4, 8, 1, 100, shape=ONE_ISLAND, slots=3)
    stage = report_of(subject, sketch).figures.replicas[0].stages[0]
    reduce, gather = 10_000 + 192_000, 10_000 + 1_029_120
    # n = 12 in the mean: dispatch 12 + 3·24/5e5
    layer = reduce + 2 * (12_000 + 144_000)
    assert stage.decode.communication_ns == 2 * layer + reduce + gather
