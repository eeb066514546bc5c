"""Exact parameter counts of a model."""

from __future__ import annotations

from shardwright.schema.model import Attention, DenseFfn, LayerKind, ModelSpec


def attention_parameters(attention: Attention, hidden: int) -> int:
    """Weights of q, k, v, o, their biases, and the q/k norms of one layer."""
    query = attention.heads * attention.head_dim
    key_value = 2 * attention.kv_heads * attention.head_dim
    biases = attention.qkv_bias * (query + key_value) + attention.output_bias * hidden
    return (2 * query + key_value) * hidden + biases + attention.qk_norm_width


def ffn_parameters(ffn: DenseFfn, hidden: int) -> int:
    """Weights of the up (and gate) and down matrices and their biases."""
    biases = ffn.bias * ((ffn.matrices - 1) * ffn.intermediate + hidden)
    return ffn.matrices * hidden * ffn.intermediate + biases


def layer_parameters(kind: LayerKind, hidden: int) -> int:
    """All weights of one layer of this kind, norms included."""
    attention = attention_parameters(kind.attention, hidden) if kind.attention else 0
    ffn = ffn_parameters(kind.ffn, hidden) if kind.ffn else 0
    return attention + ffn + kind.norm_width


def parameter_count(spec: ModelSpec) -> int:
    """Parameters of the model; tied embeddings count once."""
    embeddings = (1 if spec.tied_embeddings else 2) * spec.vocabulary * spec.hidden
    of_kind = {kind.name: layer_parameters(kind, spec.hidden)
               for kind in spec.layer_kinds}  # fmt: skip
    layers = sum(of_kind[name] for name in spec.layers)
    return embeddings + layers + spec.final_norm_width
