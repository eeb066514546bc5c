"""Stages whose routed experts have GPUs of their own (docs/cost-model.md section 11).

A micro-batch is worked off in parts (ping-pong): while the expert GPUs serve one part,
the attention GPUs work on another. Per layer a part visits four stations in a loop:
attention GPUs, links out (dispatch), expert GPUs, links back (combine). A loop of v
parts over stations of times p_k turns once in max(v max p_k, sum p_k): a marked graph,
whose circuits are the stations (one part each at a time) and the loop itself (v parts).
Where layers differ, a way round may take the slowest of every station: with that sum
in every layer the law is an upper bound while parts keep their order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np

from shardwright.cost.lengths import RequestMix, ceil_div
from shardwright.cost.links import Links, link_speed
from shardwright.cost.memory import framework_bytes
from shardwright.cost.rank import RankLayer, value_bytes
from shardwright.cost.shape import StageShape
from shardwright.cost.times import FloatArray, IntArray, Load, StageClock, mean_ns
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.model import ModelSpec, MoeFfn
from shardwright.schema.workload import Limits, Precision

_KEPT_LOADS = 4
"""The balanced iteration and the lone chunk, each with and without prompts."""


def attention_part(rank: RankLayer) -> RankLayer:
    """What an attention GPU holds of a layer: all but the routed experts."""
    if rank.experts is None:
        return rank
    own = 0 if rank.attention is None else rank.attention.widest
    reduced_again = rank.beside > 0 or rank.attention is None
    widest = max(own, rank.beside)
    return replace(rank, experts=None, has_ffn=reduced_again, widest=widest, beside=0)


def expert_part(rank: RankLayer) -> RankLayer:
    """What an expert GPU holds of a layer: its slots, nothing else."""
    return replace(
        rank,
        matrices=(),
        small_parameters=0,
        attention=None,
        has_ffn=rank.experts is not None,
        widest=0,
        beside=0,
    )


@dataclass(frozen=True)
class Turn:
    """Times of one part at the stations of one layer, seconds per operating point.

    ``collectives`` is the share of ``attention`` that is all-reduces.
    """

    attention: FloatArray
    collectives: FloatArray
    dispatch: FloatArray
    experts: FloatArray
    combine: FloatArray

    @property
    def loop(self) -> FloatArray:
        """One part through all stations."""
        return self.attention + self.dispatch + self.experts + self.combine

    @property
    def slowest(self) -> FloatArray:
        """The busiest station."""
        links = np.maximum(self.dispatch, self.combine)
        return np.maximum(np.maximum(self.attention, self.experts), links)

    def period(self, parts: int, longest: Turn) -> FloatArray:
        """All parts through the layer: max(v max p_k, the longest way round)."""
        return np.maximum(parts * self.slowest, longest.loop)

    def or_longer(self, other: Turn) -> Turn:
        """The slower of both at every station."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Turn(*(np.maximum(a, b) for a, b in pairs))

    def silent(self) -> Turn:
        """The same without any communication."""
        none = np.zeros_like(self.dispatch)
        computed = self.attention - self.collectives
        return Turn(computed, none, none, self.experts, none)

    def fill(self, parts: int) -> FloatArray:
        """What a stage adds once to its layers: the last part behind the first."""
        behind = (parts - 1) * self.slowest
        return np.minimum(behind, self.loop - self.slowest)


