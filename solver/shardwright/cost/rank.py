"""One layer kind as one GPU of a stage sees it (docs/cost-model.md, 3 and 8)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardwright.cost.lengths import ceil_div
from shardwright.cost.shape import StageShape
from shardwright.schema.model import (
    Attention,
    DenseFfn,
    LayerKind,
    MlaAttention,
    ModelSpec,
    MoeFfn,
)
from shardwright.schema.workload import BYTES_PER_PARAMETER, Precision


def value_bytes(dtype: str) -> tuple[int, int]:
    """Bytes of one value as numerator and denominator."""
    return BYTES_PER_PARAMETER[dtype]


def part_dtype(spec: ModelSpec, precision: Precision, part: str) -> str:
    """Format of a part's matrices.

    When the weights are deployed in the format they were published in, only the
    parts that the checkpoint quantises have it; the others keep the activations'.
    """
    published = spec.quantization
    if published is None or published.dtype != precision.weights:
        return precision.weights
    return precision.weights if part in published.parts else precision.activations


@dataclass(frozen=True)
class AttentionRank:
    """Attention of one rank; parameters, values and FLOPs are counts.

    ``decode_flops`` and ``prefill_flops`` are per pair of a token and one that it
    sees; decode FLOPs of grouped-query attention never outweigh its cache reads.
    ``merged_values`` of a token are its partial attention output over ``heads``.
    """

    matrix_parameters: int
    small_parameters: int
    kv_values: int
    decode_flops: int
    prefill_flops: int
    window_tokens: int | None
    widest: int
    heads: int
    merged_values: int


@dataclass(frozen=True)
class ExpertRank:
    """Experts of one GPU: ``parameters`` of each of its ``slots``.

    ``balance`` is the busiest GPU's share of the pairs over the mean.
    """

    parameters: int
    small_parameters: int
    slots: int
    experts: int
    top_k: int
    dtype: str
    reachable_islands: int
    balance: float


@dataclass(frozen=True)
class RankLayer:
    """One layer kind on one GPU: matrices as (parameters, format).

    ``beside`` is the width of what stands beside routed experts: shared experts and a
    dense FFN. ``kv_shards`` ranks share the cache of a sequence.
    """

    matrices: tuple[tuple[int, str], ...]
    small_parameters: int
    attention: AttentionRank | None
    experts: ExpertRank | None
    has_ffn: bool
    widest: int
    kind: LayerKind
    beside: int = 0
    kv_shards: int = 1

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        kind: LayerKind,
        shape: StageShape,
        precision: Precision,
        balance: float | None = None,
    ) -> RankLayer:
        """Shard of ``kind``; widths round up.

        ``balance`` of the experts is that of their map; None: of uniform routing.
        """
        attention = _attention(spec.hidden, kind, shape.tp)
        matrices: list[tuple[int, str]] = []
        small, widest = kind.norm_width, 0
        if attention is not None:
            dtype = part_dtype(spec, precision, "attention")
            matrices.append((attention.matrix_parameters, dtype))
            small += attention.small_parameters
            widest = attention.widest
        ffn = _ffn(spec, kind, shape, precision)
        experts = ffn.experts
        if experts is not None and balance is not None:
            experts = replace(experts, balance=balance)
        matrices += ffn.matrices
        return cls(
            tuple(matrices),
            small + ffn.small,
            attention,
            experts,
            kind.ffn is not None,
            max(widest, ffn.widest),
            kind,
            ffn.beside,
            shape.kv_shards,
        )

    def weight_bytes(self, precision: Precision) -> int:
        """Weights of the layer on one GPU."""
        a = value_bytes(precision.activations)[0]
        total = self.small_parameters * a
        by_format: dict[str, int] = {}
        for parameters, dtype in self.matrices:
            by_format[dtype] = by_format.get(dtype, 0) + parameters
        total += sum(scaled_bytes(n, dtype) for dtype, n in by_format.items())
        if self.experts is not None:
            e = self.experts
            total += scaled_bytes(e.slots * e.parameters, e.dtype)
            total += e.slots * e.small_parameters * a
        return total

    @property
    def windowed(self) -> bool:
        """Whether the cache of the layer stops growing at a window."""
        return self.attention is not None and self.attention.window_tokens is not None

    def kv_bytes_per_token(self, precision: Precision) -> int:
        """KV cache of one token in this layer on one rank."""
        if self.attention is None:
            return 0
        numerator, denominator = value_bytes(precision.kv_cache)
        return self.attention.kv_values * numerator // denominator

    def kv_bytes(self, precision: Precision, room: int, sequences: int) -> int:
        """KV cache of the layer when ``room`` tokens are resident."""
        if self.attention is not None and self.attention.window_tokens is not None:
            room = min(room, sequences * self.attention.window_tokens)
        return ceil_div(room, self.kv_shards) * self.kv_bytes_per_token(precision)


def scaled_bytes(parameters: int, dtype: str) -> int:
    """Bytes of a number of parameters, rounded up."""
    numerator, denominator = value_bytes(dtype)
    return ceil_div(parameters * numerator, denominator)


def _attention(hidden: int, kind: LayerKind, tp: int) -> AttentionRank | None:
    if kind.attention is None:
        return None
    if isinstance(kind.attention, MlaAttention):
        return _latent(hidden, kind.attention, tp)
    return _grouped(hidden, kind.attention, tp)


def _grouped(hidden: int, attention: Attention, tp: int) -> AttentionRank:
    heads = ceil_div(attention.heads, tp)
    kv_heads = ceil_div(attention.kv_heads, tp)
    key, value = attention.head_dim, attention.value_dim
    projected = 0 if attention.tied_kv_projection else value
    small = attention.qk_norm_width + (heads if attention.sinks else 0)
    small += heads * key + kv_heads * (key + value) if attention.qkv_bias else 0
    small += hidden if attention.output_bias else 0
    return AttentionRank(
        hidden * (heads * (key + value) + kv_heads * (key + projected)),
        small,
        kv_heads * (key + value),
        0,
        2 * heads * (key + value),
        attention.window_tokens,
        (heads + kv_heads) * (key + value),
        heads,
        heads * value,
    )


def _latent(hidden: int, attention: MlaAttention, tp: int) -> AttentionRank:
    heads = ceil_div(attention.heads, tp)
    query = attention.qk_nope_head_dim + attention.qk_rope_head_dim
    value, rank = attention.v_head_dim, attention.kv_lora_rank
    q_rank = attention.q_lora_rank
    queries = (
        hidden * heads * query
        if q_rank is None
        else hidden * q_rank + q_rank * heads * query
    )
    expand = rank * heads * (attention.qk_nope_head_dim + value)
    return AttentionRank(
        queries + hidden * attention.latent_width + expand + heads * value * hidden,
        (q_rank or 0) + rank,
        attention.latent_width,
        2 * heads * (rank + attention.latent_width),
        2 * heads * (query + value),
        None,
        2 * heads * (query + value),
        heads,
        heads * rank,
    )


@dataclass(frozen=True)
class _Ffn:
    matrices: list[tuple[int, str]]
    small: int
    experts: ExpertRank | None
    widest: int
    beside: int = 0


def _ffn(
    spec: ModelSpec, kind: LayerKind, shape: StageShape, precision: Precision
) -> _Ffn:
    if kind.ffn is None:
        return _Ffn([], 0, None, 0)
    if isinstance(kind.ffn, MoeFfn):
        return _experts(spec, kind.ffn, shape, precision)
    return _dense(spec, kind.ffn, shape, precision)


def _dense(
    spec: ModelSpec, ffn: DenseFfn, shape: StageShape, precision: Precision
) -> _Ffn:
    width = ceil_div(ffn.intermediate, shape.tp)
    small = (ffn.matrices - 1) * width + spec.hidden if ffn.bias else 0
    dtype = part_dtype(spec, precision, "dense_ffn")
    matrix = (ffn.matrices * spec.hidden * width, dtype)
    return _Ffn([matrix], small, None, 2 * width)


def _experts(
    spec: ModelSpec, ffn: MoeFfn, shape: StageShape, precision: Precision
) -> _Ffn:
    h, n = spec.hidden, ffn.matrices
    width = ceil_div(ffn.intermediate, shape.moe_tp)
    shared = ceil_div(ffn.shared_intermediate, shape.tp)
    dense = ceil_div(ffn.dense_intermediate, shape.tp)
    matrices = [
        (h * ffn.experts, precision.activations),
        (n * h * shared, part_dtype(spec, precision, "shared_experts")),
        (n * h * dense, part_dtype(spec, precision, "dense_ffn")),
    ]
    small = ffn.experts * (int(ffn.router_bias) + int(ffn.correction_bias))
    slots = ceil_div(ffn.experts + shape.redundant, shape.ep)
    groups_per_island = ceil_div(shape.islands, ffn.n_group)
    reachable = ffn.topk_group * groups_per_island if ffn.n_group > 1 else shape.islands
    experts = ExpertRank(
        parameters=n * h * width,
        small_parameters=(n - 1) * width + h if ffn.bias else 0,
        slots=slots,
        experts=ffn.experts,
        top_k=ffn.top_k,
        dtype=part_dtype(spec, precision, "experts"),
        reachable_islands=min(reachable, shape.islands),
        balance=slots * shape.ep / (ffn.experts + shape.redundant),
    )
    beside = max(2 * shared, 2 * dense)
    widest = max(2 * ffn.top_k * width, beside)
    small += ffn.router_scale_width
    return _Ffn(matrices, small, experts, widest, beside)
