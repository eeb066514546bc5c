"""The model document: what it may say, and what the dense cost tables refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from shardwright.ingest import model, names
from shardwright.ingest.json_schema import instance_schema
from shardwright.ingest.references import plain
from shardwright.ingest.validate import attempt, validate
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.model import (
    Attention,
    DenseFfn,
    MlaAttention,
    ModelSpec,
    MoeFfn,
    Quantization,
    SparseIndexer,
)

MLA: dict[str, Any] = {
    "heads": 4, "q_lora_rank": None, "kv_lora_rank": 8, "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2, "v_head_dim": 4,
}  # fmt: skip
KIND = "layer_kinds.0"


def document(name: str = "Qwen/Qwen3-0.6B") -> dict[str, Any]:
    return dict(plain(model(name)))


def changed(path: str, value: Any) -> dict[str, Any]:
    raw = document()
    place: Any = raw
    *above, last = path.split(".")
    for step in above:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return raw


@pytest.mark.parametrize("name", names("llm"))
def test_a_model_survives_its_document(name: str) -> None:
    spec = model(name)
    assert validate(ModelSpec, json.loads(spec.model_dump_json()), "model.json") == spec
    assert ModelSpec.model_validate(spec.model_dump()) == spec


def test_a_missing_type_is_the_dense_one() -> None:
    raw = document()
    for kind in raw["layer_kinds"]:
        del kind["attention"]["type"], kind["ffn"]["type"]
    assert validate(ModelSpec, raw, "model.json") == model("Qwen/Qwen3-0.6B")


def test_experts_and_latents_are_told_by_their_type() -> None:
    raw = changed(f"{KIND}.attention", {"type": "mla", **MLA})
    raw["layer_kinds"][0]["ffn"] = {
        "type": "moe", "experts": 8, "top_k": 2, "intermediate": 16,
    }  # fmt: skip
    [kind] = validate(ModelSpec, raw, "model.json").layer_kinds
    assert isinstance(kind.attention, MlaAttention)
    assert isinstance(kind.ffn, MoeFfn)
    assert kind.attention.latent_width == 10


REFUSED = [
    (f"{KIND}.attention.type", "mamba", f"{KIND}.attention.type", "one of gqa, mla"),
    (f"{KIND}.attention.type", 3, f"{KIND}.attention.type", "gqa"),
    (f"{KIND}.attention.kv_lora_rank", 8, f"{KIND}.attention.kv_lora_rank", "fields"),
    (f"{KIND}.attention.sinks", 1, f"{KIND}.attention.sinks", "true or false"),
    (f"{KIND}.attention", 3, f"{KIND}.attention", "a mapping"),
    (f"{KIND}.ffn.experts", 8, f"{KIND}.ffn.experts", "fields here are"),
    (f"{KIND}.ffn", {"type": "moe", "experts": 8, "top_k": 9, "intermediate": 4},
     f"{KIND}.ffn", "top_k (9)"),
    (f"{KIND}.ffn", {"type": "moe", "experts": 8, "intermediate": 4},
     f"{KIND}.ffn.top_k", "required"),
    ("mtp_kind", "layer", "(document)", "mtp_kind ('layer')"),
    ("quantization", {"dtype": "fp6", "block": None, "scale_bytes": 4,
                      "parts": ["experts"]}, "quantization.dtype", "'fp8'"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "at", "allowed"), REFUSED)
def test_refused_by_the_name_of_the_field(path, value, at, allowed) -> None:
    spec, errors = attempt(ModelSpec, changed(path, value))
    assert spec is None
    [error] = errors
    assert error.path == at
    assert allowed in error.allowed


ROUTED = {"experts": 8, "top_k": 2, "intermediate": 4}
UNROUTABLE = [
    ({"top_k": 9}, "top_k"),
    ({"n_group": 3}, "n_group"),
    ({"n_group": 4, "topk_group": 5}, "topk_group"),
    ({"n_group": 8, "topk_group": 1}, "top_k"),
    ({"shared_experts": 1}, "shared_intermediate"),
    ({"shared_intermediate": 4}, "shared_intermediate"),
    ({"shared_experts": 2, "shared_intermediate": 5}, "shared_intermediate"),
    ({"experts": 0}, "experts"),
    ({"top_k": 0}, "top_k"),
    ({"matrices": 1}, "matrices"),
]


@pytest.mark.parametrize(("changes", "named"), UNROUTABLE)
def test_routing_that_cannot_be(changes: dict[str, int], named: str) -> None:
    MoeFfn(**ROUTED)
    with pytest.raises(ValidationError, match=named):
        MoeFfn(**{**ROUTED, **changes})


def test_an_indexer_reads_the_latent_of_the_queries() -> None:
    indexer = SparseIndexer(heads=2, head_dim=4, top_k=64)
    MlaAttention(**{**MLA, "q_lora_rank": 6}, indexer=indexer)
    with pytest.raises(ValidationError, match="q_lora_rank"):
        MlaAttention(**MLA, indexer=indexer)
    with pytest.raises(ValidationError, match="window_tokens"):
        MlaAttention(**MLA, window_tokens=128)


def test_dense_models_pass_as_they_are() -> None:
    spec = model("google/gemma-3-27b-it")
    assert spec.dense_kinds() == spec.layer_kinds
    for kind in spec.layer_kinds:
        assert (kind.gqa, kind.dense) == (kind.attention, kind.ffn)
    deci = model("nvidia/Llama-3_3-Nemotron-Super-49B-v1")
    assert any(kind.gqa is None for kind in deci.dense_kinds())


UNPRICED = [
    ("Mixtral-8x7B", "mistralai/Mixtral-8x7B-v0.1", ["0.ffn"]),
    ("V3", "deepseek-ai/DeepSeek-V3", ["0.attention", "1.attention", "1.ffn"]),
    ("oss", "openai/gpt-oss-20b",
     ["0.attention.sinks", "0.ffn", "1.attention.sinks", "1.ffn"]),
]  # fmt: skip


@pytest.mark.parametrize(("label", "name", "fields"), UNPRICED)
def test_what_is_not_priced_is_named(label: str, name: str, fields: list[str]) -> None:
    with pytest.raises(InvalidInstance) as caught:
        model(name).dense_kinds()
    paths = [error.path for error in caught.value.errors]
    assert paths == [f"model.layer_kinds.{field}" for field in fields]


def test_value_heads_of_the_same_width_are_priced() -> None:
    attention = Attention(heads=4, kv_heads=2, head_dim=8, v_head_dim=8)
    assert attention.unpriced() is None
    assert attention.model_copy(update={"v_head_dim": 4}).unpriced() == "v_head_dim"
    tied = attention.model_copy(update={"tied_kv_projection": True})
    assert tied.unpriced() == "tied_kv_projection"


def test_the_published_schema_has_both_branches() -> None:
    types = instance_schema()["$defs"]
    assert {"Attention", "MlaAttention", "DenseFfn", "MoeFfn", "SparseIndexer",
            "Quantization"} <= set(types)  # fmt: skip
    [union, null] = types["LayerKind"]["properties"]["ffn"]["anyOf"]
    assert {branch["$ref"] for branch in union["oneOf"]} == {
        "#/$defs/DenseFfn", "#/$defs/MoeFfn",
    }  # fmt: skip
    assert null == {"type": "null"}


def test_documents_are_frozen_and_hashable() -> None:
    for part in (MoeFfn(**ROUTED), DenseFfn(intermediate=4), MlaAttention(**MLA),
                 Quantization(dtype="fp8", block=(128, 128), scale_bytes=4,
                              parts=("experts",))):  # fmt: skip
        assert hash(part) == hash(part.model_copy())
        with pytest.raises(ValidationError):
            part.type = "other"
