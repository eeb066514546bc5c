"""Attention of one layer on one rank (docs/cost-model.md, sections 3, 4 and 8)."""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.check.stage import shard
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.model import Attention, LayerKind, MlaAttention


@dataclass(frozen=True)
class AttentionShard:
    """What one rank holds and does, the same for grouped and latent attention.

    ``weights`` and ``small`` are the parts of P and Q, ``cached`` the values in the
    cache per token, ``width`` the working width; ``output`` is O, the values of a
    partial result of each of the ``heads`` (section 14). FLOPs are per token and
    position: ``prefill_flops`` of a prompt token, ``latent_flops`` of a decoding one
    where it attends in the latent space (0: reading the cache is all that counts).
    """

    weights: int
    small: int
    cached: int
    width: int
    prefill_flops: int
    latent_flops: int
    window: int | None
    heads: int
    output: int


def attention_shard(kind: LayerKind, hidden: int, tp: int) -> AttentionShard | None:
    """The rank's attention in a layer of the kind; None without attention."""
    if kind.attention is None:
        return None
    if isinstance(kind.attention, Attention):
        return _grouped(kind.attention, hidden, tp)
    if kind.attention.indexer is not None:
        error = FieldError("attention.indexer", "an indexer", "it has no price")
        raise InvalidInstance(f"layer kind {kind.name!r}", [error])
    return _latent(kind.attention, hidden, tp)


def _grouped(attention: Attention, hidden: int, tp: int) -> AttentionShard:
    heads, kv_heads = shard(attention.heads, tp), shard(attention.kv_heads, tp)
    both = attention.head_dim + attention.value_dim
    weights = hidden * (heads + kv_heads) * both
    if attention.tied_kv_projection:
        weights -= kv_heads * attention.value_dim * hidden
    return AttentionShard(
        weights=weights,
        small=_grouped_small(attention, hidden, heads, kv_heads),
        cached=kv_heads * both,
        width=(heads + kv_heads) * both,
        prefill_flops=2 * heads * both,
        latent_flops=0,
        window=attention.window_tokens,
        heads=heads,
        output=attention.value_dim,
    )


def _grouped_small(attention: Attention, hidden: int, heads: int, kv_heads: int) -> int:
    """Biases of the projections, norms of queries and keys, sinks."""
    total = attention.qk_norm_width
    if attention.qkv_bias:
        total += heads * attention.head_dim
        total += kv_heads * (attention.head_dim + attention.value_dim)
    if attention.output_bias:
        total += hidden
    return total + (heads if attention.sinks else 0)


def _latent(attention: MlaAttention, hidden: int, tp: int) -> AttentionShard:
    """Latents are held by every rank; only heads are divided by t."""
    heads = shard(attention.heads, tp)
    query = attention.qk_nope_head_dim + attention.qk_rope_head_dim
    value = attention.v_head_dim
    latent, rope = attention.kv_lora_rank, attention.qk_rope_head_dim
    return AttentionShard(
        weights=_latent_weights(attention, hidden, heads),
        small=(attention.q_lora_rank or 0) + latent,
        cached=latent + rope,
        width=2 * heads * (query + value),
        prefill_flops=2 * heads * (query + value),
        latent_flops=2 * heads * (2 * latent + rope),
        window=None,
        heads=heads,
        output=latent,
    )


def _latent_weights(attention: MlaAttention, hidden: int, heads: int) -> int:
    nope, rope = attention.qk_nope_head_dim, attention.qk_rope_head_dim
    value, latent, rank = (
        attention.v_head_dim,
        attention.kv_lora_rank,
        attention.q_lora_rank,
    )
    queries = heads * (nope + rope)
    query = hidden * queries if rank is None else (hidden + queries) * rank
    down, up = hidden * (latent + rope), latent * heads * (nope + value)
    return query + down + up + heads * value * hidden
