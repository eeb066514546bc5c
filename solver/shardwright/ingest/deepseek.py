"""Multi-head latent attention: DeepSeek V2 to V3.2, Kimi K2, GLM-5."""

from __future__ import annotations

from shardwright.ingest.architectures import Frame, Stack
from shardwright.ingest.experts import corrected, predicted
from shardwright.ingest.fields import MAX_TOKENS, Fields
from shardwright.ingest.routing import choose, dense_first, layered
from shardwright.schema.model import DenseFfn, MlaAttention, SparseIndexer

GENERIC = frozenset(
    {
        "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward",
        "decoder_start_token_id", "diversity_penalty", "do_sample", "early_stopping",
        "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
        "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label",
        "label2id", "length_penalty", "max_length", "min_length",
        "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
        "output_attentions", "output_hidden_states", "output_scores", "prefix",
        "problem_type", "remove_invalid_values", "repetition_penalty", "return_dict",
        "return_dict_in_generate", "sep_token_id", "suppress_tokens",
        "task_specific_params", "temperature", "tf_legacy_loss", "tokenizer_class",
        "top_k", "top_p", "torchscript", "typical_p", "use_bfloat16",
    }
)  # fmt: skip
"""Fields of every transformers config: generation, labels, return values."""


def deepseek_v2(fields: Fields) -> Stack:
    """DeepseekV2ForCausalLM: softmax scores; groups only limit one of its methods."""
    method = fields.exactly("topk_method", "greedy", "group_limited_greedy")
    if method != "group_limited_greedy":
        fields.exactly("n_group", 1)
        fields.exactly("topk_group", 1)
    return _stack(fields, correction_bias=False)


def deepseek_v3(fields: Fields) -> Stack:
    """DeepseekV3ForCausalLM (V3, R1, Kimi K2) and V3.2 with its sparse indexer."""
    fields.exactly("topk_method", "noaux_tc")
    return _stack(fields, correction_bias=True)


def glm_moe_dsa(fields: Fields) -> Stack:
    """GlmMoeDsaForCausalLM (GLM-5): DeepSeek-V3.2's structure in other sizes."""
    fields.harmless({"indexer_rope_interleave", "rope_interleave"})
    return deepseek_v3(fields)


def kimi_k25(fields: Fields) -> Stack:
    """The text model of KimiK25ForConditionalGeneration: Kimi K2."""
    fields.exactly("architectures", ["DeepseekV3ForCausalLM"])
    fields.harmless(GENERIC)
    for name in ("add_cross_attention", "is_decoder", "is_encoder_decoder",
                 "tie_encoder_decoder"):  # fmt: skip
        fields.exactly(name, False)
    fields.exactly("cross_attention_hidden_size")
    fields.exactly("pruned_heads", {})
    return deepseek_v3(fields)


def _stack(fields: Fields, correction_bias: bool) -> Stack:
    """Leading dense layers, then routed and shared experts, then predictors."""
    frame = Frame.of(fields)
    fields.exactly("moe_layer_freq", 1)
    attention = latent_attention(fields, frame)
    moe = corrected(fields, correction_bias)
    dense = DenseFfn(intermediate=fields.whole("intermediate_size"))
    ffns = choose(dense_first(fields, frame.layers), moe, dense)
    stack = layered(fields, frame, [(attention, ffn) for ffn in ffns])
    return predicted(fields, stack)


def latent_attention(fields: Fields, frame: Frame) -> MlaAttention:
    """Sizes of the latents; the head counts and widths that follow must agree."""
    fields.exactly("attention_bias", False)
    fields.exactly("num_key_value_heads", frame.heads)
    nope, rope = fields.whole("qk_nope_head_dim"), fields.whole("qk_rope_head_dim")
    fields.exactly("qk_head_dim", nope + rope)
    # some files repeat the rotary part under the name of the whole
    fields.exactly("head_dim", rope, nope + rope)
    rank = fields.optional("q_lora_rank")
    return MlaAttention(
        heads=frame.heads,
        q_lora_rank=rank,
        kv_lora_rank=fields.whole("kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rope,
        v_head_dim=fields.whole("v_head_dim"),
        indexer=_indexer(fields, rank),
    )


def _indexer(fields: Fields, rank: int | None) -> SparseIndexer | None:
    """All three sizes of the indexer, or none of them."""
    if not any(map(fields.has, ("index_n_heads", "index_head_dim", "index_topk"))):
        fields.harmless({"index_n_heads", "index_head_dim", "index_topk"})
        return None
    if rank is None:
        fields.refuse("q_lora_rank", "needed: the indexer reads the queries' latent")
    return SparseIndexer(
        heads=fields.whole("index_n_heads"),
        head_dim=fields.whole("index_head_dim"),
        top_k=fields.whole("index_topk", most=MAX_TOKENS),
    )