@dataclass(frozen=True)
class DisaggregatedClock:
    """Iteration times of the disaggregated stages of one GPU type in one shape.

    ``ranks`` are all layer kinds of the model, with the balance of their experts.
    ``layer`` and ``stage_constant`` take and return what those of ``StageClock`` do.
    """

    spec: ModelSpec
    precision: Precision
    mix: RequestMix
    gpu: GpuSpec
    shape: StageShape
    ranks: tuple[RankLayer, ...]
    engine: str = "generic"

    def _clock(self, shape: StageShape) -> StageClock:
        spec, precision, engine = self.spec, self.precision, self.engine
        return StageClock(spec, precision, self.mix, self.gpu, shape, engine)

    @cached_property
    def attention(self) -> StageClock:
        """Times of the attention GPUs on their own."""
        return self._clock(replace(self.shape, expert_gpus=0, ping_pong=1))

    @cached_property
    def experts(self) -> StageClock:
        """Times of the expert GPUs on their own."""
        return self._clock(StageShape(1, 1, self.shape.moe_tp, self.shape.ep))

    @cached_property
    def links(self) -> Links:
        """Collectives of the attention GPUs."""
        return self.attention.links

    def part(self, load: Load) -> Load:
        """The largest part of an iteration: every rank splits its own tokens."""
        v = self.shape.ping_pong
        return replace(
            load,
            sequences=np.ceil(load.sequences / v),
            prompts=np.ceil(load.prompts / v),
            tokens=np.ceil(load.tokens / v),
            decoding=np.ceil(load.decoding / v),
        )

    def turn(self, rank: RankLayer, load: Load) -> Turn:
        """Times of one part at the stations of a layer that carries all of ``load``."""
        part = self.part(load)
        none = np.zeros_like(part.tokens)
        if rank.attention is None and not rank.has_ffn:
            return Turn(none, none, none, none, none)
        attention, collectives = self.attention.layer_s(attention_part(rank), part)
        if rank.experts is None:
            return Turn(attention, collectives, none, none, none)
        experts = self.experts.experts_s(rank, part.tokens)
        way = self.one_way(rank, part.tokens)
        return Turn(attention, collectives, way, experts, way)

    def one_way(self, rank: RankLayer, tokens: FloatArray) -> FloatArray:
        """Dispatch or combine of a part between the two groups of GPUs, seconds."""
        latency = self.attention.links.latency(self.shape.gpus)
        return latency + self.largest_message(rank, tokens) / link_speed(self.gpu)

    def largest_message(self, rank: RankLayer, tokens: FloatArray) -> FloatArray:
        """Bytes that the busiest GPU sends or receives in a dispatch.

        A token goes once to each of the expert groups that have one of its experts, to
        all GPUs of the group.
        """
        assert rank.experts is not None
        experts, shape = rank.experts, self.shape
        met = 1 - (1 - 1 / shape.ep) ** experts.top_k
        sent = tokens * met * shape.expert_gpus / shape.attention_gpus
        received = tokens * min(1.0, met * experts.balance)
        width = self.spec.hidden * value_bytes(self.precision.activations)[0]
        return np.maximum(sent, received) * width

    def layer(self, rank: RankLayer, load: Load) -> tuple[IntArray, IntArray]:
        """Period of one layer, and the communication that nothing hides, per point.

        A layer without attention and FFN takes no time, as in colocated stages.
        """
        return mean_ns(lambda one: self._layer_s(rank, one), load)

    def _layer_s(self, rank: RankLayer, load: Load) -> tuple[FloatArray, FloatArray]:
        turn, parts = self.turn(rank, load), self.shape.ping_pong
        if rank.attention is None and not rank.has_ffn:
            return turn.loop, turn.loop
        period = turn.period(parts, self.longest(load))
        silent = [t.silent() for t in self._turns(load)]
        free = turn.silent().period(parts, reduce(Turn.or_longer, silent))
        return period, period - free

    def longest(self, load: Load) -> Turn:
        """The slowest of every station over the layers in use."""
        return reduce(Turn.or_longer, self._turns(load))

    def _turns(self, load: Load) -> list[Turn]:
        """Turns of the layers in use; those of the last loads are kept."""
        for known, turns in self._kept:
            if known is load:
                return turns
        found = [self.turn(rank, load) for rank in self._used]
        self._kept.append((load, found))
        return found

    @cached_property
    def _kept(self) -> deque[tuple[Load, list[Turn]]]:
        return deque(maxlen=_KEPT_LOADS)

    def stage_constant(self, role: int, load: Load) -> tuple[IntArray, IntArray]:
        """Time of a stage outside its layers' periods, and its communication part."""
        return mean_ns(lambda one: self._constant_s(role, one), load)

    def _constant_s(self, role: int, load: Load) -> tuple[FloatArray, FloatArray]:
        total, communication = self.attention.constant_s(role, load)
        return total + self.longest(load).fill(self.shape.ping_pong), communication

    @cached_property
    def _used(self) -> list[RankLayer]:
        names = set(self.spec.layers)
        return [rank for rank in self.ranks if rank.kind.name in names]


@dataclass(frozen=True)
class ExpertGpuBytes:
    """Memory of an expert GPU outside its slots, by part."""

    activations: int
    communication: int
    framework: int


def expert_gpu_bytes(
    spec: ModelSpec,
    precision: Precision,
    gpu: GpuSpec,
    limits: Limits,
    shape: StageShape,
    tokens: int,
) -> ExpertGpuBytes:
    """Buffers of an expert GPU for an iteration of ``tokens`` tokens of the stage."""
    a = value_bytes(precision.activations)[0]
    widest = message = 0
    for ffn in (k.ffn for k in spec.layer_kinds):
        if isinstance(ffn, MoeFfn):
            pairs = _pairs(ffn, shape, tokens)
            width = ceil_div(ffn.intermediate, shape.moe_tp)
            widest = max(widest, pairs * a * (2 * spec.hidden + 2 * width))
            message = max(message, pairs * spec.hidden * a)
    communicator = gpu.calibration.communicator_memory_bytes
    framework = framework_bytes(gpu, limits)
    return ExpertGpuBytes(widest, communicator + 2 * message, framework)


def _pairs(ffn: MoeFfn, shape: StageShape, tokens: int) -> int:
    """Pairs of a token and an expert that fall to one GPU, routing uniform."""
    filled = ffn.experts + shape.redundant
    slots = ceil_div(filled, shape.ep)
    return ceil_div(tokens * ffn.top_k * slots, filled)
