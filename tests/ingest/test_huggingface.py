"""config.json: what is understood, what is harmless, what is refused by name."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from shardwright.ingest import model, read_config
from shardwright.ingest.catalogue import root
from shardwright.ingest.decilm import ffn_width
from shardwright.schema.errors import InvalidInstance

LLAMA = "meta-llama--Meta-Llama-3.1-8B"
QWEN2 = "Qwen--Qwen2.5-7B-Instruct"
QWEN3 = "Qwen--Qwen3-8B"
GEMMA = "google--gemma-3-27b-it"
MISTRAL = "mistralai--Mistral-Nemo-Instruct-2407"
PHI = "microsoft--phi-4"
DECI = "nvidia--Llama-3_3-Nemotron-Super-49B-v1"
BLOCK = "block_configs.3"


def raw_config(name: str) -> dict[str, Any]:
    return dict(json.loads((root() / "llm" / f"{name}.json").read_text()))


def changed(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The raw config with dotted paths changed; an Ellipsis removes."""
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
    return raw


def read(name: str, changes: dict[str, Any]):
    return read_config(changed(name, changes), "changed", "config.json")


def test_llama() -> None:
    spec = model("meta-llama/Meta-Llama-3-70B-Instruct")
    [kind] = spec.layer_kinds
    assert (kind.attention.heads, kind.attention.kv_heads) == (64, 8)
    assert (kind.attention.head_dim, kind.ffn.intermediate) == (128, 28672)
    assert kind.ffn.matrices == 3
    assert kind.norm_width == 2 * 8192
    assert not spec.tied_embeddings
    assert spec.max_position_tokens == 8192
    assert spec.final_norm_width == 8192


def test_llama_biases_and_absent_kv_heads() -> None:
    spec = read(
        LLAMA, {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": ...}
    )
    [kind] = spec.layer_kinds
    assert kind.attention.qkv_bias
    assert kind.attention.output_bias
    assert kind.ffn.bias
    assert kind.attention.kv_heads == 32


def test_mistral_slides_everywhere_or_nowhere() -> None:
    assert read(MISTRAL, {}).layer_kinds[0].attention.window_tokens is None
    assert read(MISTRAL, {}).layer_kinds[0].attention.head_dim == 128
    for change, window in ((1024, 1024), (..., 4096)):
        [kind] = read(MISTRAL, {"sliding_window": change}).layer_kinds
        assert kind.attention.window_tokens == window
        assert kind.name == "layer"


def test_qwen2_has_biases_without_a_key() -> None:
    attention = read(QWEN2, {}).layer_kinds[0].attention
    assert attention.qkv_bias
    assert not attention.output_bias
    assert attention.window_tokens is None


def test_qwen_layers_from_max_window_layers_on_slide() -> None:
    spec = read(
        QWEN2,
        {"use_sliding_window": True, "max_window_layers": 20, "sliding_window": 512},
    )
    assert spec.layers == ("global",) * 20 + ("local",) * 8
    local = next(k for k in spec.layer_kinds if k.name == "local")
    assert local.attention.window_tokens == 512


def test_qwen3_norms_of_queries_and_keys() -> None:
    attention = read(QWEN3, {}).layer_kinds[0].attention
    assert attention.qk_norm_width == 2 * 128
    assert not attention.qkv_bias
    assert model("Qwen/Qwen3-0.6B").tied_embeddings


def test_explicit_layer_types_override_the_rule() -> None:
    types = ["sliding_attention"] * 2 + ["full_attention"] * 60
    spec = read(GEMMA, {"text_config.layer_types": types})
    assert spec.layers == ("local",) * 2 + ("global",) * 60


def test_gemma3() -> None:
    spec = model("google/gemma-3-27b-it")
    assert spec.tied_embeddings
    assert [i for i, k in enumerate(spec.layers) if k == "global"] == list(
        range(5, 62, 6)
    )
    kinds = {kind.name: kind for kind in spec.layer_kinds}
    assert kinds["local"].attention.window_tokens == 1024
    assert kinds["global"].attention.window_tokens is None
    assert kinds["local"].norm_width == 4 * 5376
    assert kinds["local"].attention.qk_norm_width == 2 * 128
    assert spec.max_position_tokens == 131_072


def test_gemma3_text_only_file_is_the_same_model() -> None:
    raw = raw_config(GEMMA)["text_config"] | {"architectures": ["Gemma3ForCausalLM"]}
    alone = read_config(raw, "google/gemma-3-27b-it", "config.json")
    nested = model("google/gemma-3-27b-it")
    assert alone.model_copy(update={"source": nested.source}) == nested


def test_gemma3_embeddings_can_be_untied_outside_or_inside() -> None:
    assert not read(GEMMA, {"tie_word_embeddings": False}).tied_embeddings
    assert not read(GEMMA, {"text_config.tie_word_embeddings": False}).tied_embeddings


def test_nemotron_layers_without_attention() -> None:
    spec = model("nvidia/Llama-3_3-Nemotron-Super-49B-v1")
    kinds = {kind.name: kind for kind in spec.layer_kinds}
    assert sum(kinds[k].attention is None for k in spec.layers) == 31
    assert kinds["8kv-ffn28672"].attention.kv_heads == 8
    assert kinds["8kv-ffn28672"].norm_width == 2 * 8192
    assert kinds["no-attention-ffn2816"].norm_width == 8192
    assert spec.layers[6] == "no-attention-ffn14336"


def test_nemotron_window_and_missing_ffn() -> None:
    spec = read(
        DECI,
        {
            f"{BLOCK}.attention.window_length": 512,
            f"{BLOCK}.ffn.no_op": True,
            f"{BLOCK}.ffn.ffn_mult": None,
        },
    )
    assert spec.layers[3] == "8kv-no-ffn-window512"
    kind = next(k for k in spec.layer_kinds if k.name == spec.layers[3])
    assert kind.ffn is None
    assert kind.attention.window_tokens == 512
    assert kind.norm_width == 8192


@pytest.mark.parametrize(
    ("mult", "width"), [(5.25, 28672), (0.5, 2816), (1.0, 5632), (3.28125, 17920)]
)
def test_nemotron_width_is_rounded_up_to_256(mult: float, width: int) -> None:
    assert ffn_width(mult, 8192) == width


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        (None, 131072),
        ({"rope_type": "llama3", "factor": 8.0}, 131072),
        ({"type": "linear", "factor": 2}, 262144),
        ({"rope_type": "dynamic", "factor": 1.5}, 196608),
        (
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32768,
            },
            131072,
        ),
        ({"type": "longrope", "long_factor": [1.0]}, 131072),
    ],
)
def test_context_with_rope_scaling(scaling: Any, context: int) -> None:
    assert read(LLAMA, {"rope_scaling": scaling}).max_position_tokens == context


