"""One stage as the formulas see it: operating point, shape, shard sizes, neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from shardwright.check.lengths import Mix
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind, ModelSpec, MoeFfn
from shardwright.schema.plan import OperatingPoint, PoolRole, Stage

LONGEST_PROMPT_PART = 8192
"""Tokens of a prompt that engines take in one iteration at most (section 2)."""


@dataclass(frozen=True)
class Point:
    """An operating point with its derived figures recomputed (sections 2 and 10).

    ``prompt_part`` is ŝ, which does not depend on the chunk.
    """

    role: PoolRole
    sequences: int
    micro_batches: int
    chunk: int
    micro_batch_sequences: int
    prompt_tokens: int
    chunk_count: int
    prefill_tokens: int
    prompt_part: int

    def carried(self, ranks: int) -> int:
        """x̂: prompt tokens of a balanced iteration that carries any.

        The attention ranks of a stage take their prompts together.
        """
        if self.role == "prefill":
            return self.prompt_tokens
        prompts = min(ranks, self.micro_batch_sequences)
        return max(prompts * self.prompt_part, self.prompt_tokens)

    def carrying(self, ranks: int) -> Fraction:
        """φ: share of the balanced iterations that carry prompt tokens."""
        return Fraction(self.prompt_tokens, self.carried(ranks))


def point_of(claimed: OperatingPoint, role: PoolRole, mix: Mix) -> Point:
    """What is chosen as claimed, and the rest of the role's column recomputed."""
    if role == "prefill":
        return _prefill_point(claimed, mix)
    chunk = max(1, claimed.prefill_chunk_tokens)
    m = shard(claimed.sequences, claimed.micro_batches)
    chunk_count = math.ceil(mix.computed / chunk)
    mixed = Point(
        role=role,
        sequences=claimed.sequences,
        micro_batches=claimed.micro_batches,
        chunk=chunk,
        micro_batch_sequences=m,
        prompt_tokens=math.ceil(m * mix.computed / mix.mean_output),
        chunk_count=chunk_count,
        prefill_tokens=math.ceil(mix.computed / chunk_count),
        prompt_part=_prompt_part(mix),
    )
    if role == "mixed":
        return mixed
    return replace(mixed, chunk=0, prompt_tokens=0, chunk_count=1, prefill_tokens=0)


def _prefill_point(claimed: OperatingPoint, mix: Mix) -> Point:
    """Prompts under way, and as many whose cache is being fetched."""
    chunk = max(1, claimed.prefill_chunk_tokens)
    chunk_count = math.ceil(mix.computed / chunk)
    prompts = max(1, math.ceil(chunk / mix.computed))
    return Point(
        role="prefill",
        sequences=2 * claimed.micro_batches * prompts,
        micro_batches=claimed.micro_batches,
        chunk=chunk,
        micro_batch_sequences=0,
        prompt_tokens=chunk,
        chunk_count=chunk_count,
        prefill_tokens=math.ceil(mix.computed / chunk_count),
        prompt_part=_prompt_part(mix),
    )


def _prompt_part(mix: Mix) -> int:
    return min(math.ceil(mix.computed), LONGEST_PROMPT_PART)


@dataclass(frozen=True)
class Layout:
    """How a stage lies on its GPUs (8, 14): (t, d, cp; e_t, e, e_d), z and slots.

    ``balance`` is β of the plan's expert map, None where there is none. A stage whose
    experts have ``expert_gpus`` of their own (section 11) plays in v ``parts``.
    """

    tp: int
    attn_dp: int = 1
    moe_tp: int = 1
    ep: int = 1
    moe_dp: int = 1
    islands: int = 1
    slots: int = 0
    balance: Fraction | None = None
    expert_gpus: int = 0
    parts: int = 1
    cp: int = 1

    @property
    def gpus(self) -> int:
        """t·d·cp: GPUs with attention, all GPUs unless experts have their own."""
        return self.tp * self.attn_dp * self.cp

    @property
    def ranks_per_copy(self) -> int:
        """D': attention ranks that a copy of the experts serves (0: not even one)."""
        return self.attn_dp * self.cp // self.moe_dp

    @property
    def all_gpus(self) -> int:
        """G of the stage."""
        return self.gpus + self.expert_gpus

    @property
    def apart(self) -> bool:
        """True where routed experts have GPUs of their own."""
        return self.expert_gpus > 0


def across(instance: Instance, stage: Stage) -> bool:
    """Whether a stage may be tensor parallel over islands: dense, and asked for."""
    most = instance.limits.max_tensor_parallel
    return not has_experts(instance.model) and stage.shape.tp <= (most or 0)


def layout_of(stage: Stage, model: ModelSpec, islands: int) -> Layout:
    """The shape as claimed; without experts only tp and cp count."""
    shape, unit = stage.shape, stage.expert_unit
    layout = Layout(
        tp=shape.tp,
        moe_tp=shape.tp,
        moe_dp=shape.cp,
        cp=shape.cp,
        islands=islands,
    )
    if has_experts(model):
        layout = Layout(
            tp=shape.tp,
            attn_dp=shape.attn_dp,
            moe_tp=shape.moe_tp,
            ep=shape.ep,
            moe_dp=shape.moe_dp,
            islands=islands,
            slots=stage.expert_slots,
            cp=shape.cp,
        )
    if unit is None:
        return layout
    apart = replace(layout, moe_dp=1, cp=1)
    return replace(apart, expert_gpus=unit.gpus, parts=unit.ping_pong)


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


