"""Counted parameters against published totals."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import Any

import pytest

from shardwright.ingest import model, names, parameter_count
from shardwright.ingest.catalogue import root
from shardwright.ingest.document import parse, read_file
from shardwright.ingest.parameters import layer_parameters, parameter_counts
from shardwright.schema.model import (
    Attention,
    DenseFfn,
    LayerKind,
    MlaAttention,
    ModelSpec,
    MoeFfn,
    SparseIndexer,
)

PROVENANCE: dict[str, dict[str, Any]] = parse(
    read_file(root() / "llm" / "PROVENANCE.yaml"), "PROVENANCE.yaml"
)
EXCEPTIONS = {
    "MiniMaxAI--MiniMax-M2.5",
    "deepseek-ai--DeepSeek-V3.2",
    "google--gemma-3-27b-it",
    "meta-llama--Llama-4-Maverick-17B-128E-Instruct",
    "meta-llama--Llama-4-Scout-17B-16E-Instruct",
    "moonshotai--Kimi-K2-Instruct",
    "moonshotai--Kimi-K2.5",
    "zai-org--GLM-4.5",
}
ACTIVE_EXCEPTIONS = {
    "Qwen--Qwen3-30B-A3B",
    "deepseek-ai--DeepSeek-V2-Lite",
    "meta-llama--Llama-4-Maverick-17B-128E-Instruct",
    "meta-llama--Llama-4-Scout-17B-16E-Instruct",
    "mistralai--Mixtral-8x7B-v0.1",
    "zai-org--GLM-4.5",
    "zai-org--GLM-5",
    "zai-org--GLM-5-FP8",
}
UNPUBLISHED = {
    "01-ai--Yi-34B": 34_388_917_248,
    "XiaomiMiMo--MiMo-V2-Flash": 308_778_780_864,
    "codellama--CodeLlama-34b-Instruct-hf": 33_743_970_304,
    "microsoft--Phi-mini-MoE-instruct": 7_647_632_704,
    "mistralai--Mistral-Nemo-Instruct-2407": 12_247_782_400,
}
UNPUBLISHED_ACTIVE = {
    "XiaomiMiMo--MiMo-V2-Flash": 14_820_985_024,
    "microsoft--Phi-mini-MoE-instruct": 2_231_475_520,
}


def with_experts(name: str) -> bool:
    return any(isinstance(kind.ffn, MoeFfn) for kind in model(name).layer_kinds)


def test_every_model_has_its_provenance() -> None:
    assert set(PROVENANCE) == set(names("llm"))
    assert {row["file"] for row in PROVENANCE.values()} == {"verbatim", "reconstructed"}
    assert all(row["origin"] for row in PROVENANCE.values())


def test_exceptions_are_the_known_ones() -> None:
    def having(field: str) -> set[str]:
        return {name for name, row in PROVENANCE.items() if field in row}

    assert having("exception") == EXCEPTIONS
    assert having("active_exception") == ACTIVE_EXCEPTIONS
    printed = having("published_total") | having("published_billion")
    assert set(PROVENANCE) - printed == set(UNPUBLISHED)
    experts = {name for name in PROVENANCE if with_experts(name)}
    assert experts - having("published_active_billion") == set(UNPUBLISHED_ACTIVE)
    assert having("published_active_billion") <= experts
    for name in EXCEPTIONS | ACTIVE_EXCEPTIONS:
        for field in ("exception", "active_exception"):
            assert PROVENANCE[name].get(field, {"reason": "none"})["reason"]


def printed(count: int, digits: str, exception: dict[str, Any]) -> Decimal:
    """The count in billions at the digits of the print, or as the exception says."""
    rounding = exception.get("rounded", digits)
    if rounding == "down":
        return (Decimal(count) / 10**9).quantize(Decimal(digits), ROUND_DOWN)
    if rounding == digits:
        return (Decimal(count) / 10**9).quantize(Decimal(digits))
    step = Decimal(rounding)
    return (Decimal(count) / 10**9 / step).quantize(Decimal(1)) * step


def adjusted(name: str, count: int, exception: dict[str, Any]) -> int:
    """The count with the parts that the print adds, without those it leaves out."""
    counts = parameter_counts(model(name))
    count += sum(getattr(counts, part) for part in exception.get("adds", []))
    count -= sum(getattr(counts, part) for part in exception.get("removes", []))
    return count + round(Decimal(exception.get("uncounted_billion", "0")) * 10**9)


def agrees(name: str, count: int, digits: str, exception: dict[str, Any]) -> bool:
    return printed(adjusted(name, count, exception), digits, exception) == Decimal(
        digits
    )


@pytest.mark.parametrize("name", sorted(PROVENANCE))
def test_count_is_the_published_total(name: str) -> None:
    row, count = PROVENANCE[name], parameter_count(model(name))
    if name in UNPUBLISHED:
        assert count == UNPUBLISHED[name]
    elif "published_total" in row:
        assert abs(count - row["published_total"]) <= row["published_total"] / 1000
    else:
        exception = row.get("exception", {})
        assert agrees(name, count, row["published_billion"], exception), exception


@pytest.mark.parametrize("name", sorted(filter(with_experts, PROVENANCE)))
def test_active_count_is_the_published_one(name: str) -> None:
    row, counts = PROVENANCE[name], parameter_counts(model(name))
    assert counts.active < counts.total - counts.embedding
    if name in UNPUBLISHED_ACTIVE:
        assert counts.active == UNPUBLISHED_ACTIVE[name]
    else:
        digits, exception = row["published_active_billion"], row.get("active_exception")
        assert agrees(name, counts.active, digits, exception or {}), exception


@pytest.mark.parametrize("name", sorted(EXCEPTIONS | ACTIVE_EXCEPTIONS))
def test_exceptions_are_needed(name: str) -> None:
    row, counts = PROVENANCE[name], parameter_counts(model(name))
    if "exception" in row:
        assert not agrees(name, counts.total, row["published_billion"], {})
    if "active_exception" in row:
        assert not agrees(name, counts.active, row["published_active_billion"], {})


def test_checkpoints_hold_the_prediction_module_and_copies_for_it() -> None:
    on_disk = {n: row["on_disk_billion"] for n, row in PROVENANCE.items()
               if "on_disk_billion" in row}  # fmt: skip
    assert len(on_disk) == 3
    for name, digits in on_disk.items():
        copies = {"adds": ["mtp", "embedding", "lm_head"]}
        count = parameter_count(model(name))
        # a checkpoint's tensors include the scales, one for 128 by 128 weights
        assert agrees(name, count + count // 128**2, digits, copies)


@pytest.mark.parametrize("name", sorted(PROVENANCE))
def test_exact_totals_agree_to_the_parameter(name: str) -> None:
    total = PROVENANCE[name].get("published_total")
    if total is not None:
        assert parameter_count(model(name)) == total


def test_dense_models_use_all_but_the_embedding() -> None:
    for name in ("Qwen--Qwen3-0.6B", "meta-llama--Meta-Llama-3.1-8B"):
        counts = parameter_counts(model(name))
        assert counts.active == counts.total - counts.embedding
        assert (counts.mtp, counts.mtp_active, counts.indexers) == (0, 0, 0)


def spec(tied: bool, bias: bool) -> ModelSpec:
    attention = Attention(
        heads=4, kv_heads=2, head_dim=3, qkv_bias=bias, output_bias=bias,
        qk_norm_width=6,
    )  # fmt: skip
    ffn = DenseFfn(intermediate=7, matrices=2, bias=bias)
    full = LayerKind(name="full", attention=attention, ffn=ffn, norm_width=20)
    bare = LayerKind(name="bare", attention=None, ffn=None, norm_width=0)
    return ModelSpec(
        name="tiny", hidden=10, vocabulary=100, tied_embeddings=tied,
        max_position_tokens=None, final_norm_width=10, layer_kinds=(full, bare),
        layers=("full", "bare", "full"),
    )  # fmt: skip


def test_a_count_by_hand() -> None:
    # q 10*12, k and v 10*6 each, o 12*10; two FFN matrices 10*7; norms 6 + 20
    layer = 120 + 60 + 60 + 120 + 140 + 26
    assert parameter_count(spec(True, False)) == 1000 + 2 * layer + 10
    assert parameter_count(spec(False, False)) == 2000 + 2 * layer + 10
    # biases: q 12, k and v 6 each, o 10; up 7, down 10
    assert parameter_count(spec(True, True)) == 1000 + 2 * (layer + 34 + 17) + 10


def test_experts_and_latents_by_hand() -> None:
    attention = MlaAttention(
        heads=2, q_lora_rank=5, kv_lora_rank=4, qk_nope_head_dim=3,
        qk_rope_head_dim=1, v_head_dim=2,
        indexer=SparseIndexer(heads=2, head_dim=3, top_k=8),
    )  # fmt: skip
    moe = MoeFfn(
        experts=6, top_k=2, intermediate=7, bias=True, shared_experts=2,
        shared_intermediate=14, router_bias=True, correction_bias=True,
        router_scale_width=11, dense_intermediate=5,
    )  # fmt: skip
    kind = LayerKind(name="moe", attention=attention, ffn=moe, norm_width=20)
    spec = ModelSpec(
        name="tiny", hidden=10, vocabulary=100, tied_embeddings=False,
        max_position_tokens=None, final_norm_width=10, lm_head_bias=True,
        layer_kinds=(kind,), layers=("moe", "moe"), mtp_layers=1, mtp_kind="moe",
    )  # fmt: skip
    # q: down 10*5, norm 5, up 5*2*4; kv: down 10*5, norm 4, up 4*2*5; o 4*10
    # indexer: queries 5*2*3, key 10*3 with a norm of 2*3, head weights 10*2
    latent = (50 + 5 + 40) + (50 + 4 + 40) + 40 + (30 + 36 + 20)
    # expert: 3 matrices 10*7, biases 2*7 + 10; beside them 3*10*(14 + 5)
    expert, beside, router = 210 + 24, 570, 6 * 10 + 6 + 6 + 11
    layer = latent + 6 * expert + beside + router + 20
    used = layer - 4 * expert
    counts = parameter_counts(spec)
    assert counts.total == 1000 + (1000 + 100) + 10 + 2 * layer
    assert counts.active == (1000 + 100) + 10 + 2 * used
    assert (counts.embedding, counts.lm_head, counts.indexers) == (1000, 1100, 2 * 86)
    assert counts.mtp == layer + 2 * 10 * 10 + 3 * 10
    assert counts.mtp_active == used + 230
    unknown = spec.model_copy(update={"mtp_kind": None})
    assert parameter_counts(unknown).mtp is None


def test_value_heads_tied_values_and_sinks_by_hand() -> None:
    def layer(**changes: Any) -> int:
        attention = Attention(heads=4, kv_heads=2, head_dim=3, **changes)
        kind = LayerKind(name="a", attention=attention, ffn=None, norm_width=0)
        return layer_parameters(kind, 10)

    assert layer() == 10 * (12 + 6 + 6 + 12)
    assert layer(v_head_dim=2) == 10 * (12 + 6 + 4 + 8)
    assert layer(tied_kv_projection=True) == 10 * (12 + 6 + 12)
    assert layer(sinks=True) == layer() + 4
    assert layer(v_head_dim=2, qkv_bias=True) == layer(v_head_dim=2) + 22
