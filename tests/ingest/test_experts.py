"""Expert models: what their configs become, and what is refused by name."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from shardwright.ingest import model, names, read_config
from shardwright.ingest.catalogue import root
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.model import MoeFfn

MIXTRAL = "mistralai--Mixtral-8x7B-v0.1"
PHI = "microsoft--Phi-mini-MoE-instruct"
QWEN = "Qwen--Qwen3-30B-A3B"
GLM45 = "zai-org--GLM-4.5"
MINIMAX = "MiniMaxAI--MiniMax-M2.5"
OSS = "openai--gpt-oss-20b"
SCOUT = "meta-llama--Llama-4-Scout-17B-16E-Instruct"
MAVERICK = "meta-llama--Llama-4-Maverick-17B-128E-Instruct"
MIMO = "XiaomiMiMo--MiMo-V2-Flash"
GEMMA = "google--gemma-4-26B-A4B"
V2 = "deepseek-ai--DeepSeek-V2-Lite"
V3 = "deepseek-ai--DeepSeek-V3"
V32 = "deepseek-ai--DeepSeek-V3.2"
GLM5 = "zai-org--GLM-5-FP8"
KIMI = "moonshotai--Kimi-K2.5"
EXPERTS = [n for n in names("llm")
           if any(isinstance(k.ffn, MoeFfn) for k in model(n).layer_kinds)]  # fmt: skip
WEIGHTS = "text_config.quantization_config"


def raw_config(name: str) -> dict[str, Any]:
    return dict(json.loads((root() / "llm" / f"{name}.json").read_text()))


def read(name: str, changes: dict[str, Any]):
    """The config with dotted paths changed; an Ellipsis removes."""
    raw = copy.deepcopy(raw_config(name))
    for path, value in changes.items():
        *above, last = path.split(".")
        place: Any = raw
        for step in above:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if value is ...:
            place.pop(last, None)
        elif isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    return read_config(raw, "changed", "config.json")


def kinds_of(spec) -> dict[str, Any]:
    return {kind.name: kind for kind in spec.layer_kinds}


def test_mixtral() -> None:
    [kind] = read(MIXTRAL, {}).layer_kinds
    assert (kind.ffn.experts, kind.ffn.top_k) == (8, 2)
    assert kind.ffn.intermediate == 14336
    assert (kind.ffn.shared_experts, kind.ffn.n_group) == (0, 1)
    assert kind.attention.window_tokens is None
    [local] = read(MIXTRAL, {"sliding_window": 4096}).layer_kinds
    assert local.attention.window_tokens == 4096


def test_phi_has_biases_in_norms_attention_and_head() -> None:
    spec = read(PHI, {})
    [kind] = spec.layer_kinds
    assert spec.lm_head_bias
    assert (spec.final_norm_width, kind.norm_width) == (2 * 4096, 4 * 4096)
    assert kind.attention.qkv_bias
    assert kind.attention.output_bias
    assert kind.attention.window_tokens == 2047


def test_qwen3_layers_without_experts() -> None:
    assert kinds_of(read(QWEN, {})).keys() == {"moe"}
    spec = read(QWEN, {"decoder_sparse_step": 2, "mlp_only_layers": [3]})
    assert spec.layers[:6] == ("dense", "moe", "dense", "dense", "dense", "moe")
    assert kinds_of(spec)["dense"].ffn.intermediate == 6144


def test_glm45_biases_norms_and_prediction_module() -> None:
    spec = read(GLM45, {})
    moe = kinds_of(spec)["moe"]
    assert spec.layers == ("dense",) * 3 + ("moe",) * 89
    assert (moe.attention.qkv_bias, moe.attention.output_bias) == (True, False)
    assert moe.attention.qk_norm_width == 2 * 128
    assert (moe.ffn.shared_experts, moe.ffn.shared_intermediate) == (1, 1536)
    assert (spec.mtp_layers, spec.mtp_kind) == (1, "moe")
    none = read(GLM45, {"num_nextn_predict_layers": 0})
    assert (none.mtp_layers, none.mtp_kind) == (0, None)


def test_minimax_normalises_all_heads_at_once() -> None:
    spec = read(MINIMAX, {"attn_type_list": [1] * 62})
    [kind] = spec.layer_kinds
    assert kind.attention.qk_norm_width == (48 + 8) * 128
    assert kind.ffn.correction_bias
    assert (spec.mtp_layers, spec.mtp_kind) == (3, None)
    assert spec.quantization.dtype == "fp8"
    assert read(MINIMAX, {"use_mtp": False}).mtp_layers == 0


def test_gpt_oss_slides_in_every_other_layer() -> None:
    spec = read(OSS, {})
    assert spec.layers[:3] == ("moe-local", "moe-global", "moe-local")
    assert spec.layers == read(OSS, {"layer_types": ...}).layers
    local = kinds_of(spec)["moe-local"]
    assert local.attention.window_tokens == 128
    assert local.attention.sinks
    assert local.ffn.bias
    assert local.ffn.router_bias
    assert spec.max_position_tokens == 131_072
    assert spec.quantization.model_dump() == {
        "dtype": "fp4", "block": (1, 32), "scale_bytes": 1, "parts": ("experts",),
    }  # fmt: skip


def test_llama4_alternates_experts_and_chunks() -> None:
    spec = read(MAVERICK, {})
    assert spec.layers[:4] == ("dense-local", "moe-local", "dense-local", "moe-global")
    dense, moe = (kinds_of(spec)[n] for n in ("dense-local", "moe-global"))
    assert (dense.ffn.intermediate, dense.attention.window_tokens) == (16384, 8192)
    assert (moe.ffn.experts, moe.ffn.top_k, moe.ffn.shared_intermediate) == (
        128, 1, 8192,
    )  # fmt: skip
    assert moe.attention.window_tokens is None
    assert read(SCOUT, {}).layers[:4] == ("moe-local",) * 3 + ("moe-global",)
    whole = read(SCOUT, {"text_config.attention_chunk_size": None})
    assert set(whole.layers) == {"moe"}
    listed = read(SCOUT, {"text_config.no_rope_layers": [0] + [1] * 47})
    assert listed.layers[:2] == ("moe-global", "moe-local")


def test_mimo_has_two_attentions() -> None:
    spec = read(MIMO, {})
    local, far = (kinds_of(spec)[n] for n in ("moe-local", "moe-global"))
    assert spec.layers[0] == "dense-global"
    assert spec.layers.count("moe-local") == 39
    assert (local.attention.kv_heads, far.attention.kv_heads) == (8, 4)
    assert (local.attention.head_dim, local.attention.value_dim) == (192, 128)
    assert (local.attention.sinks, far.attention.sinks) == (True, False)


def test_gemma4_has_a_dense_ffn_beside_the_experts() -> None:
    spec = read(GEMMA, {})
    local, far = (kinds_of(spec)[n] for n in ("moe-local", "moe-global"))
    assert spec.layers[4:6] == ("moe-local", "moe-global")
    assert (local.ffn.dense_intermediate, local.ffn.intermediate) == (2112, 704)
    assert local.ffn.router_scale_width == 2816 + 128
    assert local.norm_width == 7 * 2816
    assert (local.attention.head_dim, local.attention.kv_heads) == (256, 8)
    assert (far.attention.head_dim, far.attention.kv_heads) == (512, 2)
    assert (local.attention.tied_kv_projection, far.attention.tied_kv_projection) == (
        False, True,
    )  # fmt: skip
    assert spec.tied_embeddings
    part = "text_config"
    dense = read(GEMMA, {f"{part}.enable_moe_block": False, f"{part}.num_experts": None,
                         f"{part}.top_k_experts": None,
                         f"{part}.moe_intermediate_size": None})  # fmt: skip
    assert kinds_of(dense)["dense-local"].norm_width == 4 * 2816


def test_deepseek_v2_and_v3() -> None:
    lite, spec = read(V2, {}), read(V3, {})
    small, large = kinds_of(lite)["moe"], kinds_of(spec)["moe"]
    assert small.attention.q_lora_rank is None
    assert (small.ffn.shared_experts, small.ffn.shared_intermediate) == (2, 2816)
    assert not small.ffn.correction_bias
    assert lite.layers == ("dense",) + ("moe",) * 26
    assert large.attention.q_lora_rank == 1536
    assert large.attention.latent_width == 576
    assert large.attention.kv_heads == 128
    assert large.attention.indexer is None
    assert (large.ffn.n_group, large.ffn.topk_group) == (8, 4)
    assert large.ffn.correction_bias
    assert (spec.mtp_layers, spec.mtp_kind) == (1, "moe")
    assert spec.layers == ("dense",) * 3 + ("moe",) * 58
    assert spec.max_position_tokens == 163_840
    assert spec.quantization.block == (128, 128)
    assert len(spec.quantization.parts) == 4


@pytest.mark.parametrize(("name", "heads"), [(V32, 64), (GLM5, 32)])
def test_sparse_indexers(name: str, heads: int) -> None:
    spec = read(name, {})
    indexer = kinds_of(spec)["moe"].attention.indexer
    assert (indexer.heads, indexer.head_dim, indexer.top_k) == (heads, 128, 2048)
    assert spec.quantization.dtype == "fp8"


def test_kimi_publishes_its_experts_in_4_bits() -> None:
    spec = read(KIMI, {})
    assert kinds_of(spec)["moe"].ffn.experts == 384
    assert spec.mtp_layers == 0
    assert spec.quantization.model_dump() == {
        "dtype": "int4", "block": (1, 32), "scale_bytes": 2, "parts": ("experts",),
    }  # fmt: skip


def test_weights_may_be_described_at_the_top() -> None:
    inside = read(KIMI, {})
    raw = raw_config(KIMI)
    raw["quantization_config"] = raw["text_config"].pop("quantization_config")
    assert read_config(raw, "changed", "config.json") == inside
    assert model("zai-org/GLM-5").quantization is None
    whole = read(V3, {"quantization_config.weight_block_size": ...})
    assert whole.quantization.block is None


HYBRIDS = [
    ({"text_config": {"linear_num_value_heads": 32}}, "text_config.linear_num_value_"),
    ({"hybrid_override_pattern": "M-M*"}, "hybrid_override_pattern"),
    ({"architectures": ["MiniMaxM1ForCausalLM"]}, "attn_type_list"),
    ({"architectures": ["Step3p7FlashForCausalLM"]}, "attention_other_setting"),
    ({"sparse_attention_config": {"sparse_index_dim": 128}}, "sparse_attention_config"),
    ({"compress_ratios": [0, 4, 128]}, "compress_ratios"),
    ({"o_lora_rank": 1024}, "o_lora_rank"),
]


@pytest.mark.parametrize(("raw", "field"), HYBRIDS)
def test_what_cannot_be_read_is_named(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInstance) as caught:
        read_config(raw, "hybrid", "config.json")
    [error] = caught.value.errors
    assert error.path.startswith(field)
    assert "read yet" in error.allowed


TEXT = "text_config"
REFUSED = [
    # routing that is impossible, or of another kind
    (MIXTRAL, {"num_experts_per_tok": 9}, "num_experts_per_tok", "9"),
    (MIXTRAL, {"num_local_experts": ...}, "num_local_experts", "nothing"),
    (MIXTRAL, {"n_shared_experts": 1}, "n_shared_experts", "1"),
    (QWEN, {"mlp_only_layers": [48]}, "mlp_only_layers", "a list of 1"),
    (QWEN, {"mlp_only_layers": 3}, "mlp_only_layers", "3"),
    (QWEN, {"decoder_sparse_step": 0}, "decoder_sparse_step", "0"),
    (QWEN, {"shared_expert_intermediate_size": 512}, "shared_expert_intermediate_size",
     "512"),
    (GLM45, {"n_group": 7}, "n_group", "7"),
    (GLM45, {"first_k_dense_replace": 93}, "first_k_dense_replace", "93"),
    (GLM45, {"num_nextn_predict_layers": -1}, "num_nextn_predict_layers", "-1"),
    (MINIMAX, {"attn_type_list": [0] * 62}, "attn_type_list", "a list of 62"),
    (MINIMAX, {"shared_intermediate_size": 8}, "shared_intermediate_size", "8"),
    (MINIMAX, {"qk_norm_type": "per_head"}, "qk_norm_type", "per_head"),
    (OSS, {"experts_per_token": 2}, "experts_per_token", "2"),
    (OSS, {"sliding_window": None}, "sliding_window", "null"),
    (V3, {"topk_group": 9}, "topk_group", "9"),
    (V3, {"n_group": 64, "topk_group": 1}, "topk_group", "1"),
    (V3, {"moe_layer_freq": 2}, "moe_layer_freq", "2"),
    (V3, {"topk_method": "greedy"}, "topk_method", "greedy"),
    (V2, {"n_group": 8}, "n_group", "8"),
    # attention
    (V3, {"num_key_value_heads": 8}, "num_key_value_heads", "8"),
    (V3, {"attention_bias": True}, "attention_bias", "true"),
    (V3, {"kv_lora_rank": None}, "kv_lora_rank", "null"),
    (GLM5, {"qk_head_dim": 128}, "qk_head_dim", "128"),
    (GLM5, {"head_dim": 128}, "head_dim", "128"),
    (V32, {"q_lora_rank": None}, "q_lora_rank", "null"),
    (V32, {"index_topk": ...}, "index_topk", "nothing"),
    (SCOUT, {f"{TEXT}.moe_layers": [3]}, f"{TEXT}.moe_layers", "a list of 1"),
    (SCOUT, {f"{TEXT}.no_rope_layers": [1]}, f"{TEXT}.no_rope_layers", "a list of 1"),
    (SCOUT, {f"{TEXT}.no_rope_layer_interval": 2}, f"{TEXT}.no_rope_layer_interval",
     "2"),
    (MIMO, {"hybrid_layer_pattern.5": 2}, "hybrid_layer_pattern", "a list of 48"),
    (MIMO, {"moe_layer_freq": 1}, "moe_layer_freq", "1"),
    (MIMO, {"n_shared_experts": 1}, "n_shared_experts", "1"),
    (MIMO, {"sliding_window_size": 256}, "sliding_window_size", "256"),
    (MIMO, {"swa_num_key_value_heads": 7}, "swa_num_key_value_heads", "7"),
    (GEMMA, {f"{TEXT}.hidden_size_per_layer_input": ...},
     f"{TEXT}.hidden_size_per_layer_input", "nothing"),
    (GEMMA, {f"{TEXT}.num_kv_shared_layers": 2}, f"{TEXT}.num_kv_shared_layers", "2"),
    (GEMMA, {f"{TEXT}.layer_types.29": "sliding_attention"}, f"{TEXT}.layer_types.29",
     "sliding"),
    (GEMMA, {f"{TEXT}.num_global_key_value_heads": 3},
     f"{TEXT}.num_global_key_value_heads", "3"),
    (GEMMA, {f"{TEXT}.enable_moe_block": False}, f"{TEXT}.num_experts", "128"),
    (KIMI, {f"{TEXT}.is_encoder_decoder": True}, f"{TEXT}.is_encoder_decoder", "true"),
    # sizes that each file field allows and their product does not
    (GLM45, {"hidden_size": 10**7}, "(model).norm_width", "20000000"),
    (GLM45, {"n_shared_experts": 1000, "moe_intermediate_size": 10**6},
     "layer_kinds.1.ffn.shared_intermediate", "1000000000"),
    # published weights
    (V3, {"quantization_config": 8}, "quantization_config", "8"),
    (V3, {"quantization_config.quant_method": "gptq"},
     "quantization_config.quant_method", "gptq"),
    (V3, {"quantization_config.fmt": "e5m2"}, "quantization_config.fmt", "e5m2"),
    (V3, {"quantization_config.bits": 8}, "quantization_config.bits", "8"),
    (V3, {"quantization_config.weight_block_size": [128]},
     "quantization_config.weight_block_size", "a list of 1"),
    (V3, {"quantization_config.modules_to_not_convert": ["model.layers.3.mlp.up_proj"]},
     "quantization_config.modules_to_not_convert.0", "up_proj"),
    (KIMI, {"quantization_config": {}}, "quantization_config", "no keys"),
    (KIMI, {f"{WEIGHTS}.ignore.1": "re:.*experts.*"}, f"{WEIGHTS}.ignore.1", "experts"),
    (KIMI, {f"{WEIGHTS}.config_groups.group_0.weights.num_bits": 8},
     f"{WEIGHTS}.config_groups.group_0.weights.num_bits", "8"),
    (KIMI, {f"{WEIGHTS}.config_groups.group_0.weights.num_bits": ...},
     f"{WEIGHTS}.config_groups.group_0.weights.num_bits", "nothing"),
    (KIMI, {f"{WEIGHTS}.config_groups.group_1": {}},
     f"{WEIGHTS}.config_groups.group_1", "no keys"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "path", "found"), REFUSED)
def test_refused_by_the_name_of_the_field(name, changes, path, found) -> None:
    with pytest.raises(InvalidInstance) as caught:
        read(name, changes)
    [error] = caught.value.errors
    assert error.path == path
    assert found in error.found
    assert error.allowed


@pytest.mark.parametrize("name", EXPERTS)
def test_every_kind_of_unreadable_value_is_refused_not_raised(name: str) -> None:
    raw = raw_config(name)
    inner = raw.get(TEXT, {})
    weights = raw.get("quantization_config", {})
    fields = [*raw, *(f"{TEXT}.{f}" for f in inner),
              *(f"quantization_config.{f}" for f in weights)]  # fmt: skip
    for value in (None, True, -1, 0, 1.5, 10**30, "x", [], {}, [1], {"a": 1}, [[]]):
        for field in fields:
            try:
                read(name, {field: value})
            except InvalidInstance as refused:
                assert refused.errors
