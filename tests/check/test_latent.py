"""Latent attention and wide value heads worked out on paper, and DeepSeek-V3's size."""

from __future__ import annotations

from typing import Any

import pytest
from tests.check.builders import BIG, Sketch, instance
from tests.check.mixtures import MIXTURE, SLOW, report_of, stage_of

from shardwright.schema.errors import InvalidInstance

ATTENTION = "model.layer_kinds.0.attention"
LATENT: dict[str, Any] = {
    "type": "mla",
    "heads": 4,
    "q_lora_rank": 6,
    "kv_lora_rank": 4,
    "qk_nope_head_dim": 2,
    "qk_rope_head_dim": 1,
    "v_head_dim": 3,
}
TINY: dict[str, Any] = {
    **MIXTURE,
    ATTENTION: LATENT,
    "model.layer_kinds.0.ffn": {"intermediate": 6},
}
TWO = Sketch([(0, 2, "big", "a-0", (0, 1))], 8, 1, 100)


def test_latent_memory() -> None:
    # tp 2: H_t = 2. Queries 8·6 + 6·2·3 = 84, down 8·(4 + 1) = 40, up 4·2·(2 + 3) = 40,
    # output 2·3·8 = 48; FFN 3·8·3 = 72: 284. Small: 6 + 4 and norms 16.
    # Cache: R(8) = ⌈8800 + 2.33·√(80,000/3)⌉ = 9181 tokens of 4 + 1 values, undivided.
    # Width 2·2·(2 + 1 + 3) = 24: (8 + 100)·2·(24 + 24); logits 9·128·4
    memory = stage_of(instance(TINY), TWO).memory
    assert memory.weights == 2 * 2 * (284 + 26) + 2 * 1024 + 16
    assert memory.kv_cache == 2 * 9181 * 5 * 2
    assert memory.activations == 108 * 2 * 48 + 9 * 128 * 4


def test_queries_without_a_latent() -> None:
    # 8·2·3 = 48 instead of 84, and no norm of 6
    subject = instance({**TINY, f"{ATTENTION}.q_lora_rank": None})
    weights = stage_of(subject, TWO).memory.weights
    assert weights == 2 * 2 * (248 + 20) + 2 * 1024 + 16


def test_latent_time() -> None:
    # n = 48. µs: matrices 2·284·48/5e5 = 54,528; decode 2·8·1100·2·(2·4 + 1)/2e5 =
    # 1,584,000 against a read of 8·1100·5·2/5e5 = 176,000; prefill 2·40·500·2·6/2e5 =
    # 2,400,000; two all-reduces 10 + 768/5e5; overhead 2.
    # Constant: 58 + 768 + 1,546; head of 8.04 rows 16,465.92; gather 10 + 2,058.24
    decode = stage_of(instance(TINY), TWO).decode
    assert decode.total_ns == 2 * 4_041_622_000 + 20_906_160
    assert decode.communication_ns == 2 * 3_092_000 + 1_546_000 + 2_068_240


def test_latent_cache_read_binds_on_fast_arithmetic() -> None:
    # 176,000 + 568 (matrices read) + 3,092 + 2 µs and 2.4 ns of prefill attention;
    # constant with the head's read of 1,024 µs
    fast = {**SLOW, "dense_tflops": {"bf16": 1000}}
    subject = instance({**TINY, "cluster.gpu_types.big": fast})
    decode = stage_of(subject, TWO).decode
    assert decode.total_ns == 2 * 179_662_003 + 5_464_240


def test_sparse_indexer_is_refused() -> None:
    indexer = {"heads": 1, "head_dim": 2, "top_k": 4}
    subject = instance({**TINY, f"{ATTENTION}.indexer": indexer})
    with pytest.raises(InvalidInstance, match="indexer"):
        report_of(subject, TWO)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        # grouped attention, tp 2: P = 8·3·(2 + 3) = 120
        ({}, 120),
        # K_t·D_v·h less
        ({"tied_kv_projection": True}, 120 - 24),
        # H_t·D + K_t·(D + D_v); H_t
        ({"qkv_bias": True}, 120 + 4 + 5),
        ({"sinks": True}, 120 + 2),
    ],
)
def test_value_heads_of_their_own_width(changes: dict[str, Any], values: int) -> None:
    own = {"heads": 4, "kv_heads": 2, "head_dim": 2, "v_head_dim": 3, **changes}
    stage = stage_of(instance({**TINY, ATTENTION: own}), TWO)
    assert stage.memory.weights == 2 * 2 * (values + 72 + 16) + 2 * 1024 + 16
    assert stage.memory.kv_cache == 2 * 9181 * 5 * 2
    # (H_t + K_t)·(D + D_v) = 15
    assert stage.memory.activations == 108 * 2 * (24 + 15) + 9 * 128 * 4


