"""DeciLMForCausalLM (Nemotron-NAS): every layer states its own attention and FFN."""

from __future__ import annotations

from shardwright.ingest.architectures import Frame, Stack
from shardwright.ingest.fields import Fields
from shardwright.ingest.patterns import context_of
from shardwright.ingest.refuse import refuse, shown
from shardwright.schema.model import Attention, DenseFfn, LayerKind


def decilm(fields: Fields) -> Stack:
    """The stack of ``block_configs``; the global kv heads and width are null."""
    frame = Frame.of(fields)
    fields.exactly("intermediate_size")
    fields.exactly("num_key_value_heads")
    head_dim = frame.head_dim(fields)
    bias = fields.flag("attention_bias", False)
    mlp_bias = fields.flag("mlp_bias", False)
    blocks = fields.get("block_configs")
    if not isinstance(blocks, list) or len(blocks) != frame.layers:
        fields.refuse("block_configs", f"a list of {frame.layers} blocks is needed")
    layers = [
        _block(
            Fields(block, fields.source, fields.at(f"block_configs.{i}")),
            Attention(heads=frame.heads, kv_heads=1, head_dim=head_dim,
                      qkv_bias=bias, output_bias=bias),
            mlp_bias,
            frame.hidden,
        )
        for i, block in enumerate(blocks)
    ]  # fmt: skip
    return Stack(
        hidden=frame.hidden,
        vocabulary=frame.vocabulary,
        tied_embeddings=fields.flag("tie_word_embeddings", False),
        max_position_tokens=context_of(fields),
        layers=layers,
    )


def _block(block: Fields, full: Attention, mlp_bias: bool, hidden: int) -> LayerKind:
    attention = _attention(block.inner("attention"), full)
    ffn = _ffn(block.inner("ffn"), hidden, mlp_bias)
    block.done()
    # a part that is a no-op has no norm before it
    norms = (attention is not None) + (ffn is not None)
    parts = [
        f"{attention.kv_heads}kv" if attention else "no-attention",
        f"ffn{ffn.intermediate}" if ffn else "no-ffn",
    ]
    if attention and attention.window_tokens:
        parts.append(f"window{attention.window_tokens}")
    return LayerKind(
        name="-".join(parts), attention=attention, ffn=ffn, norm_width=norms * hidden
    )


def _attention(fields: Fields, full: Attention) -> Attention | None:
    fields.exactly("replace_with_linear", False)
    fields.exactly("sparsify")
    fields.exactly("num_sink_tokens")
    fields.exactly("unshifted_sink", False)
    fields.exactly("use_prefill_window_in_sink_attention", False)
    window = fields.optional("window_length")
    if fields.flag("no_op", False):
        fields.exactly("n_heads_in_group")
        fields.done()
        return None
    group = fields.whole("n_heads_in_group")
    if full.heads % group:
        fields.refuse("n_heads_in_group", f"a divisor of {full.heads} heads")
    fields.done()
    update = {"kv_heads": full.heads // group, "window_tokens": window}
    return full.model_copy(update=update)


def _ffn(fields: Fields, hidden: int, bias: bool) -> DenseFfn | None:
    fields.exactly("replace_with_linear", False)
    fields.exactly("sparsify")
    if fields.flag("no_op", False):
        fields.exactly("ffn_mult")
        fields.done()
        return None
    mult = fields.get("ffn_mult")
    if type(mult) not in (int, float) or not 0 < mult <= 100:
        refuse(fields.source, fields.at("ffn_mult"), shown(mult), "a number up to 100")
    fields.done()
    return DenseFfn(intermediate=ffn_width(float(mult), hidden), bias=bias)


def ffn_width(mult: float, hidden: int) -> int:
    """int(2*mult*hidden/3) rounded up to a multiple of 256: the rule of the model's
    published code (``_ffn_mult_to_intermediate_size``)."""
    width = int(2 * mult * hidden / 3)
    return -(-width // 256) * 256
