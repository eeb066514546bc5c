"""One stage as the formulas see it: operating point, shape, shard sizes, neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from shardwright.check.lengths import Mix
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind, ModelSpec, MoeFfn
from shardwright.schema.plan import OperatingPoint, Stage


@dataclass(frozen=True)
class Point:
    """An operating point with its derived figures recomputed (section 2)."""

    sequences: int
    micro_batches: int
    chunk: int
    micro_batch_sequences: int
    prompt_tokens: int
    chunk_count: int
    prefill_tokens: int


def point_of(claimed: OperatingPoint, mix: Mix) -> Point:
    """M, q and chunk as claimed; m, c, K and s recomputed from them."""
    m = shard(claimed.sequences, claimed.micro_batches)
    chunk_count = math.ceil(mix.computed / claimed.prefill_chunk_tokens)
    return Point(
        sequences=claimed.sequences,
        micro_batches=claimed.micro_batches,
        chunk=claimed.prefill_chunk_tokens,
        micro_batch_sequences=m,
        prompt_tokens=math.ceil(m * mix.computed / mix.mean_output),
        chunk_count=chunk_count,
        prefill_tokens=math.ceil(mix.computed / chunk_count),
    )


@dataclass(frozen=True)
class Layout:
    """How a stage lies on its GPUs (section 8): (t, d; e_t, e, e_d), z and slots.

    ``balance`` is β of the plan's expert map, None where there is none.
    """

    tp: int
    attn_dp: int = 1
    moe_tp: int = 1
    ep: int = 1
    moe_dp: int = 1
    islands: int = 1
    slots: int = 0
    balance: Fraction | None = None

    @property
    def gpus(self) -> int:
        """G = t·d."""
        return self.tp * self.attn_dp


def layout_of(stage: Stage, model: ModelSpec, islands: int) -> Layout:
    """The shape as claimed; without experts only the tensor-parallel degree counts."""
    shape = stage.shape
    if not has_experts(model):
        return Layout(tp=shape.tp, moe_tp=shape.tp)
    return Layout(
        tp=shape.tp,
        attn_dp=shape.attn_dp,
        moe_tp=shape.moe_tp,
        ep=shape.ep,
        moe_dp=shape.moe_dp,
        islands=islands,
        slots=stage.expert_slots,
    )


@dataclass(frozen=True)
class StageView:
    """A stage of a replica: its GPU type, its shape, its layers, where it stands."""

    instance: Instance
    mix: Mix
    point: Point
    spec: GpuSpec
    layout: Layout
    kinds: tuple[LayerKind, ...]
    index: int
    stages: int

    @property
    def tp(self) -> int:
        """Tensor-parallel degree."""
        return self.layout.tp

    @property
    def first(self) -> bool:
        """True for the stage that holds the embedding."""
        return self.index == 0

    @property
    def last(self) -> bool:
        """True for the stage that holds the LM head."""
        return self.index == self.stages - 1

    @property
    def rank_sequences(self) -> int:
        """⌈m/d⌉: decoding sequences of one attention rank."""
        return shard(self.point.micro_batch_sequences, self.layout.attn_dp)

    @property
    def resident_sequences(self) -> int:
        """⌈M/d⌉: resident sequences of one attention rank."""
        return shard(self.point.sequences, self.layout.attn_dp)


@dataclass(frozen=True)
class Load:
    """Tokens of one iteration: of the fullest attention rank, and of the stage."""

    sequences: int
    prompt: int
    stage_tokens: int

    @property
    def rank_tokens(self) -> int:
        """n_r: all tokens of the rank."""
        return self.sequences + self.prompt


def balanced_load(view: StageView) -> Load:
    """An iteration in balance: its prompt tokens lie on all attention ranks."""
    m, c = view.point.micro_batch_sequences, view.point.prompt_tokens
    return Load(view.rank_sequences, shard(c, view.layout.attn_dp), m + c)


def chunk_load(view: StageView) -> Load:
    """An iteration with a prompt's chunk: one attention rank has all of it."""
    m, s = view.point.micro_batch_sequences, view.point.prefill_tokens
    return Load(view.rank_sequences, s, m + s)


def shard(width: int, ranks: int) -> int:
    """What the fullest rank holds of a width split over ``ranks`` ranks."""
    return -(-width // ranks)


def expert_blocks(model: ModelSpec) -> tuple[MoeFfn, ...]:
    """The mixtures of experts among the model's layer kinds."""
    blocks = (kind.ffn for kind in model.layer_kinds)
    return tuple(block for block in blocks if isinstance(block, MoeFfn))


def has_experts(model: ModelSpec) -> bool:
    """True unless the model is dense."""
    return bool(expert_blocks(model))


def padded_vocabulary(model: ModelSpec) -> int:
    """V': the vocabulary rounded up to a multiple of 64."""
    return 64 * shard(model.vocabulary, 64)


def vocabulary_shard(model: ModelSpec, tp: int) -> int:
    """V_t: the rows of the embedding or LM head on one rank."""
    return shard(padded_vocabulary(model), tp)
