"""Exact parameter counts of a model: all of it, and what one token uses.

Convention (docs/models.md): *total* is every weight of the main stack with embedding
and LM head, a tied matrix once. *Active* is the total without the experts that a
token does not visit and without the input embedding, of which it reads one row; a
tied matrix stays, as LM head. Prediction modules (MTP) are in neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.schema.model import (
    AnyAttention,
    AnyFfn,
    Attention,
    DenseFfn,
    LayerKind,
    MlaAttention,
    ModelSpec,
    MoeFfn,
    SparseIndexer,
)


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model. ``mtp`` is None where the modules are not described.

    ``embedding`` is the input matrix where it is one of its own, ``indexers`` the
    part of the total that selects tokens for sparse attention.
    """

    total: int
    active: int
    embedding: int
    lm_head: int
    indexers: int
    mtp: int | None
    mtp_active: int | None


def gqa_parameters(attention: Attention, hidden: int) -> int:
    """Weights of q, k, v, o, their biases, the q/k norms and the sinks."""
    query = attention.heads * attention.head_dim
    output = attention.heads * attention.value_dim
    key = attention.kv_heads * attention.head_dim
    tied = attention.tied_kv_projection
    value = 0 if tied else attention.kv_heads * attention.value_dim
    projected = query + key + value
    biases = attention.qkv_bias * projected + attention.output_bias * hidden
    extra = attention.qk_norm_width + attention.sinks * attention.heads
    return (projected + output) * hidden + biases + extra


def mla_parameters(attention: MlaAttention, hidden: int) -> int:
    """Weights of the latents, their norms, their expansions, o, and the indexer."""
    query = attention.heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
    expanded = attention.qk_nope_head_dim + attention.v_head_dim
    rank = attention.q_lora_rank
    queries = hidden * query if rank is None else rank * (hidden + 1 + query)
    latents = hidden * attention.latent_width + attention.kv_lora_rank
    values = attention.kv_lora_rank * attention.heads * expanded
    output = attention.heads * attention.v_head_dim * hidden
    return queries + latents + values + output + indexer_parameters(attention, hidden)


def indexer_parameters(attention: AnyAttention | None, hidden: int) -> int:
    """Weights of the indexer: queries, one key with its norm's scale and bias, and
    the weight of every head."""
    if not isinstance(attention, MlaAttention) or attention.indexer is None:
        return 0
    indexer: SparseIndexer = attention.indexer
    queries = (attention.q_lora_rank or 0) * indexer.heads * indexer.head_dim
    return queries + (hidden + 2) * indexer.head_dim + hidden * indexer.heads


def block_parameters(width: int, matrices: int, bias: bool, hidden: int) -> int:
    """Weights of the up (and gate) and down matrices and their biases."""
    return matrices * hidden * width + bias * ((matrices - 1) * width + hidden)


def moe_parameters(ffn: MoeFfn, hidden: int, experts: int) -> int:
    """Weights of ``experts`` of the experts and of all that every token passes."""
    one = block_parameters(ffn.intermediate, ffn.matrices, ffn.bias, hidden)
    beside = ffn.shared_intermediate + ffn.dense_intermediate
    always = block_parameters(beside, ffn.matrices, False, hidden)
    biases = ffn.router_bias + ffn.correction_bias
    router = ffn.experts * (hidden + biases) + ffn.router_scale_width
    return experts * one + always + router


def attention_parameters(attention: AnyAttention | None, hidden: int) -> int:
    """Weights of one layer's attention; 0 without it."""
    if attention is None:
        return 0
    if isinstance(attention, MlaAttention):
        return mla_parameters(attention, hidden)
    return gqa_parameters(attention, hidden)


def ffn_parameters(ffn: AnyFfn | None, hidden: int, active: bool = False) -> int:
    """Weights of one layer's FFN; ``active``: those that one token uses."""
    if ffn is None:
        return 0
    if isinstance(ffn, DenseFfn):
        return block_parameters(ffn.intermediate, ffn.matrices, ffn.bias, hidden)
    return moe_parameters(ffn, hidden, ffn.top_k if active else ffn.experts)


def layer_parameters(kind: LayerKind, hidden: int, active: bool = False) -> int:
    """Weights of one layer of this kind, norms included."""
    attention = attention_parameters(kind.attention, hidden)
    return attention + ffn_parameters(kind.ffn, hidden, active) + kind.norm_width


def mtp_parameters(spec: ModelSpec, active: bool = False) -> int | None:
    """Weights of the prediction modules, without the embedding and LM head that they
    share with the model. None where the config does not describe them."""
    if not spec.mtp_layers:
        return 0
    kind = next((k for k in spec.layer_kinds if k.name == spec.mtp_kind), None)
    if kind is None:
        return None
    # norms of the hidden state, of the next token's embedding and of the output
    joint = 2 * spec.hidden * spec.hidden + 3 * spec.hidden
    return spec.mtp_layers * (layer_parameters(kind, spec.hidden, active) + joint)


def parameter_counts(spec: ModelSpec) -> ParameterCounts:
    """Total and active parameters and the parts that published figures treat apart."""
    matrix = spec.vocabulary * spec.hidden
    embedding = 0 if spec.tied_embeddings else matrix
    lm_head = matrix + spec.lm_head_bias * spec.vocabulary
    outside = lm_head + spec.final_norm_width
    kinds = [spec.layer_kinds[i] for i in spec.kind_indices()]
    return ParameterCounts(
        total=embedding
        + outside
        + sum(layer_parameters(k, spec.hidden) for k in kinds),
        active=outside + sum(layer_parameters(k, spec.hidden, True) for k in kinds),
        embedding=embedding,
        lm_head=lm_head,
        indexers=sum(indexer_parameters(k.attention, spec.hidden) for k in kinds),
        mtp=mtp_parameters(spec),
        mtp_active=mtp_parameters(spec, active=True),
    )


def parameter_count(spec: ModelSpec) -> int:
    """Parameters of the model; tied embeddings count once."""
    return parameter_counts(spec).total
