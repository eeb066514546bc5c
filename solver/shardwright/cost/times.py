"""Time of one stage iteration and of one hop (docs/cost-model.md sections 4 and 8).

Everything is computed for whole arrays of operating points at once; results are
int64 nanoseconds, rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shardwright.cost import terms
from shardwright.cost.lengths import RequestMix, ceil_div
from shardwright.cost.links import Links, link_speed, network_speed
from shardwright.cost.memory import FIRST, LAST, ONLY, padded_vocabulary
from shardwright.cost.rank import AttentionRank, ExpertRank, RankLayer, value_bytes
from shardwright.cost.shape import StageShape
from shardwright.schema.cluster import Calibration, EngineCosts, GpuSpec
from shardwright.schema.model import ModelSpec
from shardwright.schema.workload import Precision

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def to_ns(seconds: FloatArray) -> IntArray:
    """Whole nanoseconds, rounded up."""
    return np.ceil(seconds * 1e9).astype(np.int64)


@dataclass(frozen=True)
class Load:
    """Tokens of one iteration, per operating point.

    ``sequences`` and ``prompts`` of the fullest attention rank, or of its context
    group, whose ranks share the prompts; ``tokens`` of the stage. ``share``: of the
    iterations that carry the prompts, the others carry the sequences alone and
    ``decoding`` tokens; None: all of them do.
    """

    sequences: FloatArray
    prompts: FloatArray
    tokens: FloatArray
    decoding: FloatArray
    share: FloatArray | None = None

    @classmethod
    def balanced(
        cls, m: FloatArray, c: FloatArray, chunk: FloatArray, attn_dp: int
    ) -> Load:
        """c prompt tokens per iteration on average, in whole chunks of prompts.

        A chunk lies on one attention rank, and the ranks take theirs together; where
        more arrive per iteration, every iteration carries them.
        """
        carried = np.maximum(np.minimum(m, attn_dp) * chunk, c)
        fullest = np.maximum(chunk, np.ceil(carried / attn_dp))
        return cls(np.ceil(m / attn_dp), fullest, m + carried, m, c / carried)

    @classmethod
    def lone_chunk(cls, m: FloatArray, x: FloatArray, attn_dp: int) -> Load:
        """The chunk of one prompt, on one attention rank."""
        return cls(np.ceil(m / attn_dp), x, m + x, m)

    def rank_prompts(self, cp: int) -> FloatArray:
        """Prompt tokens of one of ``cp`` ranks of a context group."""
        return self.prompts if cp == 1 else np.ceil(self.prompts / cp)

    def rank_tokens(self, cp: int) -> FloatArray:
        """Tokens of one rank: decoding is the same work on all of a context group."""
        return self.sequences + self.rank_prompts(cp)

    def rows(self, shape: StageShape) -> FloatArray:
        """Rows that the fullest copy of the experts sees: those of all its ranks."""
        ranks, cp = shape.ranks_per_copy, shape.cp
        decoding = np.minimum(ranks * self.sequences, cp * self.decoding)
        prompts = self.tokens - self.decoding
        return decoding + np.minimum(ranks * self.rank_prompts(cp), prompts)

    @cached_property
    def without_prompts(self) -> Load:
        """The iteration that carries the decoding sequences alone."""
        return Load(
            self.sequences, np.zeros_like(self.prompts), self.decoding, self.decoding
        )


@dataclass(frozen=True)
class StageClock:
    """Iteration times of the stages of one GPU type in one shape."""

    spec: ModelSpec
    precision: Precision
    mix: RequestMix
    gpu: GpuSpec
    shape: StageShape
    engine: str = "generic"

    @cached_property
    def _constants(self) -> Calibration:
        return self.gpu.calibration

    @cached_property
    def _engine(self) -> EngineCosts:
        return self._constants.engine(self.engine)

    @cached_property
    def _weight_speed(self) -> float:
        """Bytes/s at which weights and hidden states are read."""
        return self.gpu.hbm_gbyte_per_s * 1e9 * self._constants.hbm_efficiency

    @cached_property
    def _activation_bytes(self) -> int:
        return value_bytes(self.precision.activations)[0]

    @cached_property
    def links(self) -> Links:
        """Collectives of the stage."""
        return Links(self.gpu, self.shape)

    def _sustained(self, dtype: str) -> float:
        """FLOP/s of matrices in a format; weight-only where it is not native."""
        if dtype not in self.gpu.dense_tflops:
            dtype = self.precision.activations
        peak = self.gpu.dense_tflops[dtype] * 1e12
        efficiency = self._constants.matmul_efficiency[dtype]
        return peak * efficiency * self._engine.compute_factor

    def _stored_bytes(self, parameters: float, dtype: str) -> float:
        """Bytes read for weights; a format that is unpacked first reads slower."""
        numerator, denominator = value_bytes(dtype)
        native = dtype in self.gpu.dense_tflops
        slower = 1.0 if native else self._constants.unpacking_factor
        return parameters * numerator / denominator * slower

    def _joined(self, first: FloatArray, second: FloatArray | float) -> FloatArray:
        exponent = self._constants.roofline_exponent
        return terms.joined(first, second, exponent)

    def layer(self, rank: RankLayer, load: Load) -> tuple[IntArray, IntArray]:
        """Time of one layer, and its communication part, per point."""
        if rank.attention is None and not rank.has_ffn:
            nothing = np.zeros(load.tokens.shape, dtype=np.int64)
            return nothing, nothing
        return mean_ns(lambda one: self.layer_s(rank, one), load)

    def layer_s(self, rank: RankLayer, load: Load) -> tuple[FloatArray, FloatArray]:
        """Seconds of one layer that carries all of a load, and of its collectives."""
        communication = self._communication(rank, load)
        seconds = (
            self._matrices(rank, load.rank_tokens(self.shape.cp))
            + communication
            + self._overhead(rank)
        )
        if rank.attention is not None:
            seconds = seconds + self._decode_attention(rank, load.sequences)
            prompts = load.rank_prompts(self.shape.cp)
            seconds = seconds + self._prefill_attention(rank.attention, prompts)
        if rank.experts is not None:
            rows = load.rows(self.shape)
            seconds = seconds + self._experts(rank.experts, rows, load.tokens)
        return seconds, communication

    def experts_s(self, rank: RankLayer, tokens: FloatArray) -> FloatArray:
        """Seconds of the routed experts of a layer on GPUs of their own."""
        assert rank.experts is not None
        return self._experts(rank.experts, tokens, tokens) + self._overhead(rank)

    def _overhead(self, rank: RankLayer) -> float:
        overhead = self._engine.layer_overhead_us
        if rank.experts is not None:
            overhead += self._engine.expert_overhead_us
        return self._constants.overhead_factor * overhead * 1e-6

    def _communication(self, rank: RankLayer, load: Load) -> FloatArray:
        width = self.spec.hidden * self._activation_bytes
        shape = self.shape
        reduced = load.rank_tokens(shape.cp) * width
        one = self.links.all_reduce(reduced, shape.tp)
        total = np.zeros_like(load.tokens)
        if rank.attention is not None:
            total = total + one
            if shape.cp > 1:
                total = total + self.gathered_s(rank, load) + self.merged_s(rank, load)
        if rank.experts is not None and shape.ranks_per_copy > 1:
            rows = load.rows(shape)
            return total + self.links.exchange(rows, width, rank.experts)
        return total + one if rank.has_ffn else total

    def gathered_bytes(self, rank: RankLayer, load: Load) -> FloatArray:
        """Keys and values of a group's prompts, and those of the cache that it cuts."""
        assert rank.attention is not None
        values = rank.attention.kv_values
        size = load.prompts * (values * self._activation_bytes)
        if self.shape.kv_shards > 1:
            window = rank.attention.window_tokens
            tokens = terms.context_before(
                load.prompts,
                float(self.mix.carried_prompt),
                float(self.mix.attended_mean),
                np.inf if window is None else window,
            )
            size = size + tokens * rank.kv_bytes_per_token(self.precision)
        return size

    def gathered_s(self, rank: RankLayer, load: Load) -> FloatArray:
        """Seconds until all ranks of a context group have the prompts' keys, values."""
        size = self.gathered_bytes(rank, load)
        seconds = self.links.all_gather(size, self.shape.cp)
        return np.where(load.prompts > 0, seconds, 0.0)

    def merged_bytes(
        self, rank: RankLayer, load: Load
    ) -> tuple[FloatArray, FloatArray]:
        """Log-sum-exps gathered and partial outputs reduced over a context group."""
        assert rank.attention is not None
        sums = 4.0 * self.shape.cp * rank.attention.heads * load.sequences
        outputs = rank.attention.merged_values * self._activation_bytes
        return sums, outputs * load.sequences

    def merged_s(self, rank: RankLayer, load: Load) -> FloatArray:
        """Seconds in which partial decode attention is put together."""
        if self.shape.kv_shards == 1:
            return np.zeros_like(load.sequences)
        sums, outputs = self.merged_bytes(rank, load)
        seconds = self.links.all_gather(sums, self.shape.cp)
        seconds = seconds + self.links.all_reduce(outputs, self.shape.cp)
        return np.where(load.sequences > 0, seconds, 0.0)

    def _matrices(self, rank: RankLayer, tokens: FloatArray) -> FloatArray:
        per_token, read = 0.0, 0.0
        for parameters, dtype in rank.matrices:
            per_token += 2.0 * parameters / self._sustained(dtype)
            read += self._stored_bytes(parameters, dtype)
        hidden = self._constants.hidden_accesses * (
            tokens * self.spec.hidden * self._activation_bytes / self._weight_speed
        )
        return self._joined(per_token * tokens, read / self._weight_speed) + hidden

    def _experts(
        self, experts: ExpertRank, rows: FloatArray, tokens: FloatArray
    ) -> FloatArray:
        """Busiest GPU: its pairs computed, or its woken experts read.

        Of the rows of a copy's ranks at most ``tokens`` are different ones.
        """
        pairs = rows * experts.top_k / self.shape.ep * experts.balance
        unlike = np.minimum(rows, tokens)
        awake = experts.slots * terms.woken(experts.experts, experts.top_k, unlike)
        rows = np.maximum(pairs, awake * self._constants.expert_tile_rows)
        compute = 2.0 * experts.parameters * rows / self._sustained(experts.dtype)
        read = awake * self._stored_bytes(experts.parameters, experts.dtype)
        return self._joined(compute, read / self._weight_speed)

    def _decode_attention(self, rank: RankLayer, sequences: FloatArray) -> FloatArray:
        assert rank.attention is not None
        context = _windowed(float(self.mix.context_mean), rank.attention)
        context /= self.shape.kv_shards
        read = sequences * context * rank.kv_bytes_per_token(self.precision)
        speed = self.gpu.hbm_gbyte_per_s * 1e9 * self._constants.kv_read_efficiency
        flops = sequences * context * rank.attention.decode_flops
        return self._joined(read / speed, flops / self._attention_flops)

    @cached_property
    def _attention_flops(self) -> float:
        peak = self.gpu.dense_tflops[self.precision.activations] * 1e12
        efficiency = self._constants.attention_efficiency
        return peak * efficiency * self._engine.compute_factor

    def _prefill_attention(
        self, attention: AttentionRank, prompt_tokens: FloatArray
    ) -> FloatArray:
        attended = _windowed(float(self.mix.attended_mean), attention)
        attended += self._constants.attention_ramp_tokens
        flops = float(attention.prefill_flops) * prompt_tokens * attended
        return flops / self._attention_flops

    def stage_constant(self, role: int, load: Load) -> tuple[IntArray, IntArray]:
        """Time of a stage outside its layers, and its communication part."""
        return mean_ns(lambda one: self.constant_s(role, one), load)

    def constant_s(self, role: int, load: Load) -> tuple[FloatArray, FloatArray]:
        """Seconds of a stage that carries all of a load, outside its layers."""
        seconds = self._engine.step_overhead_us * 1e-6 + load.sequences * (
            self._engine.sequence_overhead_us * 1e-6
        )
        communication = np.zeros_like(load.sequences)
        if role in (FIRST, ONLY):
            tokens = load.rank_tokens(self.shape.cp)
            message = tokens * self.spec.hidden * self._activation_bytes
            seconds = seconds + message / self._weight_speed
            communication = communication + self.links.all_reduce(
                message, self.shape.tp
            )
        if role in (LAST, ONLY):
            rows = load.sequences + load.prompts / float(self.mix.prompt_work)
            width = padded_vocabulary(self.spec.vocabulary) * self._activation_bytes
            seconds = seconds + self._lm_head(rows)
            communication = communication + self.links.all_gather(
                rows * width, self.shape.tp
            )
            communication = communication + self.returned_s(load)
        return seconds + communication, communication

    def returned_s(self, load: Load) -> FloatArray:
        """Seconds in which a context group's ranks get all hidden states of prompts."""
        size = load.prompts * self.spec.hidden * self._activation_bytes
        return np.where(
            load.prompts > 0, self.links.all_gather(size, self.shape.cp), 0.0
        )

    def _lm_head(self, rows: FloatArray) -> FloatArray:
        width = ceil_div(padded_vocabulary(self.spec.vocabulary), self.shape.tp)
        matrix = self.spec.hidden * width
        compute = 2.0 * matrix * rows / self._sustained(self.precision.activations)
        return self._joined(
            compute, matrix * self._activation_bytes / self._weight_speed
        )