def whole_model_view(instance: Instance, mix: Mix, spec: GpuSpec) -> StageView:
    """All layers on one GPU, t = e = 1 and no redundant expert: what weights take.

    Where experts may have GPUs of their own, that GPU is one with attention.
    """
    model, blocks = instance.model, expert_blocks(instance.model)
    slots = max((block.experts for block in blocks), default=0)
    claim = OperatingPoint(
        sequences=1,
        micro_batches=1,
        micro_batch_sequences=1,
        prefill_chunk_tokens=0,
        prompt_tokens=0,
        chunk_count=1,
    )
    return StageView(
        instance=instance,
        mix=mix,
        point=point_of(claim, "decode", mix),
        spec=spec,
        layout=Layout(tp=1, slots=slots, expert_gpus=int(allows_apart(instance))),
        kinds=tuple(model.layer_kinds[i] for i in model.kind_indices()),
        index=0,
        stages=1,
    )


@dataclass(frozen=True)
class Load:
    """Tokens of one iteration: of the fullest context group, and of the stage.

    A group of ``ranks`` ranks cuts its prompts into as many parts; without context
    parallelism it is an attention rank.
    """

    sequences: int
    prompt: int
    stage_tokens: int
    stage_sequences: int
    ranks: int = 1

    @property
    def rank_prompt(self) -> int:
        """x_r: prompt tokens of a rank."""
        return shard(self.prompt, self.ranks)

    @property
    def rank_tokens(self) -> int:
        """n_r: all tokens of a rank."""
        return self.sequences + self.rank_prompt

    def rows(self, layout: Layout) -> int:
        """N: what the fullest copy of the experts sees of its D' attention ranks."""
        served = layout.ranks_per_copy
        decoding = min(served * self.sequences, self.ranks * self.stage_sequences)
        prompts = self.stage_tokens - self.stage_sequences
        return decoding + min(served * self.rank_prompt, prompts)


Iterations = tuple[tuple[Fraction, Load], ...]
"""Loads and the share of the iterations that have each; () where there are none."""


def balanced_iterations(view: StageView) -> Iterations:
    """In balance prompts come whole: 1 - φ of the iterations carry none."""
    point, ranks = view.point, view.layout.attn_dp
    decoding, carried = point.micro_batch_sequences, point.carried(ranks)
    fullest = shard(carried, ranks)
    if point.role != "prefill":
        fullest = max(point.prompt_part, fullest)
    mine, cp = view.rank_sequences, view.layout.cp
    without = Load(mine, 0, decoding, decoding, cp)
    loaded = Load(mine, fullest, decoding + carried, decoding, cp)
    share = point.carrying(ranks)
    shares = ((1 - share, without), (share, loaded))
    return tuple(entry for entry in shares if entry[0])


def chunk_iterations(view: StageView) -> Iterations:
    """With a prompt's chunk, all on one attention rank; a decode replica has none."""
    if view.point.role == "decode":
        return ()
    m, s = view.point.micro_batch_sequences, view.point.prefill_tokens
    return ((Fraction(1), Load(view.rank_sequences, s, m + s, m, view.layout.cp)),)


def cuts_cache(view: StageView) -> bool:
    """k > 1: the cache of a sequence is cut over its context group (section 14)."""
    return view.layout.cp > 1 and view.instance.engine.name != "sglang"


def cache_parts(view: StageView) -> int:
    """k."""
    return view.layout.cp if cuts_cache(view) else 1


def shard(width: int, ranks: int) -> int:
    """What the fullest rank holds of a width split over ``ranks`` ranks."""
    return -(-width // ranks)


def used_kinds(model: ModelSpec) -> tuple[LayerKind, ...]:
    """The kinds that layers have."""
    used = sorted({*model.kind_indices()})
    return tuple(model.layer_kinds[index] for index in used)


def expert_blocks(model: ModelSpec) -> tuple[MoeFfn, ...]:
    """The mixtures of experts that layers have; a kind without a layer is none."""
    blocks = (kind.ffn for kind in used_kinds(model))
    return tuple(block for block in blocks if isinstance(block, MoeFfn))


def allows_apart(instance: Instance) -> bool:
    """Whether experts may have GPUs of their own: ``generic`` may, unless told not to.

    Nobody has measured such stages, so measured latencies rule them out.
    """
    engine = instance.engine
    switch = engine.rules.disaggregated_experts
    allowed = engine.name == "generic" if switch is None else switch
    return allowed and engine.latencies == "analytic"


def has_experts(model: ModelSpec) -> bool:
    """True unless the model is dense."""
    return bool(expert_blocks(model))


def padded_vocabulary(model: ModelSpec) -> int:
    """V': the vocabulary rounded up to a multiple of 64."""
    return 64 * shard(model.vocabulary, 64)


def vocabulary_shard(model: ModelSpec, tp: int) -> int:
    """V_t: the rows of the embedding or LM head on one rank."""
    return shard(padded_vocabulary(model), tp)
