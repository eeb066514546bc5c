"""Expert models whose layers alternate in attention, FFN or both."""

from __future__ import annotations

from typing import Any

from shardwright.ingest.architectures import Frame, Stack
from shardwright.ingest.experts import corrected
from shardwright.ingest.fields import MAX_TOKENS, Fields
from shardwright.ingest.patterns import FULL, windows_of
from shardwright.ingest.refuse import refuse, shown
from shardwright.ingest.routing import choose, layered, routed, switched
from shardwright.schema.model import AnyFfn, Attention, DenseFfn, MoeFfn

CHUNKED = "chunked_attention"
ROPE_FREE_EVERY = 4


def llama4(fields: Fields) -> Stack:
    """Llama4ForCausalLM: experts in every n-th layer beside one shared expert, a
    wider dense FFN elsewhere; layers with rotary embedding see their chunk only.

    Its query/key norms have no weights.
    """
    frame = Frame.of(fields)
    fields.harmless({"attn_scale", "attn_temperature_tuning", "cache_implementation",
                     "floor_scale", "for_llm_compressor", "use_qk_norm"})  # fmt: skip
    bias = fields.flag("attention_bias", False)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=frame.head_dim(fields),
        qkv_bias=bias,
        output_bias=bias,
    )
    names = ("num_local_experts", "num_experts_per_tok", "intermediate_size")
    moe = routed(fields, *names)
    update = {"shared_experts": 1, "shared_intermediate": moe.intermediate}
    moe = moe.model_copy(update=update)
    dense = DenseFfn(intermediate=fields.whole("intermediate_size_mlp"))
    step = fields.whole("interleave_moe_layer_step")
    fields.exactly("moe_layers", [*range(step - 1, frame.layers, step)])
    ffns = choose(((i + 1) % step == 0 for i in range(frame.layers)), moe, dense)
    windows = _chunks(fields, frame.layers)
    return _zipped(fields, frame, attention, windows, ffns)


def _chunks(fields: Fields, layers: int) -> list[int | None]:
    """The chunk of every layer with rotary embedding; every fourth has none."""
    chunk = fields.optional("attention_chunk_size")
    rotary = [(i + 1) % ROPE_FREE_EVERY != 0 for i in range(layers)]
    fields.exactly("no_rope_layer_interval", ROPE_FREE_EVERY)
    if fields.raw.get("no_rope_layers"):
        # despite its name, 1 stands for a layer with rotary embedding
        rotary = switched(fields, "no_rope_layers", layers)
    else:
        fields.exactly("no_rope_layers", [])
    local = [entry and chunk is not None for entry in rotary]
    fields.exactly("layer_types", [CHUNKED if entry else FULL for entry in local])
    return [chunk if entry else None for entry in local]


def _zipped(
    fields: Fields,
    frame: Frame,
    attention: Attention,
    windows: list[int | None],
    ffns: list[AnyFfn],
) -> Stack:
    return layered(fields, frame, [
        (attention.model_copy(update={"window_tokens": window}), ffn)
        for window, ffn in zip(windows, ffns, strict=True)
    ])  # fmt: skip


def mimo_v2_flash(fields: Fields) -> Stack:
    """MiMoV2FlashForCausalLM: local layers have key/value heads and sinks of their
    own; value heads are narrower than key heads. 1 in the pattern is local."""
    frame = Frame.of(fields)
    fields.harmless({"attention_value_scale", "layernorm_epsilon",
                     "partial_rotary_factor", "swa_rope_theta"})  # fmt: skip
    fields.exactly("attention_bias", False)
    window = fields.whole("sliding_window", most=MAX_TOKENS)
    fields.exactly("sliding_window_size", window)
    fields.exactly("attention_chunk_size", window)
    far = _mimo_attention(fields, "", "full", None)
    near = _mimo_attention(fields, "swa_", "swa", window)
    fields.exactly("topk_method", "noaux_tc")
    fields.exactly("n_shared_experts")
    moe = corrected(fields)
    dense = DenseFfn(intermediate=fields.whole("intermediate_size"))
    ffns = choose(switched(fields, "moe_layer_freq", frame.layers), moe, dense)
    local = switched(fields, "hybrid_layer_pattern", frame.layers)
    attentions = [near if entry else far for entry in local]
    return layered(fields, frame, [*zip(attentions, ffns, strict=True)])