def mean_ns(
    times: Callable[[Load], tuple[FloatArray, FloatArray]], load: Load
) -> tuple[IntArray, IntArray]:
    """Means over the iterations with and without the prompts of a load, in ns."""
    with_prompts = times(load)
    if load.share is None:
        return to_ns(with_prompts[0]), to_ns(with_prompts[1])
    alone = times(load.without_prompts)
    total, communication = (
        to_ns(rest + load.share * (full - rest))
        for full, rest in zip(with_prompts, alone, strict=True)
    )
    return total, communication


def _windowed(tokens: float, attention: AttentionRank) -> float:
    window = attention.window_tokens
    return tokens if window is None else min(tokens, window)


def hop_ns(
    spec: ModelSpec,
    precision: Precision,
    sender: GpuSpec,
    receiver: GpuSpec,
    same_island: bool,
    told_bytes_per_s: float = math.inf,
) -> Callable[[FloatArray], IntArray]:
    """Hop time as a function of the tokens carried, between two GPU types.

    ``told_bytes_per_s`` is what the cluster's topology has between two islands.
    """
    payload_bytes = 2 * spec.hidden * value_bytes(precision.activations)[0]
    ends = (sender, receiver)
    if same_island:
        latency_us = sender.calibration.hop_latency_us
        speed = link_speed(sender)
    else:
        latency_us = max(
            max(g.calibration.network_latency_us, g.calibration.hop_latency_us)
            for g in ends
        )
        speed = min(told_bytes_per_s, *(network_speed(g) for g in ends))
    return lambda tokens: to_ns(latency_us * 1e-6 + tokens * payload_bytes / speed)
