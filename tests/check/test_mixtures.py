"""Experts and shapes: figures of docs/cost-model.md, section 8, worked out on paper."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from tests.check.builders import Changes
from tests.check.mixtures import (
    FFN,
    ONE_ISLAND,
    SLOW,
    TWO_ISLANDS,
    mixture,
    sketch_of,
    stage_of,
)

from shardwright.check.experts import awake, islands_reached, redundant
from shardwright.schema.model import MoeFfn

FOUR = sketch_of(ONE_ISLAND, 3)
EIGHT = sketch_of(TWO_ISLANDS, 2, "a-0 a-1")
# test_decode_time works these out: ns of a layer and of the stage constant, and the
# collectives of the latter.
LAYER = 907_223_200
CONSTANT = 10_488_080
EDGES = 778_000 + 1_039_120
FAST = {"cluster.gpu_types.big": {**SLOW, "dense_tflops": {"bf16": 1000}}}


def block(experts: int, top_k: int, n_group: int = 1, topk_group: int = 1) -> MoeFfn:
    return MoeFfn(
        experts=experts,
        top_k=top_k,
        intermediate=1,
        n_group=n_group,
        topk_group=topk_group,
    )


# --- memory ---------------------------------------------------------------------------


def test_weights_of_one_gpu() -> None:
    # tp 2: H_t = 2, K_t = 1. Attention 8·(2 + 1)·(2 + 2) = 96, router 8·10 = 80, shared
    # 3·8·⌈6/2⌉ = 72: 248 matrices. s = ⌈10/4⌉ = 3 slots of X = 3·8·4 = 96.
    # Small: norms 16, two router biases of 10. Layer 2·(248 + 3·96 + 36) = 1144.
    # Embedding and head 64·8·2 = 1024 each, final norm 16.
    assert stage_of(mixture(), FOUR).memory.weights == 2 * 1144 + 2 * 1024 + 16


def test_slots_are_divided_by_moe_tp() -> None:
    # ep 2, moe_tp 2: 5 slots of 3·8·⌈4/2⌉ = 48, each with (3 − 1)·2 + 8 biases
    subject = mixture({f"{FFN}.bias": True})
    sketch = sketch_of({"tp": 2, "attn_dp": 2, "moe_tp": 2, "ep": 2}, 5)
    layer = 2 * (248 + 5 * 48 + 36 + 5 * 12)
    assert stage_of(subject, sketch).memory.weights == 2 * layer + 2 * 1024 + 16


def test_dense_part_and_router_scales() -> None:
    # Two more small weights, and a dense FFN of 3·8·⌈10/2⌉ beside the experts.
    subject = mixture({f"{FFN}.router_scale_width": 2, f"{FFN}.dense_intermediate": 10})
    layer = 1144 + 2 * (2 + 120)
    assert stage_of(subject, FOUR).memory.weights == 2 * layer + 2 * 1024 + 16


PUBLISHED = {"dtype": "int4", "block": None, "scale_bytes": 1}


@pytest.mark.parametrize(
    ("dtype", "parts", "layer"),
    [
        # all but router (160 B) and small weights (72 B) in half bytes:
        # ⌈168/2⌉ + 160 + ⌈288/2⌉ + 72
        ("int4", ["attention", "dense_ffn", "shared_experts", "experts"], 460),
        # experts alone: 2·248 + 144 + 72
        ("int4", ["experts"], 712),
        # attention alone: 48 + 2·(80 + 72) + 2·288 + 72
        ("int4", ["attention"], 1000),
        # deployed in another format than published: all matrices but the router in it
        ("fp8", ["experts"], 168 + 160 + 288 + 72),
    ],
)
def test_formats_of_a_published_quantisation(
    dtype: str, parts: list[str], layer: int
) -> None:
    published = {**PUBLISHED, "parts": parts}
    changes = {"model.quantization": published, "precision": {"weights": dtype}}
    assert stage_of(mixture(changes), FOUR).memory.weights == 2 * layer + 2 * 1024 + 16


def test_cache_of_one_attention_rank() -> None:
    # R(⌈8/2⌉ = 4) = ⌈4·1100 + 2.33·√(4·10,000/3)⌉ = ⌈4400 + 269.04…⌉ = 4670;
    # two layers of K_t·(D + D) = 4 values of 2 bytes per token
    assert stage_of(mixture(), FOUR).memory.kv_cache == 2 * 4670 * 8
    # four ranks: R(2) = ⌈2200 + 2.33·√(20,000/3)⌉ < 4096 = max_context_tokens
    assert stage_of(mixture(), EIGHT).memory.kv_cache == 2 * 4096 * 8


def test_window_counts_the_sequences_of_a_rank() -> None:
    subject = mixture({"model.layer_kinds.0.attention.window_tokens": 64})
    assert stage_of(subject, FOUR).memory.kv_cache == 2 * 4 * 64 * 8


def test_other_memory() -> None:
    # Width max((2 + 1)·4, 2·max(2·4, 3)) = 16: (4 + 100)·2·(24 + 16), and logits
    # (4 + ⌈100/1000⌉)·128·4. Buffers (4 + 100)·8·2·(1 + 2): dispatch sends twice.
    memory = stage_of(mixture(), FOUR).memory
    assert memory.activations == 104 * 2 * 40 + 5 * 128 * 4
    assert memory.communication == 10**8 + 104 * 16 * 3
    # with one attention rank: (8 + 100) tokens, no copies
    shape = {"tp": 4, "moe_tp": 1, "ep": 4}
    alone = stage_of(mixture(), sketch_of(shape, 3)).memory
    assert alone.communication == 10**8 + 108 * 16


# --- time -----------------------------------------------------------------------------


def test_decode_time() -> None:
    # m = 8, c = 40, ŝ = 1000, x̂ = 2·1000, φ = 1/50. Of 50 iterations one has a prompt
    # on each of two ranks with 4 sequences: n_r = 1004, n = 2008; the others 4 and 8.
    # Arithmetic binds throughout, so all is linear: n_r = 24, n = 48 in the mean. µs:
    #   matrices     2·248·24/5e5 (reads 496/1e6 are less than 4's)   =  23,808
    #   decode att.  4·1100·4·2/5e5                                   =  70,400
    #   prefill att. 2·1000·500·2·4/2e5/50                            = 800,000
    #   experts      2·96·(48·2/4)·β/5e5, β = 3·4/10                  =  11,059.2
    #   all-reduce   10 + 24·16/5e5 over 2                            =     778
    #   exchange     2·(12 + (48/4)·16·2·(3/4)/5e5)                   =   1,176
    #   overhead                                                      =       2
    # Constant: 50 + 4; embedding 384/1e6 and all-reduce 778; head of 4.02 rows
    # 2·8·64·4.02/5e5 = 8,232.96; gather 10 + ½·4.02·256/5e5 = 1,039.12
    decode = stage_of(mixture(), FOUR).decode
    assert decode.total_ns == 2 * LAYER + CONSTANT
    assert decode.communication_ns == 2 * 1_954_000 + EDGES


def test_prefill_time() -> None:
    # One rank has all s = 100 prompt tokens: n_r = 104, n = 108. µs: matrices 103,168;
    # attention 70,400 + 4,000,000; experts 2·96·54·1.2/5e5 = 24,883.2; all-reduce
    # 10 + 1664/5e5 = 3,338; exchange 2·(12 + 27·16·1.5/5e5) = 2,616; overhead 2.
    # Constant: 54 + 1,664 + 3,338; r = 4.1: 8,396.8 + 10 + 1,049.6
    prefill = stage_of(mixture(), FOUR).prefill
    assert prefill.total_ns == 2 * 4_204_407_200 + 14_512_400
    assert prefill.communication_ns == 2 * 5_954_000 + 3_338_000 + 1_059_600


def test_slots_read_are_those_the_batch_wakes() -> None:
    # m = 2, c = ⌈2·100/200⌉ = 1, x̂ = 2·100, fast arithmetic: one of 200 iterations has
    # n = 202 and n_r = 101, the others 2 and 1. Three slots of 192 B, awake
    # 1 − (4/5)² = 9/25, or all: 207.36 + (576 − 207.36)/200 = 209.2032 µs. Matrices
    # 496; decode att. one sequence, 200·8/5e5 = 3,200; n_r = 1.5 in the mean:
    # all-reduce 10 + 24/5e5 = 58; n = 3: exchange 2·(12 + (3/4)·24/5e5) = 96;
    # overhead 2. Prefill and FLOPs are below 1 ns.
    subject = mixture({**FAST, "workload.input_tokens": {"constant": 100}})
    sketch = sketch_of(ONE_ISLAND, 3)
    short = type(sketch)(sketch.stages, 2, 1, 100, shape=ONE_ISLAND, slots=3)
    layer = 209_203 + 496_000 + 3_200_000 + 58_000 + 96_000 + 2_000
    # constant 50 + 1 + 24 + 58; head 1024; gather 10 + ½·(1 + 1/200)·256/5e5 = 257.28
    constant = 51_000 + 24_000 + 58_000 + 1_024_000 + 10_000 + 257_280
    total = stage_of(subject, short).decode.total_ns
    assert total == 2 * (layer + 1) + constant


def test_moe_dp_halves_the_tokens_of_a_copy() -> None:
    # ep 2, moe_dp 2: N = 24 rows, 5 slots, β = 1: 2·96·(24·2/2)/5e5 = 9,216 µs
    # a copy serves one attention rank: an all-reduce of its tokens, 778, no exchange
    shape = {"tp": 2, "attn_dp": 2, "moe_tp": 1, "ep": 2, "moe_dp": 2}
    layer = LAYER - 11_059_200 + 9_216_000 - 1_176_000 + 778_000
    stage = stage_of(mixture(), sketch_of(shape, 5))
    assert stage.decode.total_ns == 2 * layer + CONSTANT


@pytest.mark.parametrize(
    ("shape", "slots", "layer", "edges"),
    [
        # dispatch over 2 ranks 10 + 12·16·2·½/5e5 = 394 twice, then an all-reduce of
        # (48/2)·16 = 384 B over moe_tp
        ({"tp": 2, "attn_dp": 2, "moe_tp": 2, "ep": 2}, 5, 778 + 788 + 778, EDGES),
        # ep 1: all-gather and reduce-scatter of 768 B over 2: 10 + ½·768/5e5 each
        ({"tp": 2, "attn_dp": 2, "moe_tp": 4}, 10, 778 + 2 * 778, EDGES),
        # one attention rank: all-reduces of 768 B over 4; gather of 8.04 rows
        ({"tp": 4, "moe_tp": 1, "ep": 4}, 3, 2 * 2316, 2_316_000 + 3_099_360),
        # tp 1: nothing after attention, nothing at the edges
        ({"tp": 1, "attn_dp": 4, "moe_tp": 1, "ep": 4}, 3, 1176, 0),
    ],
)
def test_communication(
    shape: dict[str, int], slots: int, layer: int, edges: int
) -> None:
    stage = stage_of(mixture(), sketch_of(shape, slots))
    assert stage.decode.communication_ns == 2 * layer * 1000 + edges


@pytest.mark.parametrize(
    ("changes", "dispatch"),
    [
        # G = 8, n = 48 in the mean. Links 12 + 15 + 6·16·2·(7/8)/5e5 = 336; the network
        # would take 6·16·ζ/2.5e5 = 288, ζ = min(2, 2·(1 − ¼))·½ = ¾
        ({}, 27 + 336),
        # dispatch starts up inside an island: over 4 ranks, not 8
        (
            {
                "cluster.gpu_types.big.calibration.allreduce_latency_us": {
                    "2": 10,
                    "4": 12,
                    "8": 99,
                }
            },
            27 + 336,
        ),
        # a network of 5e4 B/s: 96·¾/5e4
        ({"cluster.gpu_types.big.network_gbyte_per_s": 0.0001}, 27 + 1440),
        # a network above the links is no faster than they are: 96·¾/5e5 < 336
        ({"cluster.gpu_types.big.network_gbyte_per_s": 1.0}, 27 + 336),
        # experts of one of two groups: g = 1, ζ = ½: 96·½/5e4
        (
            {
                "cluster.gpu_types.big.network_gbyte_per_s": 0.0001,
                f"{FFN}.n_group": 2,
            },
            27 + 960,
        ),
    ],
)
def test_exchange_between_islands(changes: Changes, dispatch: int) -> None:
    # n_r = 2 + 1000/100 in the mean: attention 10 + 12·16/5e5 = 394; edges 394 and
    # 10 + ½·2.01·256/5e5 = 514.56
    stage = stage_of(mixture(changes), EIGHT)
    layer = 394 + 2 * dispatch
    assert stage.decode.communication_ns == 2 * layer * 1000 + 394_000 + 524_560


def test_dense_layers_of_a_mixture_have_the_shape_too() -> None:
    # The second layer is a dense FFN of width 6 alone: 3·8·3 = 72 matrices on n_r = 24
    # in the mean, and one all-reduce.
    kind: dict[str, Any] = mixture().model.layer_kinds[0].model_dump(mode="json")
    ffn = {"intermediate": 6}
    plain = {"name": "plain", "attention": None, "ffn": ffn, "norm_width": 0}
    changes: dict[str, Any] = {
        "model.layer_kinds": [kind, plain],
        "model.layers": ["block", "plain"],
    }
    decode = stage_of(mixture(changes), FOUR).decode
    # 2·72·24/5e5 = 6,912 µs, all-reduce 778, overhead 2
    assert decode.total_ns == LAYER + 7_692_000 + CONSTANT
    assert decode.communication_ns == 1_954_000 + 778_000 + EDGES


def test_layers_with_fewer_experts_have_fewer_slots() -> None:
    # E = 10 and 4 on ep 4: 3 slots, and 1. The second layer: 96 + 8·4 + 72 = 200
    # matrices, 96 in its slot, 16 + 8 small.
    kind: dict[str, Any] = mixture().model.layer_kinds[0].model_dump(mode="json")
    few = {**kind, "name": "few", "ffn": {**kind["ffn"], "experts": 4}}
    changes: dict[str, Any] = {
        "model.layer_kinds": [kind, few],
        "model.layers": ["block", "few"],
    }
    stage = stage_of(mixture(changes), FOUR)
    assert stage.memory.weights == 1144 + 2 * (200 + 96 + 24) + 2 * 1024 + 16
    # 2·200·24/5e5 = 19,200 µs of matrices; β = 1: 2·96·24/5e5 = 9,216 µs of experts
    other = LAYER - 23_808_000 + 19_200_000 - 11_059_200 + 9_216_000
    assert stage.decode.total_ns == LAYER + other + CONSTANT


# --- parts ----------------------------------------------------------------------------


def test_awake() -> None:
    assert awake(block(6, 6), 1) == 1
    for tokens, share in ((1, Fraction(1, 3)), (2, Fraction(5, 9))):
        assert abs(awake(block(6, 2), tokens) - share) < Fraction(1, 10**39)


@pytest.mark.parametrize(
    ("ffn", "islands", "reached"),
    [
        (block(8, 1), 2, Fraction(1, 2)),
        (block(8, 2), 2, Fraction(3, 4)),
        # 4·(1 − (3/4)²)·3/4
        (block(8, 2), 4, Fraction(21, 16)),
        # g = 1·⌈4/4⌉ bounds 7/4: 3/4
        (block(8, 2, 4, 1), 4, Fraction(3, 4)),
        # fewer islands than groups: g = min(2, 4·⌈2/8⌉) = 2
        (block(8, 2, 8, 4), 2, Fraction(3, 4)),
        # more islands than groups: g = 1·⌈8/4⌉ = 2 against 8·(1 − (7/8)²) = 15/8
        (block(8, 2, 4, 1), 8, Fraction(15, 8) * Fraction(7, 8)),
    ],
)
def test_islands_reached(ffn: MoeFfn, islands: int, reached: Fraction) -> None:
    assert islands_reached(ffn, islands) == reached


@pytest.mark.parametrize(
    ("engine", "slots", "extra"),
    [
        ("sglang", 3, 2),
        ("trtllm", 3, 2),
        ("sglang", 2, 0),
        ("vllm", 3, 0),
        ("generic", 3, 0),
        ("generic", 4, 6),
    ],
)
def test_redundant_experts_follow_from_slots(
    engine: str, slots: int, extra: int
) -> None:
    subject = mixture({"engine": {"name": engine}})
    assert redundant(subject, slots, 4, 10) == extra