REFUSED = [
    # features of other architectures are named by the field that announces them
    (LLAMA, {"num_local_experts": 8}, "num_local_experts", "8"),
    (LLAMA, {"n_routed_experts": 256}, "n_routed_experts", "256"),
    (LLAMA, {"num_experts": 128}, "num_experts", "128"),
    (LLAMA, {"kv_lora_rank": 512}, "kv_lora_rank", "512"),
    (LLAMA, {"ssm_state_size": 128}, "ssm_state_size", "128"),
    (LLAMA, {"num_nextn_predict_layers": 1}, "num_nextn_predict_layers", "1"),
    (LLAMA, {"hc_mult": 4}, "hc_mult", "4"),
    (LLAMA, {"sparse_attention_config": {"a": 1}}, "sparse_attention_config", "a"),
    (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config.quant_method",
     "nothing"),
    (GEMMA, {"text_config.num_experts": 8}, "text_config.num_experts", "8"),
    # architectures
    (LLAMA, {"architectures": ...}, "architectures", "nothing"),
    (LLAMA, {"architectures": ["LLamaForCausalLM"]}, "architectures.0", "LLama"),
    (LLAMA, {"architectures": ["MambaForCausalLM"]}, "architectures.0", "Mamba"),
    (LLAMA, {"architectures": [3]}, "architectures.0", "3"),
    (LLAMA, {"architectures": []}, "architectures", "a list of 0"),
    (LLAMA, {"model_type": "mistral"}, "model_type", "mistral"),
    (GEMMA, {"text_config.model_type": "gemma2"}, "text_config.model_type", "gemma2"),
    # unknown fields, with their path
    (LLAMA, {"attention_sinks": 4}, "attention_sinks", "4"),
    (LLAMA, {"hidden_sizes": 4096}, "hidden_sizes", "4096"),
    (GEMMA, {"text_config.logit_scale": 2}, "text_config.logit_scale", "2"),
    (GEMMA, {"audio_config": {}}, "audio_config", "a mapping"),
    (DECI, {f"{BLOCK}.moe": {}}, f"{BLOCK}.moe", "a mapping"),
    (DECI, {f"{BLOCK}.ffn.gate": 1}, f"{BLOCK}.ffn.gate", "1"),
    # sizes
    (LLAMA, {"hidden_size": ...}, "hidden_size", "nothing"),
    (LLAMA, {"hidden_size": "4096"}, "hidden_size", '"4096"'),
    (LLAMA, {"hidden_size": 4096.0}, "hidden_size", "4096.0"),
    (LLAMA, {"hidden_size": True}, "hidden_size", "true"),
    (LLAMA, {"hidden_size": 0}, "hidden_size", "0"),
    (LLAMA, {"hidden_size": 4097}, "head_dim", "nothing"),
    (LLAMA, {"num_hidden_layers": 10**9}, "num_hidden_layers", "1000000000"),
    (LLAMA, {"num_key_value_heads": 5}, "num_key_value_heads", "5"),
    (LLAMA, {"vocab_size": -1}, "vocab_size", "-1"),
    (LLAMA, {"max_position_embeddings": 10**12}, "max_position_embeddings", "10000000"),
    (LLAMA, {"attention_bias": "no"}, "attention_bias", '"no"'),
    (LLAMA, {"tie_word_embeddings": 0}, "tie_word_embeddings", "0"),
    (QWEN3, {"num_key_value_heads": ...}, "num_key_value_heads", "nothing"),
    # rope
    (LLAMA, {"rope_scaling": {"type": "ntk"}}, "rope_scaling.type", '"ntk"'),
    (LLAMA, {"rope_scaling": {"type": "linear"}}, "rope_scaling.factor", "null"),
    (LLAMA, {"rope_scaling": 8}, "rope_scaling", "8"),
    # features of an architecture that its fields switch on
    (QWEN2, {"attention_bias": False}, "attention_bias", "false"),
    (QWEN2, {"max_window_layers": "all"}, "max_window_layers", '"all"'),
    (QWEN2, {"layer_types": ["full_attention"]}, "layer_types", "a list of 1"),
    (PHI, {"attention_bias": True}, "attention_bias", "true"),
    (GEMMA, {"text_config.use_bidirectional_attention": True},
     "text_config.use_bidirectional_attention", "true"),
    (GEMMA, {"text_config.sliding_window": None}, "text_config.sliding_window", "null"),
    (GEMMA, {"text_config.layer_types": ["linear_attention"]},
     "text_config.layer_types.0", "linear_attention"),
    (GEMMA, {"tie_word_embeddings": False, "text_config.tie_word_embeddings": True},
     "tie_word_embeddings", "false"),
    (GEMMA, {"text_config": 3}, "text_config", "3"),
    (DECI, {"block_configs": ...}, "block_configs", "nothing"),
    (DECI, {"num_hidden_layers": 79}, "block_configs", "a list of 80"),
    (DECI, {"intermediate_size": 4096}, "intermediate_size", "4096"),
    (DECI, {f"{BLOCK}.attention.replace_with_linear": True},
     f"{BLOCK}.attention.replace_with_linear", "true"),
    (DECI, {f"{BLOCK}.attention.num_sink_tokens": 4},
     f"{BLOCK}.attention.num_sink_tokens", "4"),
    (DECI, {f"{BLOCK}.attention.n_heads_in_group": 7},
     f"{BLOCK}.attention.n_heads_in_group", "7"),
    (DECI, {f"{BLOCK}.ffn.ffn_mult": "big"}, f"{BLOCK}.ffn.ffn_mult", '"big"'),
    (DECI, {f"{BLOCK}.ffn": None}, f"{BLOCK}.ffn", "null"),
    (DECI, {BLOCK: 3}, BLOCK, "3"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "path", "found"), REFUSED)
def test_refused_by_the_name_of_the_field(name, changes, path, found) -> None:
    with pytest.raises(InvalidInstance) as caught:
        read(name, changes)
    [error] = caught.value.errors
    assert error.path == path
    assert found in error.found
    assert error.allowed


def test_a_misspelt_field_is_told_its_neighbour() -> None:
    with pytest.raises(InvalidInstance, match="did you mean head_dim"):
        read(LLAMA, {"head_dims": 128})


def test_every_kind_of_unreadable_value_is_refused_not_raised() -> None:
    for value in (None, True, -1, 0, 1.5, 10**30, "x", [], {}, [1], {"a": 1}):
        for name in (LLAMA, QWEN2, QWEN3, GEMMA, MISTRAL, PHI, DECI):
            for field in raw_config(name):
                try:
                    read(name, {field: value})
                except InvalidInstance as refused:
                    assert refused.errors