def _mimo_attention(
    fields: Fields, prefix: str, layers: str, window: int | None
) -> Attention:
    heads = fields.whole(f"{prefix}num_attention_heads")
    kv_heads = fields.whole(f"{prefix}num_key_value_heads")
    if heads % kv_heads:
        fields.refuse(f"{prefix}num_key_value_heads", f"a divisor of {heads} heads")
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=fields.whole(f"{prefix}head_dim"),
        v_head_dim=fields.whole(f"{prefix}v_head_dim"),
        window_tokens=window,
        sinks=fields.flag(f"add_{layers}_attention_sink_bias", False),
    )


def gemma4(fields: Fields) -> Stack:
    """Gemma4ForCausalLM and the text part of Gemma4ForConditionalGeneration.

    A dense FFN runs beside the experts, with three norms more; global layers have
    heads of their own and, with ``attention_k_eq_v``, no value matrix. The value
    norm has no weights. Embeddings are tied though the key may be absent.
    """
    frame = Frame.of(fields)
    fields.harmless({"final_logit_softcapping", "rope_parameters",
                     "vocab_size_per_layer_input"})  # fmt: skip
    fields.exactly("attention_bias", False)
    fields.exactly("num_kv_shared_layers", 0)
    fields.exactly("use_double_wide_mlp", False)
    # images are seen both ways; text is causal
    fields.exactly("use_bidirectional_attention", "vision")
    if fields.exactly("hidden_size_per_layer_input", 0) is None:
        fields.refuse("hidden_size_per_layer_input", "0 is needed: the class's "
                      "default of 256 is not understood here")  # fmt: skip
    ffn = _gemma_ffn(fields)
    pattern = [(i + 1) % 6 != 0 for i in range(frame.layers - 1)] + [False]
    window = fields.optional("sliding_window")
    windows = windows_of(fields, frame.layers, window, pattern)
    if windows[-1] is not None:
        refuse(fields.source, fields.at(f"layer_types.{frame.layers - 1}"),
               shown("sliding_attention"), f"{FULL}: the last layer is")  # fmt: skip
    near, far = _gemma_attention(fields, frame, window)
    context = fields.whole("max_position_embeddings", 131_072, MAX_TOKENS)
    norms = 7 if isinstance(ffn, MoeFfn) else 4
    blocks = [(far if window is None else near, ffn) for window in windows]
    return layered(fields, frame, [*blocks], norms * frame.hidden, True, context)


def _gemma_ffn(fields: Fields) -> AnyFfn:
    width = fields.whole("intermediate_size")
    if not fields.flag("enable_moe_block", False):
        for name in ("num_experts", "top_k_experts", "moe_intermediate_size"):
            fields.exactly(name)
        return DenseFfn(intermediate=width)
    moe = routed(fields, "num_experts", "top_k_experts", "moe_intermediate_size")
    # the router scales its input by feature and its output by expert
    scales = fields.whole("hidden_size") + moe.experts
    update = {"dense_intermediate": width, "router_scale_width": scales}
    return moe.model_copy(update=update)


def _gemma_attention(
    fields: Fields, frame: Frame, window: int | None
) -> tuple[Attention, Attention]:
    """Attention of local and of global layers."""
    head_dim = frame.head_dim(fields, default=256)
    near = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=head_dim,
        window_tokens=window,
        qk_norm_width=2 * head_dim,
    )
    tied = fields.flag("attention_k_eq_v", False)
    own: Any = fields.optional("num_global_key_value_heads")
    kv_heads = own if tied and own is not None else near.kv_heads
    if frame.heads % kv_heads:
        fields.refuse("num_global_key_value_heads", f"a divisor of {frame.heads} heads")
    wide = fields.whole("global_head_dim", 512)
    far = Attention(
        heads=frame.heads,
        kv_heads=kv_heads,
        head_dim=wide,
        qk_norm_width=2 * wide,
        tied_kv_projection=tied,
    )
    return near, far
