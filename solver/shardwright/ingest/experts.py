"""Expert models with grouped-query attention, one kind of FFN after the other."""

from __future__ import annotations

from dataclasses import replace

from shardwright.ingest.architectures import Frame, Stack, qwen_windows
from shardwright.ingest.fields import Fields
from shardwright.ingest.patterns import uniform_window, windows_of
from shardwright.ingest.routing import (
    choose,
    dense_first,
    grouped,
    layered,
    routed,
    sharing,
)
from shardwright.schema.model import Attention, DenseFfn, MoeFfn


def mixtral(fields: Fields) -> Stack:
    """MixtralForCausalLM: experts in every layer, no biases."""
    frame = Frame.of(fields)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=frame.head_dim(fields),
        window_tokens=uniform_window(fields, default=None),
    )
    ffn = _every_layer(fields)
    return layered(fields, frame, [(attention, ffn)] * frame.layers)


def phimoe(fields: Fields) -> Stack:
    """PhiMoEForCausalLM: layer norms with a bias, and a bias in the LM head."""
    frame = Frame.of(fields)
    fields.harmless({"expert_dropout", "hidden_dropout", "input_jitter_noise",
                     "original_max_position_embeddings"})  # fmt: skip
    bias = fields.flag("attention_bias", False)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=frame.head_dim(fields),
        window_tokens=uniform_window(fields, default=None),
        qkv_bias=bias,
        output_bias=bias,
    )
    blocks = [(attention, _every_layer(fields))] * frame.layers
    stack = layered(fields, frame, [*blocks], norm_width=4 * frame.hidden)
    return replace(
        stack,
        final_norm_width=2 * frame.hidden,
        lm_head_bias=fields.flag("lm_head_bias", False),
    )


def _every_layer(fields: Fields) -> MoeFfn:
    """Experts as Mixtral writes them."""
    names = ("num_local_experts", "num_experts_per_tok", "intermediate_size")
    return routed(fields, *names)


def qwen3_moe(fields: Fields) -> Stack:
    """Qwen3MoeForCausalLM: experts but in ``mlp_only_layers`` and off the step."""
    frame = Frame.of(fields)
    fields.exactly("qkv_bias", False)
    fields.exactly("use_qk_norm", True)
    fields.exactly("shared_expert_intermediate_size", 0)
    bias = fields.flag("attention_bias", False)
    head_dim = frame.head_dim(fields)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=head_dim,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm_width=2 * head_dim,
    )
    names = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
    moe = routed(fields, *names)
    dense = DenseFfn(intermediate=fields.whole("intermediate_size"))
    ffns = choose(_qwen_pattern(fields, frame.layers), moe, dense)
    windows = qwen_windows(fields, frame.layers)
    return layered(fields, frame, [
        (attention.model_copy(update={"window_tokens": window}), ffn)
        for window, ffn in zip(windows, ffns, strict=True)
    ])  # fmt: skip


def _qwen_pattern(fields: Fields, layers: int) -> list[bool]:
    step = fields.whole("decoder_sparse_step", 1)
    dense = fields.get("mlp_only_layers")
    dense = [] if dense is None else dense
    if not isinstance(dense, list) or not all(
        type(i) is int and 0 <= i < layers for i in dense
    ):
        fields.refuse("mlp_only_layers", f"a list of layers below {layers}")
    return [i not in dense and (i + 1) % step == 0 for i in range(layers)]


def glm4_moe(fields: Fields) -> Stack:
    """Glm4MoeForCausalLM (GLM-4.5): leading dense layers, shared experts, a
    prediction module; ``attention_bias`` covers q, k and v."""
    frame = Frame.of(fields)
    fields.harmless({"partial_rotary_factor"})
    head_dim = frame.head_dim(fields)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=head_dim,
        qkv_bias=fields.flag("attention_bias", False),
        qk_norm_width=2 * head_dim * fields.flag("use_qk_norm", False),
    )
    moe = corrected(fields)
    dense = DenseFfn(intermediate=fields.whole("intermediate_size"))
    ffns = choose(dense_first(fields, frame.layers), moe, dense)
    stack = layered(fields, frame, [(attention, ffn) for ffn in ffns])
    return predicted(fields, stack)


def corrected(fields: Fields, bias: bool = True) -> MoeFfn:
    """Experts as DeepSeek writes them: groups, shared experts, and (from V3 on) a
    bias that corrects the selection."""
    names = ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size")
    moe = sharing(fields, "n_shared_experts", grouped(fields, routed(fields, *names)))
    return moe.model_copy(update={"correction_bias": bias})


def predicted(fields: Fields, stack: Stack) -> Stack:
    """The stack with ``num_nextn_predict_layers`` modules, each a layer of experts
    like the last one, as DeepSeek-V3 introduced them."""
    modules = fields.count("num_nextn_predict_layers", 0, most=100)
    kind = stack.layers[-1].name if modules else None
    return replace(stack, mtp_layers=modules, mtp_kind=kind)


def minimax_m2(fields: Fields) -> Stack:
    """MiniMaxM2ForCausalLM: queries and keys are normalised over all heads at once.

    Full attention in every layer. The structure of the prediction modules is not in
    the file, and their weights are not published.
    """
    frame = Frame.of(fields)
    fields.harmless({"rotary_dim"})
    _all_softmax(fields, frame.layers)
    fields.exactly("shared_intermediate_size", 0)
    fields.exactly("qk_norm_type", "per_layer")
    head_dim, kv_heads = frame.head_dim(fields), frame.kv_heads(fields)
    norm = (frame.heads + kv_heads) * head_dim
    attention = Attention(
        heads=frame.heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        qk_norm_width=norm * fields.flag("use_qk_norm", False),
    )
    update = {"correction_bias": fields.flag("use_routing_bias", False)}
    moe = _every_layer(fields).model_copy(update=update)
    stack = layered(fields, frame, [(attention, moe)] * frame.layers)
    fields.harmless({"mtp_transformer_layers"})
    modules = fields.count("num_mtp_modules", 0, most=100)
    return replace(stack, mtp_layers=modules * fields.flag("use_mtp", False))


def _all_softmax(fields: Fields, layers: int) -> None:
    kinds = fields.get("attn_type_list")
    if kinds is not None and kinds != [1] * layers:
        fields.refuse("attn_type_list", f"only a list of {layers} ones (full "
                      "attention) is understood here")  # fmt: skip


def gpt_oss(fields: Fields) -> Stack:
    """GptOssForCausalLM: sinks, biases everywhere, every other layer slides."""
    frame = Frame.of(fields)
    fields.harmless({"initial_context_length", "swiglu_limit"})
    bias = fields.flag("attention_bias", True)
    attention = Attention(
        heads=frame.heads,
        kv_heads=frame.kv_heads(fields),
        head_dim=frame.head_dim(fields, default=64),
        qkv_bias=bias,
        output_bias=bias,
        sinks=True,
    )
    moe = _every_layer(fields).model_copy(update={"bias": True, "router_bias": True})
    fields.exactly("experts_per_token", moe.top_k)
    pattern = [i % 2 == 0 for i in range(frame.layers)]
    window = fields.optional("sliding_window")
    windows = windows_of(fields, frame.layers, window, pattern)
    return layered(fields, frame, [
        (attention.model_copy(update={"window_tokens": window}), moe)
        for window in windows
    ])  # fmt: skip
