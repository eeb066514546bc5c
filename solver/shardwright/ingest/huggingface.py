"""A raw Hugging Face config.json into a ModelSpec, or an error that names the field.

The raw JSON is read, never a transformers object: its attribute maps rename and
overwrite fields of some architectures. Every field is understood, or on the list
of harmless ones, or refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from shardwright.ingest.fields import Fields
from shardwright.ingest.refuse import nearest, one_of, refuse, shown
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.model import LayerKind, ModelSpec

Reader = Callable[[Fields], Stack]

READERS: dict[str, tuple[str, Reader]] = {
    "DeciLMForCausalLM": ("nemotron-nas", decilm),
    "Gemma3ForCausalLM": ("gemma3_text", gemma3),
    "Gemma3ForConditionalGeneration": ("gemma3", gemma3),
    "LlamaForCausalLM": ("llama", llama),
    "MistralForCausalLM": ("mistral", mistral),
    "Phi3ForCausalLM": ("phi3", phi3),
    "Qwen2ForCausalLM": ("qwen2", qwen2),
    "Qwen3ForCausalLM": ("qwen3", qwen3),
}
"""Architecture name: its model_type and its reader."""

TEXT_PARTS = {
    "Gemma3ForConditionalGeneration": (
        "text_config",
        "gemma3_text",
        frozenset(
            {"boi_token_index", "eoi_token_index", "image_token_index",
             "mm_tokens_per_image", "vision_config"}
        ),
    ),
}  # fmt: skip
"""Architectures whose language model is nested: where, its model_type, and the
fields around it that belong to the other modalities. The vision tower is not
counted: it does not run on the stages that are placed here."""

NOT_YET = {
    "num_local_experts": "mixture-of-experts layers",
    "n_routed_experts": "mixture-of-experts layers",
    "num_experts": "mixture-of-experts layers",
    "moe_num_experts": "mixture-of-experts layers",
    "kv_lora_rank": "multi-head latent attention",
    "hybrid_override_pattern": "state-space layers",
    "ssm_state_size": "state-space layers",
    "mamba_num_heads": "state-space layers",
    "linear_num_value_heads": "linear-attention layers",
    "attn_type_list": "linear-attention layers",
    "num_nextn_predict_layers": "multi-token prediction heads",
    "mtp_num_hidden_layers": "multi-token prediction heads",
    "quantization_config": "quantised checkpoints (state precision.weights instead)",
    "compression_config": "quantised checkpoints (state precision.weights instead)",
}
"""Fields of features that are known and not read yet, with the feature in words."""


def read_config(raw: dict[str, Any], name: str, source: str) -> ModelSpec:
    """The model of a raw config.json.

    ``name`` becomes the model's name, ``source`` says in errors and in the model
    where the file came from. Raises InvalidInstance naming every field that is
    missing, wrong or not understood.
    """
    outer = Fields(raw, source)
    _refuse_not_yet(outer)
    architecture = _architecture(outer)
    model_type, reader = READERS[architecture]
    outer.exactly("model_type", model_type)
    fields = _text_part(outer, architecture)
    stack = reader(fields)
    fields.done()
    return _spec(stack, name, source)


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
    outer.done()
    return inner


def _spec(stack: Stack, name: str, source: str) -> ModelSpec:
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
        final_norm_width=stack.hidden,
        layer_kinds=tuple(kinds.values()),
        layers=tuple(layer.name for layer in stack.layers),
        source=source,
    )
