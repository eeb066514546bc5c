"""Memory of one GPU by numbers worked out on paper, and what must not decrease."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shardwright.cost.memory import (
    FIRST,
    LAST,
    MIDDLE,
    ONLY,
    activation_bytes,
    communication_bytes,
    framework_bytes,
    padded_vocabulary,
    stage_weight_bytes,
)
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.ingest import gpu, model
from shardwright.schema.model import ModelSpec
from shardwright.schema.workload import Limits, Precision

BF16 = Precision()


def precision(**formats: Any) -> Precision:
    return Precision.model_validate_json(json.dumps(formats))


@pytest.fixture(scope="module")
def llama() -> ModelSpec:
    """Hidden 8192, 80 layers of 64 heads, 8 KV heads, 28672 wide; 128256 words."""
    return model("meta-llama/Meta-Llama-3-70B-Instruct")


def rank(
    spec: ModelSpec, tp: int, kind: int = 0, formats: Precision | None = None
) -> RankLayer:
    shape = StageShape.dense(tp)
    return RankLayer.of(spec, spec.layer_kinds[kind], shape, formats or BF16)


def test_weights_of_a_llama_layer(llama: ModelSpec) -> None:
    """q, o: 8192^2; k, v: 8192 x 1024; three of 8192 x 28672; two norms of 8192."""
    whole = 2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28_672
    assert whole == 855_638_016
    assert rank(llama, 1).weight_bytes(BF16) == 2 * (whole + 2 * 8192)
    assert rank(llama, 2).weight_bytes(BF16) == whole + 2 * 2 * 8192
    fp8 = precision(weights="fp8")
    assert rank(llama, 1, formats=fp8).weight_bytes(fp8) == whole + 2 * 2 * 8192
    int4 = precision(weights="int4")
    assert rank(llama, 1, formats=int4).weight_bytes(int4) == whole // 2 + 2 * 2 * 8192


def test_the_whole_model_is_its_published_size(llama: ModelSpec) -> None:
    """70,553,706,496 parameters in two bytes each."""
    layers = 80 * rank(llama, 1).weight_bytes(BF16)
    rest = stage_weight_bytes(llama, BF16, 1, ONLY)
    assert layers + rest == 2 * 70_553_706_496


def test_four_equal_stages_of_two_gpus(llama: ModelSpec) -> None:
    """17.1 GB per GPU on inner stages, 18.2 GB where the embedding or head lies."""
    layers = 20 * rank(llama, 2).weight_bytes(BF16)
    vocabulary = 128_256 * 8192
    assert stage_weight_bytes(llama, BF16, 2, MIDDLE) == 0
    assert stage_weight_bytes(llama, BF16, 2, FIRST) == vocabulary
    assert stage_weight_bytes(llama, BF16, 2, LAST) == vocabulary + 2 * 8192
    assert round(layers / 1e9, 1) == 17.1
    assert round((layers + vocabulary) / 1e9, 1) == 18.2


def test_tied_embeddings_are_held_once_only_on_a_single_stage() -> None:
    gemma = model("google/gemma-3-27b-it")
    assert gemma.tied_embeddings
    first, last, only = (
        stage_weight_bytes(gemma, BF16, 1, role) for role in (FIRST, LAST, ONLY)
    )
    assert only == last
    assert last - first == 2 * gemma.final_norm_width


def test_vocabulary_is_padded_to_64() -> None:
    assert [padded_vocabulary(n) for n in (1, 64, 65, 128_256)] == [
        64,
        64,
        128,
        128_256,
    ]


def test_kv_heads_are_replicated_beyond_their_number(llama: ModelSpec) -> None:
    """2 (K and V) x heads per rank x 128 x 2 bytes; never less than one head."""
    per_token = [rank(llama, tp).kv_bytes_per_token(BF16) for tp in (1, 2, 4, 8, 16)]
    assert per_token == [4096, 2048, 1024, 512, 512]
    assert rank(llama, 1).kv_bytes_per_token(precision(kv_cache="fp8")) == 2048


def test_a_window_bounds_the_cache_of_a_layer() -> None:
    gemma = model("google/gemma-3-27b-it")
    local, whole = sorted(
        (
            RankLayer.of(gemma, kind, StageShape.dense(1), BF16)
            for kind in gemma.layer_kinds
        ),
        key=lambda r: not r.windowed,
    )
    assert local.attention is not None and whole.attention is not None
    assert local.attention.window_tokens == 1024
    assert whole.attention.window_tokens is None
    per_token = local.kv_bytes_per_token(BF16)
    assert local.kv_bytes(BF16, 100_000, 10) == 10 * 1024 * per_token
    assert local.kv_bytes(BF16, 500, 10) == 500 * per_token
    assert whole.kv_bytes(BF16, 100_000, 10) == 100_000 * per_token


def test_kv_of_all_sequences_lies_on_every_stage(llama: ModelSpec) -> None:
    """pp 4, tp 2, 2048 sequences of 1024 tokens: a micro-batch of 512 would fit.

    Counting the micro-batch alone gives 36 GiB per GPU; in truth it is 96 GiB.
    """
    layer = rank(llama, 2)
    weights = 20 * layer.weight_bytes(BF16)
    micro, resident = (
        weights + 20 * layer.kv_bytes(BF16, n * 1024, n) for n in (512, 2048)
    )
    assert [round(b / 2**30) for b in (micro, resident)] == [36, 96]


def test_activations_and_logits_by_hand(llama: ModelSpec) -> None:
    """(m + chunk) x 2 x (3 x 8192 + 2 x 28672 / tp), logits in four bytes."""
    tokens, rows = 64 + 2048, 66
    for tp, widest in ((1, 2 * 28_672), (2, 28_672), (8, 2 * 3584)):
        peak = tokens * 2 * (3 * 8192 + widest)
        ranks = (rank(llama, tp),)
        assert activation_bytes(llama, BF16, ranks, tokens, rows, MIDDLE) == peak
        logits = rows * 128_256 * 4
        assert activation_bytes(llama, BF16, ranks, tokens, rows, LAST) == peak + logits


def test_communicators_and_their_buffer(llama: ModelSpec) -> None:
    """300 MB for each of tensor and pipeline parallel, a buffer for the former."""
    h100 = gpu("H100-SXM")
    buffer = 2112 * 8192 * 2

    def total(tp: int, role: int) -> int:
        shape, batch = StageShape.dense(tp), (2112, 2048)
        return communication_bytes(llama, BF16, h100, shape, (), batch, role)

    assert total(1, ONLY) == 0
    assert total(1, MIDDLE) == 300_000_000
    assert total(2, ONLY) == 300_000_000 + buffer
    assert total(2, LAST) == 600_000_000 + buffer


def test_the_reserve_is_beside_the_framework() -> None:
    h100 = gpu("H100-SXM")
    limits = Limits.model_validate_json('{"reserve_per_gpu": "2 GB"}')
    assert framework_bytes(h100, Limits()) == 1_500_000_000
    assert framework_bytes(h100, limits) == 3_500_000_000


@pytest.mark.parametrize(
    "name", ["meta-llama/Meta-Llama-3-70B-Instruct", "google/gemma-3-27b-it"]
)
def test_more_ranks_never_hold_more_each(name: str) -> None:
    spec = model(name)
    for kind in range(len(spec.layer_kinds)):
        ranks = [rank(spec, tp, kind) for tp in range(1, 17)]
        weights = [r.weight_bytes(BF16) for r in ranks]
        cache = [r.kv_bytes(BF16, 10_000, 8) for r in ranks]
        assert weights == sorted(weights, reverse=True)
        assert cache == sorted(cache, reverse=True)
        for tp, each in enumerate(weights, start=1):
            assert tp * each >= weights[0]
