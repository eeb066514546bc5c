"""Single formulas on models small enough to count on one's fingers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from tests.check.builders import CALIBRATION, ONE_STAGE, Sketch, instance, plan_for

from shardwright.check import check
from shardwright.check.exact import ceil_sqrt, exact
from shardwright.check.figures import StageFigures
from shardwright.check.lengths import mix_of, moments
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.workload import Lengths

# h = 8, V = 100 (V' = 128), 4 heads and 2 KV heads of width 2, I = 6.
KIND: dict[str, Any] = {
    "name": "block",
    "attention": {"heads": 4, "kv_heads": 2, "head_dim": 2},
    "ffn": {"intermediate": 6},
    "norm_width": 16,
}
FINGERS: dict[str, Any] = {
    "model": {
        "name": "fingers",
        "hidden": 8,
        "vocabulary": 100,
        "tied_embeddings": False,
        "max_position_tokens": None,
        "final_norm_width": 8,
        "layer_kinds": [KIND],
        "layers": ["block", "block"],
    },
    "engine": {"name": "generic"},
}
ATTENTION = "model.layer_kinds.0.attention"
FFN = "model.layer_kinds.0.ffn"


def stage_of(changes: dict[str, Any], *, tp: int = 1, stages: int = 1) -> StageFigures:
    """The last stage of a replica of the finger model."""
    places = [
        (s, s + 1 if s < stages - 1 else 2, "big", "a-0", range(s * tp, s * tp + tp))
        for s in range(stages)
    ]
    sketch = Sketch(places, sequences=4, micro_batches=stages, chunk=100)
    subject = instance({**FINGERS, **changes})
    report = check(subject, plan_for(subject, sketch))
    report.raise_if_bad()
    return report.figures.replicas[0].stages[-1]


def test_decimals_are_exact() -> None:
    assert exact(0.85) == Fraction(17, 20)
    assert exact(1e-5) == Fraction(1, 100_000)
    assert [ceil_sqrt(n) for n in (0, 1, 2, 4, 5, 9, 10)] == [0, 1, 2, 2, 3, 3, 4]


def test_moments() -> None:
    assert moments(Lengths(constant=3)) == (Fraction(3), Fraction(9), Fraction(27))
    # 1 + cv² = 5/4: 10, 100·5/4, 1000·(5/4)³
    lognormal = (Fraction(10), Fraction(125), Fraction(15625, 8))
    assert moments(Lengths(mean=10.0, cv=0.5)) == lognormal
    # weights 3 and 1: (3·1 + 1·5)/4, (3 + 25)/4, (3 + 125)/4
    histogram = (Fraction(2), Fraction(7), Fraction(32))
    assert moments(Lengths(histogram=((1, 3.0), (5, 1.0)))) == histogram


def test_mix_of_random_lengths() -> None:
    # L: 2, 7, 32; O lognormal 10, 125, 15625/8; h_p = 1/4.
    # E_kv = 2 + 125/20 = 33/4; E[kv²] = 7 + 2·125/10 + 15625/240 = 32 + 3125/48
    # A = (7/2)·(5/4)/2 = 35/16
    changes = {
        "workload.input_tokens": {"histogram": [[1, 3], [5, 1]]},
        "workload.output_tokens": {"mean": 10, "cv": 0.5},
        "workload.prefix_cache_hit_ratio": 0.25,
    }
    mix = mix_of(instance(changes).workload)
    assert mix.computed == Fraction(3, 2)
    assert mix.kv_mean == Fraction(33, 4)
    assert mix.kv_variance == 32 + Fraction(3125, 48) - Fraction(33, 4) ** 2
    assert mix.attended == Fraction(35, 16)


def test_weights_of_the_finger_model() -> None:
    # P = 8·2·(8 + 4) + 3·8·6 = 336; layer 2·336 + 2·16 = 704; two of them 1408.
    # Embedding and head 128·8·2 = 2048 each, final norm 16.
    assert stage_of({}).memory.weights == 1408 + 4096 + 16


def test_tied_embeddings() -> None:
    # One matrix on a single stage; first and last hold a copy each otherwise.
    assert stage_of({"model.tied_embeddings": True}).memory.weights == 1408 + 2048 + 16
    tied = stage_of({"model.tied_embeddings": True}, stages=2)
    assert tied.memory.weights == 704 + 2048 + 16


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({f"{ATTENTION}.qkv_bias": True}, (4 + 2 * 2) * 2),
        ({f"{ATTENTION}.output_bias": True}, 8),
        ({f"{ATTENTION}.qk_norm_width": 5}, 5),
        ({f"{FFN}.bias": True}, 2 * 6 + 8),
        ({f"{FFN}.matrices": 2}, -8 * 6),
        ({f"{FFN}.matrices": 2, f"{FFN}.bias": True}, -8 * 6 + 6 + 8),
        ({FFN: None}, -3 * 8 * 6),
        ({ATTENTION: None}, -8 * 2 * 12),
    ],
)
def test_optional_parts(changes: dict[str, Any], values: int) -> None:
    # two layers of 2 bytes a value
    assert stage_of(changes).memory.weights == 5520 + 2 * 2 * values


def test_uneven_shards_round_up() -> None:
    # tp = 4: H_t = 1, K_t = 1 (replicated), I_t = 2, V_t = 32
    # P = 8·2·(2 + 2) + 3·8·2 = 112; layer 224 + 32; embedding and head 512 each
    stage = stage_of({}, tp=4)
    assert stage.memory.weights == 2 * 256 + 2 * 512 + 16
    # tp = 3: H_t = 2, K_t = 1, I_t = 2, V_t = ⌈128/3⌉ = 43
    # P = 8·2·(4 + 2) + 48 = 144; layer 288 + 32; 43·8·2 = 688
    assert stage_of({}, tp=3).memory.weights == 2 * 320 + 2 * 688 + 16


def test_half_bytes_round_up() -> None:
    # one odd weight: h = 1, one head of width 1, FFN of 3 matrices of 1:
    # P = 1·1·4 + 3 = 7, ⌈7/2⌉ = 4 bytes, norms 32; V' = 128: 256 twice; norm 16
    changes = {
        "model.hidden": 1,
        ATTENTION: {"heads": 1, "kv_heads": 1, "head_dim": 1},
        f"{FFN}.intermediate": 1,
        "precision": {"weights": "int4"},
    }
    assert stage_of(changes).memory.weights == 2 * 36 + 512 + 16


@pytest.mark.parametrize(
    ("dtype", "parts", "layer"),
    [
        # attention 8·(4 + 2)·(2 + 2) = 192 weights, FFN 3·8·6 = 144, norms 32 bytes
        ("fp8", ["attention", "dense_ffn"], 192 + 144 + 32),
        ("fp8", ["attention"], 192 + 2 * 144 + 32),
        ("fp8", ["dense_ffn"], 2 * 192 + 144 + 32),
        # deployed in another format than published: all matrices in it
        ("int4", ["attention"], 96 + 72 + 32),
    ],
)
def test_published_formats_of_a_dense_model(
    dtype: str, parts: list[str], layer: int
) -> None:
    published = {"dtype": "fp8", "block": None, "scale_bytes": 4, "parts": parts}
    changes = {"precision": {"weights": dtype}, "model.quantization": published}
    assert stage_of(changes).memory.weights == 2 * layer + 4096 + 16


def test_time_of_matrices_in_two_formats() -> None:
    # Attention alone in fp8: 192 + 2·144 B are read instead of 336 B, at 1e6 B/s:
    # 144 µs more in each of two layers.
    slow = {
        "cluster.gpu_types.big.hbm_gbyte_per_s": 0.002,
        "precision": {"weights": "fp8"},
    }
    published = {
        "dtype": "fp8",
        "block": None,
        "scale_bytes": 4,
        "parts": ["attention"],
    }
    whole, part = (
        stage_of(changes).decode.total_ns
        for changes in (slow, {**slow, "model.quantization": published})
    )
    assert part - whole == 2 * 144_000


@pytest.mark.parametrize(
    ("tp", "stages", "tied"), [(1, 1, False), (4, 1, True), (1, 2, False), (1, 2, True)]
)
def test_bias_of_the_lm_head(tp: int, stages: int, tied: bool) -> None:
    # V_t = 128/tp values of 2 bytes on the last or single stage
    changes = {"model.tied_embeddings": tied}
    plain = stage_of(changes, tp=tp, stages=stages)
    biased = stage_of({**changes, "model.lm_head_bias": True}, tp=tp, stages=stages)
    assert biased.memory.weights - plain.memory.weights == 2 * 128 // tp
    assert biased.decode.total_ns == plain.decode.total_ns


def test_first_stage_has_no_bias_of_the_lm_head() -> None:
    first = Sketch([(0, 1, "big", "a-0", [0]), (1, 2, "big", "a-0", [1])], 4, 2, 100)
    weights = set()
    for bias in (False, True):
        subject = instance({**FINGERS, "model.lm_head_bias": bias})
        stages = check(subject, plan_for(subject, first)).figures.replicas[0].stages
        weights.add(stages[0].memory.weights)
    assert len(weights) == 1


def test_kv_cache_holds_one_full_context() -> None:
    # 4·1100 + … < 10,000 = max_context; 2 layers·10,000·2·2·2·2 bytes
    stage = stage_of({"workload.max_context_tokens": 10_000})
    assert stage.memory.kv_cache == 2 * 10_000 * 16


def test_kv_cache_never_exceeds_full_contexts() -> None:
    # 4·1100 + 2.33·√(4·10,000/3) > 4·1100 = M·max_context; fp8: 1 byte
    changes = {
        "workload.max_context_tokens": 1100,
        "precision": {"kv_cache": "fp8"},
    }
    assert stage_of(changes).memory.kv_cache == 2 * 4400 * 8


def test_window_bounds_the_cache() -> None:
    # 4 sequences of at most 64 tokens
    stage = stage_of({f"{ATTENTION}.window_tokens": 64})
    assert stage.memory.kv_cache == 2 * 4 * 64 * 16


def test_memory_of_a_single_gpu() -> None:
    # No group, no buffer. (4 + 100)·2·(24 + max(24, 12)); logits (4 + ⌈100/1000⌉)·128·4
    memory = stage_of({}).memory
    assert memory.communication == 0
    assert memory.activations == 104 * 2 * 48 + 5 * 128 * 4
    assert memory.framework == 10**9


def test_pipeline_alone_has_one_communicator() -> None:
    assert stage_of({}, stages=2).memory.communication == 10**8


def test_single_stage_time() -> None:
    # m = 4, c = 20, x̂ = 1000: one of 50 iterations has n = 1004, the others 4. ns:
    #   linear 672/1e12 = 0.672 (memory binds), or 2·336·1004/5e14 = 1.349…
    #   decode att. 4·1100·2·2·2·2/5e11 = 140.8
    #   prefill att. 4·20·500·8/2e14 = 1.6 in the mean; overhead 2,000 -> ⌈2143.08…⌉
    # Constant: 50,000 + 4,000; embedding 0.384 and head 2.048 -> 54,003
    stage = stage_of({})
    assert stage.decode.total_ns == 2 * 2144 + 54_003
    assert stage.decode.communication_ns == 0
    assert stage.decode.terms == 3
    assert stage.decode.communication_terms == 0


def test_empty_layers_take_no_time() -> None:
    changes = {ATTENTION: None, FFN: None}
    stage = stage_of(changes)
    assert stage.decode.total_ns == 54_003
    assert stage.memory.kv_cache == 0


def test_start_up_time_of_other_rank_counts() -> None:
    # tp 3 takes the entry of 4 ranks: (12,000 + 4/3·24·8·2/5e10·1e9 = 0.01…)·2
    assert stage_of({}, tp=3).decode.communication_ns > 2 * 2 * 12_000
    # beyond the largest entry the largest one holds
    table = {"cluster.gpu_types.big.calibration.allreduce_latency_us": {"2": 10}}
    assert 2 * 2 * 10_000 < stage_of(table, tp=4).decode.communication_ns < 70_000


def test_window_bounds_attention_time() -> None:
    # 10^6-fold slower attention: 4·min(1100, 64)·16/5e5 + 4·20·min(500, 64)·8/2e8 s
    # = 8,192,000 + 204,800 ns; with linear and overhead ⌈8,398,800.672⌉
    slow = {
        **CALIBRATION,
        "kv_read_efficiency": 0.25e-6,
        "attention_efficiency": 0.2e-6,
    }
    changes = {
        f"{ATTENTION}.window_tokens": 64,
        "cluster.gpu_types.big.calibration": slow,
    }
    assert stage_of(changes).decode.total_ns == 2 * 8_398_801 + 54_003


def test_weight_only_quantisation_computes_in_activations() -> None:
    # fp8 weights, read in half the time: ⌈0.336 + 140.8 + 1.6 + 2,000⌉
    stage = stage_of({"precision": {"weights": "fp8"}})
    assert stage.decode.total_ns == 2 * 2143 + 54_003


def test_native_format_computes_in_weights() -> None:
    # fp8 at 1e-3 TFLOP/s·0.5: 2·336·24/5e8 = 32,256 ns -> ⌈34,398.4⌉
    changes = {
        "precision": {"weights": "fp8"},
        "cluster.gpu_types.big.dense_tflops": {"bf16": 1000, "fp8": 0.001},
        "cluster.gpu_types.big.calibration.matmul_efficiency": {
            "bf16": 0.5,
            "fp8": 0.5,
        },
    }
    assert stage_of(changes).decode.total_ns == 2 * 34_399 + 54_003


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"precision": {"activations": "fp16"}}, "dense_tflops"),
        (
            {
                "precision": {"weights": "fp8"},
                "cluster.gpu_types.big.dense_tflops": {"bf16": 1000, "fp8": 2000},
            },
            "matmul_efficiency",
        ),
    ],
)
def test_missing_figures_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInstance, match=field):
        stage_of({**changes})


def test_repeated_node_names_are_refused() -> None:
    subject = instance({"cluster.nodes.1": {"name": "a-0", "gpu": "small", "gpus": 2}})
    plan = plan_for(instance(), ONE_STAGE)
    with pytest.raises(InvalidInstance, match="a-0"):
        check(subject, plan)


def test_derived_figures_round_up() -> None:
    # m = ⌈5/2⌉ = 3, c = ⌈3·7/4⌉ = 6, K = ⌈7/3⌉ = 3, s = ⌈7/3⌉ = 3
    subject = instance(
        {
            "workload.input_tokens": {"constant": 7},
            "workload.output_tokens": {"constant": 4},
            "engine": {"name": "generic"},
        }
    )
    sketch = Sketch(ONE_STAGE.stages, sequences=5, micro_batches=2, chunk=3)
    point = check(subject, plan_for(subject, sketch)).figures.replicas[0].point
    assert point.micro_batch_sequences == 3
    assert point.prompt_tokens == 6
    assert (point.chunk_count, point.prefill_tokens) == (3, 3)


def test_working_width_of_wide_attention() -> None:
    # FFN missing: (2·H_t + 2·K_t)·D = (8 + 2·1)·2; 104 tokens·2 bytes·(24 + 20)
    narrow = {f"{ATTENTION}.kv_heads": 1, FFN: None}
    assert stage_of(narrow).memory.activations == 104 * 2 * 44 + 5 * 128 * 4
    # attention missing: 2·I = 12
    wide = {ATTENTION: None}
    assert stage_of(wide).memory.activations == 104 * 2 * 36 + 5 * 128 * 4


def test_working_width_is_of_the_model_not_of_the_stage() -> None:
    # the last layer is a no-op, yet its stage is sized for the widest kind:
    # (2·4 + 2·2)·2 = 24
    empty = {"name": "empty", "attention": None, "ffn": None, "norm_width": 0}
    changes = {
        "model.layer_kinds": [KIND, empty],
        "model.layers": ["block", "empty"],
    }
    stage = stage_of(changes, stages=2)
    # m = 2: (2 + 100)·2·(24 + 24); logits (2 + 1)·128·4
    assert stage.memory.activations == 102 * 2 * 48 + 3 * 128 * 4


def test_all_reduce_over_four_ranks() -> None:
    # A link of 0.5 MB/s after efficiency makes bytes visible. n = 24 in the mean:
    # 384 B.
    #   layer 2·(12,000 + 3/2·384/5e5 s) = 2·1,164,000 ns
    #   embedding one such all-reduce; logits 12,000 + 3/4·4.02·128·2/5e5 s,
    #   r = 4 + 20/1000: 771.84 B -> 1,543,680 ns
    slow = {"cluster.gpu_types.big.link_gbyte_per_s": 0.001}
    stage = stage_of(slow, tp=4)
    constant = 1_164_000 + 12_000 + 1_543_680
    assert stage.decode.communication_ns == 2 * 2_328_000 + constant


def test_compute_bound_head() -> None:
    # 1e-6 TFLOP/s·0.5 = 5e5: linear 2·336·24/5e5 s = 32,256,000 ns;
    # attention 4·20·500·8/2e5 = 1.6 s; head 2·8·128·4.02/5e5 s = 16,465,920 ns
    slow = {"cluster.gpu_types.big.dense_tflops": {"bf16": 1e-6}}
    layer = 32_256_000 + 1_600_000_000 + 141 + 2000
    assert stage_of(slow).decode.total_ns == 2 * layer + 54_001 + 16_465_920
