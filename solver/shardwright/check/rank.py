"""The matrices and small weights that one rank holds of a layer, and its widths.

Experts stand in experts.py; here are attention, dense and shared FFN, and router.
"""

from __future__ import annotations

from collections import Counter

from shardwright.check.attention import AttentionShard, attention_shard
from shardwright.check.stage import StageView, shard
from shardwright.schema.instance import Instance
from shardwright.schema.model import DenseFfn, LayerKind, MoeFfn


def stored_format(instance: Instance, part: str) -> str:
    """The format of a part's matrices, as ``model.quantization`` names the parts."""
    precision, published = instance.precision, instance.model.quantization
    if published is None or published.dtype != precision.weights:
        return precision.weights
    if part in published.parts:
        return precision.weights
    return precision.activations


def attention_of(view: StageView, kind: LayerKind) -> AttentionShard | None:
    """The rank's attention in a layer of the kind."""
    return attention_shard(kind, view.instance.model.hidden, view.tp)


def rank_matrices(view: StageView, kind: LayerKind) -> dict[str, int]:
    """P_i: weights of the rank's matrices in one layer, by format."""
    found: Counter[str] = Counter()
    attention = attention_of(view, kind)
    if attention is not None:
        found[stored_format(view.instance, "attention")] += attention.weights
    if isinstance(kind.ffn, DenseFfn):
        weights = _block(view, kind.ffn.matrices, kind.ffn.intermediate)
        found[stored_format(view.instance, "dense_ffn")] += weights
    if isinstance(kind.ffn, MoeFfn):
        found += _beside_experts(view, kind.ffn)
    return dict(found)


def _beside_experts(view: StageView, ffn: MoeFfn) -> Counter[str]:
    """Router, shared experts, and a dense FFN of its own beside the experts."""
    found: Counter[str] = Counter()
    router = view.instance.model.hidden * ffn.experts
    found[view.instance.precision.activations] += router
    shared = _block(view, ffn.matrices, ffn.shared_intermediate)
    found[stored_format(view.instance, "shared_experts")] += shared
    own = _block(view, ffn.matrices, ffn.dense_intermediate)
    found[stored_format(view.instance, "dense_ffn")] += own
    return found


def _block(view: StageView, matrices: int, intermediate: int) -> int:
    return matrices * view.instance.model.hidden * shard(intermediate, view.tp)


def small_weights(view: StageView, kind: LayerKind) -> int:
    """Q: biases, norms and scales of one layer on one rank, experts' own aside."""
    attention = attention_of(view, kind)
    total = kind.norm_width + (attention.small if attention is not None else 0)
    if isinstance(kind.ffn, MoeFfn):
        biases = int(kind.ffn.router_bias) + int(kind.ffn.correction_bias)
        total += biases * kind.ffn.experts + kind.ffn.router_scale_width
    elif kind.ffn is not None and kind.ffn.bias:
        inner = shard(kind.ffn.intermediate, view.tp)
        total += (kind.ffn.matrices - 1) * inner + view.instance.model.hidden
    return total


def working_width(view: StageView, kind: LayerKind) -> int:
    """The widest pair of tensors that one token needs in a layer of the kind."""
    attention = attention_of(view, kind)
    return max(
        attention.width if attention is not None else 0, 2 * _ffn_width(view, kind)
    )


def _ffn_width(view: StageView, kind: LayerKind) -> int:
    if kind.ffn is None:
        return 0
    if isinstance(kind.ffn, DenseFfn):
        return shard(kind.ffn.intermediate, view.tp)
    beside = max(
        shard(kind.ffn.shared_intermediate, view.tp),
        shard(kind.ffn.dense_intermediate, view.tp),
    )
    if view.layout.apart:
        return beside
    inner = shard(kind.ffn.intermediate, view.layout.moe_tp)
    return max(beside, kind.ffn.top_k * inner)