# --- DeepSeek-V3 ----------------------------------------------------------------------

V3_ATTENTION: dict[str, Any] = {
    "type": "mla",
    "heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
V3_EXPERTS: dict[str, Any] = {
    "type": "moe",
    "experts": 256,
    "top_k": 8,
    "intermediate": 2048,
    "shared_experts": 1,
    "shared_intermediate": 2048,
    "correction_bias": True,
    "n_group": 8,
    "topk_group": 4,
}
V3: dict[str, Any] = {
    "model": {
        "name": "deepseek-v3",
        "hidden": 7168,
        "vocabulary": 129280,
        "tied_embeddings": False,
        "max_position_tokens": 163840,
        "final_norm_width": 7168,
        "layer_kinds": [
            {
                "name": "dense",
                "attention": V3_ATTENTION,
                "ffn": {"intermediate": 18432},
                "norm_width": 14336,
            },
            {
                "name": "mixture",
                "attention": V3_ATTENTION,
                "ffn": V3_EXPERTS,
                "norm_width": 14336,
            },
        ],
        "layers": ["dense"] * 3 + ["mixture"] * 58,
        "quantization": {
            "dtype": "fp8",
            "block": [128, 128],
            "scale_bytes": 4,
            "parts": ["attention", "dense_ffn", "shared_experts", "experts"],
        },
    },
    "precision": {"weights": "fp8"},
    "workload.max_batch": 512,
    "cluster.gpu_types": {"big": {**BIG, "island_gpus": 8}},
    "cluster.nodes": [{"name": "a", "gpu": "big", "gpus": 8, "count": 4}],
}
V3_ON_32 = Sketch(
    [(0, 61, "big", "a-0 a-1 a-2 a-3", range(8))],
    512,
    1,
    4096,
    shape={"tp": 1, "attn_dp": 32, "moe_tp": 1, "ep": 32},
    slots=8,
)


def test_deepseek_v3_on_32_gpus() -> None:
    # 671,026,419,200 parameters. Attention of a layer: 7168·1536 + 1536·128·192 +
    # 7168·576 + 512·128·256 + 128·128·7168 = 187,105,280; one expert 3·7168·2048 =
    # 44,040,192; router 7168·256 = 1,835,008.
    #   61·187,105,280 + 3·3·7168·18432 + 58·(257·44,040,192 + 1,835,008 + 256)
    #   + 61·(2·7168 + 1536 + 512) + 2·129,280·7168 + 7168
    # One of 32 GPUs holds all but the experts, of these 8 of 256 a layer. Bytes:
    #   experts                 58·8·44,040,192         = 20,434,649,088
    #   attention               61·187,105,280          = 11,413,422,080
    #   dense layers            3·396,361,728           =  1,189,085,184
    #   shared experts          58·44,040,192           =  2,554,331,136
    #   routers, bf16           2·58·1,835,008          =    212,860,928
    #   norms, router biases    2·(61·16,384 + 58·256)  =      2,028,544
    #   embedding, head, norm   2·(1,853,358,080 + 7168) =  3,706,730,496
    experts, rest = 58 * 256 * 44_040_192, 58 * 44_040_192
    attention, dense = 61 * 187_105_280, 3 * 396_361_728
    routers, edges = 58 * 1_835_008, 1_853_358_080 + 7168
    small = 61 * 16_384 + 58 * 256
    whole = experts + rest + attention + dense + routers + small + edges
    assert whole == 671_026_419_200
    report = report_of(instance(V3), V3_ON_32)
    report.raise_if_bad()
    memory = report.figures.replicas[0].stages[0].memory
    assert memory.weights == 39_513_107_456
    own = experts // 32 + rest + attention + dense
    assert memory.weights == own + 2 * (routers + small + edges)


def test_deepseek_v3_cache_and_buffers() -> None:
    # ⌈512/32⌉ = 16 sequences: R(16) = ⌈17,600 + 2.33·√(160,000/3)⌉ = 18,139 tokens of
    # 61·576·2 bytes. Width max(2·128·320, 2·18432, 2·8·2048) = 81,920; buffers of nine
    # copies; logits of 16 + ⌈4096/1000⌉ rows. With 39.5 GB of weights 43.3 GB of 68 GB.
    subject = instance(V3)
    memory = report_of(subject, V3_ON_32).figures.replicas[0].stages[0].memory
    assert memory.kv_cache == 18_139 * 70_272
    logits = 21 * 129_280 * 4
    assert memory.activations == (16 + 4096) * 2 * (3 * 7168 + 81_920) + logits
    assert memory.communication == 10**8 + 4112 * 7168 * 2 * 9
