"""Iteration times of stages from measured operators (docs/silicon.md).

The same law as the analytic clock (docs/cost-model.md section 4): layers add up, a
balanced iteration is the mean of one with the prompts and one without. What differs is
where the time of an operator comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shardwright.cost.lengths import RequestMix, ceil_div, ceil_fraction
from shardwright.cost.measured import (
    AllGather,
    AllReduce,
    DecodeAttention,
    Elementwise,
    Embedding,
    Exchange,
    Experts,
    Gemm,
    LatentBlock,
    NotMeasured,
    Operator,
    PrefillAttention,
    Tables,
)
from shardwright.cost.memory import FIRST, LAST, ONLY, padded_vocabulary
from shardwright.cost.rank import RankLayer, part_dtype
from shardwright.cost.shape import StageShape
from shardwright.cost.times import FloatArray, IntArray, Load, mean_ns
from shardwright.schema.model import (
    Attention,
    DenseFfn,
    LayerKind,
    MlaAttention,
    ModelSpec,
    MoeFfn,
)
from shardwright.schema.workload import Precision

_MEASURED_LATENTS = (1536, 512, 128, 64, 128)
_GROUPS = (1, 2, 4, 8)
"""Sizes of the groups that collectives were measured on."""


@dataclass(frozen=True)
class _Parts:
    """Operators of a layer or of a stage's end, by what their time depends on.

    ``work`` and ``collectives`` take the tokens of a rank, ``rows`` those that the LM
    head sees, ``routed`` the tokens of the stage spread over its attention ranks.
    """

    work: tuple[Operator, ...] = ()
    collectives: tuple[Operator, ...] = ()
    routed: tuple[Operator, ...] = ()
    routed_collectives: tuple[Operator, ...] = ()
    decode: tuple[Operator, ...] = ()
    prefill: tuple[Operator, ...] = ()
    rows: tuple[Operator, ...] = ()
    row_collectives: tuple[Operator, ...] = ()

    def operators(self) -> Iterator[Operator]:
        """All of them."""
        for part in vars(self).values():
            yield from part


@dataclass(frozen=True, eq=False)
class SiliconClock:
    """Iteration times of the stages of one GPU type in one shape, from tables.

    ``layer`` and ``stage_constant`` take and return what those of ``StageClock`` do.
    """

    spec: ModelSpec
    precision: Precision
    mix: RequestMix
    shape: StageShape
    tables: Tables

    def refusal(self) -> str | None:
        """Why this shape of this model has no measured times; None: it has."""
        shape, largest = self.shape, self.tables.source.largest_group
        groups = (shape.tp, shape.attn_dp, shape.moe_tp, shape.ep, shape.gpus)
        if shape.disaggregated:
            return "disaggregated stages are not measured"
        if shape.cp > 1:
            return "context parallelism is not measured"
        if shape.islands > 1:
            return "stages across islands are not measured"
        if any(size not in _GROUPS or size > largest for size in groups):
            allowed = ", ".join(str(n) for n in _GROUPS if n <= largest)
            return f"groups are measured with {allowed} GPUs"
        if shape.moe_dp > 1 or shape.redundant:
            return "copies of experts are not measured"
        try:
            for operator in self.operators():
                self.tables.table(operator)
        except NotMeasured as error:
            return str(error)
        return None

    def operators(self) -> Iterator[Operator]:
        """Everything that a replica of this shape runs. NotMeasured where it cannot."""
        for kind in self.spec.layer_kinds:
            yield from self._of_kind(kind).operators()
        yield from self._of_role(ONLY).operators()

    def layer(self, rank: RankLayer, load: Load) -> tuple[IntArray, IntArray]:
        """Time of one layer, and its communication part, per point (ns)."""
        parts = self._of_kind(rank.kind)
        return mean_ns(lambda one: self._seconds(parts, one), load)

    def stage_constant(self, role: int, load: Load) -> tuple[IntArray, IntArray]:
        """Time of a stage outside its layers, and its communication part (ns)."""
        parts = self._of_role(role)
        return mean_ns(lambda one: self._seconds(parts, one), load)

    def _seconds(self, parts: _Parts, load: Load) -> tuple[FloatArray, FloatArray]:
        spread = np.ceil(load.tokens / self.shape.attn_dp)
        rows = load.sequences + load.prompts / float(self.mix.prompt_work)
        collectives = (
            self._sum(parts.collectives, load.rank_tokens(1))
            + self._sum(parts.routed_collectives, spread)
            + self._sum(parts.row_collectives, rows)
        )
        work = (
            self._sum(parts.work, load.rank_tokens(1))
            + self._sum(parts.routed, spread)
            + self._sum(parts.rows, rows)
            + self._sum(parts.decode, load.sequences)
            + self._sum(parts.prefill, load.prompts)
        )
        return work + collectives, collectives

    def _sum(self, operators: tuple[Operator, ...], at: FloatArray) -> FloatArray:
        total = np.zeros_like(at)
        for operator in operators:
            total = total + self.tables.seconds(operator, at)
        return total

    @cached_property
    def _kinds(self) -> dict[str, _Parts]:
        return {}

    def _of_kind(self, kind: LayerKind) -> _Parts:
        if kind.name not in self._kinds:
            self._kinds[kind.name] = self._layer_parts(kind)
        return self._kinds[kind.name]

    def _layer_parts(self, kind: LayerKind) -> _Parts:
        attention, ffn = kind.attention, kind.ffn
        work: list[Operator] = []
        decode: tuple[Operator, ...] = ()
        prefill: tuple[Operator, ...] = ()
        if isinstance(attention, MlaAttention):
            work.append(self._norm())
            decode, prefill = self._latent(attention)
        elif attention is not None:
            work += self._projections(attention)
            decode, prefill = self._attention(attention)
        reduce = self._reduce()
        if isinstance(ffn, MoeFfn):
            work += self._beside_experts(ffn)
            return _Parts(
                tuple(work),
                routed=(self._experts(ffn),),
                routed_collectives=self._exchanges(ffn),
                decode=decode,
                prefill=prefill,
            )
        if ffn is not None:
            work += self._dense(ffn)
        blocks = int(attention is not None) + int(ffn is not None)
        return _Parts(tuple(work), reduce * blocks, decode=decode, prefill=prefill)

    def _reduce(self) -> tuple[Operator, ...]:
        if self.shape.tp == 1:
            return ()
        return (AllReduce(self.spec.hidden, self.shape.tp),)

    def _norm(self) -> Operator:
        return Elementwise(2 * self.spec.hidden, 2 * self.spec.hidden)

    def _gemm(self, outer: int, inner: int, part: str) -> Gemm:
        dtype = part_dtype(self.spec, self.precision, part)
        return Gemm(outer, inner, dtype, self._block(dtype))

    def _block(self, dtype: str) -> int:
        published = self.spec.quantization
        if published is None or published.block is None or published.dtype != dtype:
            return 0
        return published.block[0]

    def _projections(self, attention: Attention) -> list[Operator]:
        grouped = _priced(attention)
        heads = ceil_div(grouped.heads, self.shape.tp)
        kv_heads = ceil_div(grouped.kv_heads, self.shape.tp)
        hidden, width = self.spec.hidden, grouped.head_dim
        return [
            self._norm(),
            self._gemm((heads + 2 * kv_heads) * width, hidden, "attention"),
            self._gemm(hidden, heads * width, "attention"),
        ]

    def _latent(
        self, attention: MlaAttention
    ) -> tuple[tuple[Operator, ...], tuple[Operator, ...]]:
        if attention.indexer is not None or _widths(attention) != _MEASURED_LATENTS:
            raise NotMeasured("latent attention is measured in DeepSeek-V3's widths")
        dtype = part_dtype(self.spec, self.precision, "attention")
        shared = (
            ceil_div(attention.heads, self.shape.tp),
            attention.heads,
            self.precision.kv_cache,
            dtype,
            self._block(dtype),
        )
        lengths = (
            ceil_fraction(self.mix.context_mean),
            self.mix.carried_prompt,
            ceil_fraction(self.mix.attended_mean),
        )
        decode = LatentBlock(*shared, True, *lengths)
        return (decode,), (LatentBlock(*shared, False, *lengths),)

    def _attention(
        self, attention: Attention
    ) -> tuple[tuple[Operator, ...], tuple[Operator, ...]]:
        grouped = _priced(attention)
        shared = (
            ceil_div(grouped.heads, self.shape.tp),
            ceil_div(grouped.kv_heads, self.shape.tp),
            grouped.head_dim,
            self.precision.kv_cache,
            grouped.qk_norm_width > 0,
        )
        window = grouped.window_tokens or 0
        if window >= self.mix.max_context:
            window = 0
        context = ceil_fraction(self.mix.context_mean)
        seen = min(context, window) if window else context
        prefill = PrefillAttention(
            *shared,
            window,
            self.mix.carried_prompt,
            ceil_fraction(self.mix.attended_mean),
        )
        return (DecodeAttention(*shared, seen),), (prefill,)

    def _dense(self, ffn: DenseFfn) -> list[Operator]:
        width = ceil_div(ffn.intermediate, self.shape.tp)
        return [self._norm(), *self._gated(width, ffn.matrices, "dense_ffn")]

    def _gated(self, width: int, matrices: int, part: str) -> list[Operator]:
        wide = (matrices - 1) * width
        return [
            self._gemm(wide, self.spec.hidden, part),
            Elementwise(wide, width),
            self._gemm(self.spec.hidden, width, part),
        ]

    def _beside_experts(self, ffn: MoeFfn) -> list[Operator]:
        """Norm, router and the shared experts, on the tokens of a rank."""
        if ffn.dense_intermediate:
            raise NotMeasured("a dense FFN beside experts is not measured")
        router = Gemm(ffn.experts, self.spec.hidden, self.precision.activations)
        found: list[Operator] = [self._norm(), router]
        if ffn.shared_intermediate:
            width = ceil_div(ffn.shared_intermediate, self.shape.tp)
            found += self._gated(width, ffn.matrices, "shared_experts")
        return found

    def _experts(self, ffn: MoeFfn) -> Experts:
        return Experts(*self._routed(ffn), gated=ffn.matrices == 3)

    def _exchanges(self, ffn: MoeFfn) -> tuple[Operator, ...]:
        if self.shape.gpus == 1:
            return ()
        routed = self._routed(ffn)
        return Exchange(*routed, before=True), Exchange(*routed, before=False)

    def _routed(
        self, ffn: MoeFfn
    ) -> tuple[int, int, int, int, int, int, int, str, int]:
        shape = self.shape
        dtype = part_dtype(self.spec, self.precision, "experts")
        return (
            self.spec.hidden,
            ffn.intermediate,
            ffn.top_k,
            ffn.experts,
            shape.moe_tp,
            shape.ep,
            shape.attn_dp,
            dtype,
            self._block(dtype),
        )

    def _of_role(self, role: int) -> _Parts:
        hidden, tp = self.spec.hidden, self.shape.tp
        vocabulary = padded_vocabulary(self.spec.vocabulary)
        shard = ceil_div(vocabulary, tp)
        first, last = role in (FIRST, ONLY), role in (LAST, ONLY)
        head = Gemm(shard, hidden, self.precision.activations)
        return _Parts(
            work=(Embedding(shard, hidden),) if first else (),
            collectives=self._reduce() if first else (),
            rows=(head,) if last else (),
            row_collectives=(AllGather(vocabulary, tp),) if last and tp > 1 else (),
        )


def _widths(attention: MlaAttention) -> tuple[int | None, ...]:
    return (
        attention.q_lora_rank,
        attention.kv_lora_rank,
        attention.qk_nope_head_dim,
        attention.qk_rope_head_dim,
        attention.v_head_dim,
    )


def _priced(attention: Attention) -> Attention:
    if attention.v_head_dim not in (None, attention.head_dim):
        raise NotMeasured("value heads of a width of their own are not measured")
    if attention.tied_kv_projection:
        raise NotMeasured("a projection shared by keys and values is not measured")
    return attention
