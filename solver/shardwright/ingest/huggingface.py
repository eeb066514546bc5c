"""A raw Hugging Face config.json into a ModelSpec, or an error that names the field.

The raw JSON is read, never a transformers object: its attribute maps rename and
overwrite fields of some architectures. Every field is understood, or on the list
of harmless ones, or refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

from pydantic import ValidationError

from shardwright.ingest.architectures import (
    HARMLESS,
    Stack,
    gemma3,
    llama,
    mistral,
    phi3,
    qwen2,
    qwen3,
)
from shardwright.ingest.decilm import decilm
from shardwright.ingest.deepseek import deepseek_v2, deepseek_v3, glm_moe_dsa, kimi_k25
from shardwright.ingest.experts import (
    glm4_moe,
    gpt_oss,
    minimax_m2,
    mixtral,
    phimoe,
    qwen3_moe,
)
from shardwright.ingest.fields import Fields
from shardwright.ingest.interleaved import gemma4, llama4, mimo_v2_flash
from shardwright.ingest.quantization import quantization
from shardwright.ingest.refuse import nearest, one_of, refuse, shown
from shardwright.ingest.validate import validate
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.model import LayerKind, ModelSpec, Quantization

Reader = Callable[[Fields], Stack]

READERS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "DeciLMForCausalLM": (("nemotron-nas",), decilm),
    "DeepseekV2ForCausalLM": (("deepseek_v2",), deepseek_v2),
    "DeepseekV32ForCausalLM": (("deepseek_v32",), deepseek_v3),
    "DeepseekV3ForCausalLM": (("deepseek_v3", "kimi_k2"), deepseek_v3),
    "Gemma3ForCausalLM": (("gemma3_text",), gemma3),
    "Gemma3ForConditionalGeneration": (("gemma3",), gemma3),
    "Gemma4ForCausalLM": (("gemma4_text",), gemma4),
    "Gemma4ForConditionalGeneration": (("gemma4",), gemma4),
    "Glm4MoeForCausalLM": (("glm4_moe",), glm4_moe),
    "GlmMoeDsaForCausalLM": (("glm_moe_dsa",), glm_moe_dsa),
    "GptOssForCausalLM": (("gpt_oss",), gpt_oss),
    "KimiK25ForConditionalGeneration": (("kimi_k25",), kimi_k25),
    "Llama4ForCausalLM": (("llama4_text",), llama4),
    "Llama4ForConditionalGeneration": (("llama4",), llama4),
    "LlamaForCausalLM": (("llama",), llama),
    "MiMoV2FlashForCausalLM": (("mimo_v2_flash",), mimo_v2_flash),
    "MiniMaxM2ForCausalLM": (("minimax_m2",), minimax_m2),
    "MistralForCausalLM": (("mistral",), mistral),
    "MixtralForCausalLM": (("mixtral",), mixtral),
    "Phi3ForCausalLM": (("phi3",), phi3),
    "PhiMoEForCausalLM": (("phimoe",), phimoe),
    "Qwen2ForCausalLM": (("qwen2",), qwen2),
    "Qwen3ForCausalLM": (("qwen3",), qwen3),
    "Qwen3MoeForCausalLM": (("qwen3_moe",), qwen3_moe),
}
"""Architecture name: its model_types and its reader."""

TEXT_PARTS = {
    "Gemma3ForConditionalGeneration": (
        "text_config",
        "gemma3_text",
        frozenset(
            {"boi_token_index", "eoi_token_index", "image_token_index",
             "mm_tokens_per_image", "vision_config"}
        ),
    ),
    "Gemma4ForConditionalGeneration": (
        "text_config",
        "gemma4_text",
        frozenset(
            {"audio_config", "audio_token_id", "boa_token_id", "boi_token_id",
             "eoa_token_id", "eoa_token_index", "eoi_token_id", "image_token_id",
             "video_token_id", "vision_config", "vision_soft_tokens_per_image"}
        ),
    ),
    "KimiK25ForConditionalGeneration": (
        "text_config",
        "kimi_k2",
        frozenset(
            {"ignore_index", "media_placeholder_token_id", "use_unified_vision_chunk",
             "video_placeholder", "vision_config"}
        ),
    ),
    "Llama4ForConditionalGeneration": (
        "text_config",
        "llama4_text",
        frozenset(
            {"boi_token_index", "eoi_token_index", "image_token_index",
             "vision_config"}
        ),
    ),
}  # fmt: skip
"""Architectures whose language model is nested: where, its model_type, and the
fields around it that belong to the other modalities. The vision tower is not
counted: it does not run on the stages that are placed here."""

NOT_YET = {
    "compress_ratios": "compressed sparse attention",
    "compression_config": "quantised checkpoints (state precision.weights instead)",
    "hc_mult": "hyper-connections",
    "hybrid_override_pattern": "state-space layers",
    "linear_num_value_heads": "linear-attention layers",
    "mamba_num_heads": "state-space layers",
    "num_hash_layers": "hash-routed layers",
    "o_lora_rank": "grouped low-rank output projections",
    "sparse_attention_config": "block-sparse attention",
    "ssm_state_size": "state-space layers",
}
"""Fields of features that are known and not read yet, with the feature in words."""

INCOMPLETE = {
    "MiniMaxM1ForCausalLM": (
        "attn_type_list",
        "lightning (linear) attention layers are not read yet",
    ),
    "Step3p7FlashForCausalLM": (
        "attention_other_setting",
        "a published file gives its sliding layers heads of their own here; without "
        "it their sizes are unknown, and with it they are not read yet",
    ),
}
"""Architectures that are known and not read yet: the field that says why."""


def read_config(raw: dict[str, Any], name: str, source: str) -> ModelSpec:
    """The model of a raw config.json.

    ``name`` becomes the model's name, ``source`` says in errors and in the model
    where the file came from. Raises InvalidInstance naming every field that is
    missing, wrong or not understood.
    """
    outer = Fields(raw, source)
    _refuse_not_yet(outer)
    architecture = _architecture(outer)
    model_types, reader = READERS[architecture]
    outer.exactly("model_type", *model_types)
    fields = _text_part(outer, architecture)
    try:
        stack = reader(fields)
        published = _published(outer, fields)
        fields.done()
        spec = _spec(stack, published, name, source)
        # readers change copies of parts, which no rule has seen
        return validate(ModelSpec, json.loads(spec.model_dump_json()), source)
    except ValidationError as error:
        _refuse_derived(error, source)


def _refuse_derived(error: ValidationError, source: str) -> NoReturn:
    """Sizes that follow from several fields can be impossible where each is not."""
    first = error.errors(include_url=False)[0]
    path = ".".join(["(model)", *map(str, first["loc"])])
    refuse(source, path, shown(first["input"]), f"{first['msg']}, as the file implies")


def _refuse_not_yet(fields: Fields) -> None:
    """Known features that are not read yet, wherever the text model keeps them."""
    places = [("", fields.raw)]
    for part in ("text_config", "llm_config", "language_config"):
        if isinstance(fields.raw.get(part), dict):
            places.append((f"{part}.", fields.raw[part]))
    errors = [
        FieldError(f"{prefix}{name}", shown(raw[name]), f"{words} are not read yet")
        for prefix, raw in places
        for name, words in NOT_YET.items()
        if raw.get(name) is not None
    ]
    if errors:
        raise InvalidInstance(fields.source, errors)


def _architecture(fields: Fields) -> str:
    listed = fields.get("architectures")
    if not isinstance(listed, list) or len(listed) != 1:
        fields.refuse("architectures", f"a list of one name, {one_of(READERS)}")
    name = listed[0]
    if isinstance(name, str) and name in INCOMPLETE:
        fields.refuse(*INCOMPLETE[name])
    if not isinstance(name, str) or name not in READERS:
        hint = nearest(name, READERS) if isinstance(name, str) else ""
        refuse(fields.source, "architectures.0", shown(name), hint + one_of(READERS))
    return str(name)


def _text_part(outer: Fields, architecture: str) -> Fields:
    if architecture not in TEXT_PARTS:
        return outer
    part, model_type, around = TEXT_PARTS[architecture]
    inner = outer.inner(part)
    inner.exactly("model_type", model_type)
    outer.harmless(HARMLESS | around)
    # the outer switch governs the whole model; the inner one is the same or absent
    tied = outer.get("tie_word_embeddings")
    if tied is not None and inner.raw.get("tie_word_embeddings", tied) != tied:
        outer.refuse("tie_word_embeddings", f"the same as in {part}")
    if tied is not None:
        inner.raw = {**inner.raw, "tie_word_embeddings": tied}
    outer.harmless({"quantization_config"})
    outer.done()
    return inner


def _published(outer: Fields, fields: Fields) -> Quantization | None:
    """Files keep ``quantization_config`` at the top or with the text model."""
    if fields is outer or not outer.has("quantization_config"):
        return quantization(fields)
    if fields.has("quantization_config"):
        outer.refuse("quantization_config", f"only one, and {fields.path} has another")
    return quantization(outer)


def _spec(
    stack: Stack, published: Quantization | None, name: str, source: str
) -> ModelSpec:
    kinds: dict[str, LayerKind] = {}
    for layer in stack.layers:
        kinds.setdefault(layer.name, layer)
    if len(kinds) > 64:
        refuse(source, "block_configs", f"{len(kinds)} kinds of layers", "at most 64")
    return ModelSpec(
        name=name,
        hidden=stack.hidden,
        vocabulary=stack.vocabulary,
        tied_embeddings=stack.tied_embeddings,
        max_position_tokens=stack.max_position_tokens,
        final_norm_width=stack.final_norm_width or stack.hidden,
        lm_head_bias=stack.lm_head_bias,
        layer_kinds=tuple(kinds.values()),
        layers=tuple(layer.name for layer in stack.layers),
        mtp_layers=stack.mtp_layers,
        mtp_kind=stack.mtp_kind,
        quantization=published,
        source=source,
    )
