"""Time of one stage iteration and of one hop (docs/cost-model.md sections 4 and 8).

Everything is computed for whole arrays of operating points at once; results are
int64 nanoseconds, rounded up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.lengths import RequestMix, ceil_div
from shardwright.cost.links import Links, link_speed, network_speed
from shardwright.cost.memory import FIRST, LAST, ONLY, padded_vocabulary
from shardwright.cost.rank import AttentionRank, ExpertRank, RankLayer, value_bytes
from shardwright.cost.shape import StageShape
from shardwright.schema.cluster import GpuSpec
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

    ``sequences`` and ``prompts`` of one attention rank; ``tokens`` of the stage.
    """

    sequences: FloatArray
    prompts: FloatArray
    tokens: FloatArray

    @classmethod
    def balanced(cls, m: FloatArray, x: FloatArray, attn_dp: int) -> Load:
        """Prompt work spread over the attention ranks."""
        return cls(np.ceil(m / attn_dp), np.ceil(x / attn_dp), m + x)

    @classmethod
    def lone_chunk(cls, m: FloatArray, x: FloatArray, attn_dp: int) -> Load:
        """The chunk of one prompt, on one attention rank."""
        return cls(np.ceil(m / attn_dp), x, m + x)

    @property
    def rank_tokens(self) -> FloatArray:
        """Tokens of one attention rank."""
        return self.sequences + self.prompts


@dataclass(frozen=True)
class StageClock:
    """Iteration times of the stages of one GPU type in one shape."""

    spec: ModelSpec
    precision: Precision
    mix: RequestMix
    gpu: GpuSpec
    shape: StageShape

    @cached_property
    def _bandwidth(self) -> float:
        return self.gpu.hbm_gbyte_per_s * 1e9

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
        return peak * self.gpu.calibration.matmul_efficiency[dtype]

    def layer(self, rank: RankLayer, load: Load) -> tuple[IntArray, IntArray]:
        """Time of one layer, and its communication part, per point."""
        if rank.attention is None and not rank.has_ffn:
            nothing = np.zeros(load.tokens.shape, dtype=np.int64)
            return nothing, nothing
        communication = self._communication(rank, load)
        seconds = (
            self._matrices(rank, load.rank_tokens)
            + communication
            + self.gpu.calibration.layer_overhead_us * 1e-6
        )
        if rank.attention is not None:
            seconds = seconds + self._decode_attention(rank, load.sequences)
            seconds = seconds + self._prefill_attention(rank.attention, load.prompts)
        if rank.experts is not None:
            seconds = seconds + self._experts(rank.experts, load.tokens)
        return to_ns(seconds), to_ns(communication)

    def _communication(self, rank: RankLayer, load: Load) -> FloatArray:
        width = self.spec.hidden * self._activation_bytes
        one = self.links.all_reduce(load.rank_tokens * width, self.shape.tp)
        total = np.zeros_like(load.tokens)
        if rank.attention is not None:
            total = total + one
        if rank.experts is not None and self.shape.attn_dp > 1:
            return total + self.links.exchange(load.tokens, width, rank.experts)
        return total + one if rank.has_ffn else total

    def _matrices(self, rank: RankLayer, tokens: FloatArray) -> FloatArray:
        per_token, read = 0.0, 0.0
        for parameters, dtype in rank.matrices:
            numerator, denominator = value_bytes(dtype)
            per_token += 2.0 * parameters / self._sustained(dtype)
            read += parameters * numerator / denominator
        efficiency = self.gpu.calibration.hbm_efficiency
        return np.maximum(per_token * tokens, read / (self._bandwidth * efficiency))

    def _experts(self, experts: ExpertRank, tokens: FloatArray) -> FloatArray:
        """Busiest GPU: its pairs computed, or its woken experts read."""
        numerator, denominator = value_bytes(experts.dtype)
        mine = np.ceil(tokens / self.shape.moe_dp)
        pairs = mine * experts.top_k / self.shape.ep * experts.balance
        asleep = (1 - experts.top_k / experts.experts) ** mine
        read = experts.slots * (1 - asleep) * experts.parameters
        compute = 2.0 * experts.parameters * pairs / self._sustained(experts.dtype)
        speed = self._bandwidth * self.gpu.calibration.hbm_efficiency
        return np.maximum(compute, read * numerator / denominator / speed)

    def _decode_attention(self, rank: RankLayer, sequences: FloatArray) -> FloatArray:
        assert rank.attention is not None
        context = _windowed(float(self.mix.context_mean), rank.attention)
        read = sequences * context * rank.kv_bytes_per_token(self.precision)
        efficiency = self.gpu.calibration.kv_read_efficiency
        flops = sequences * context * rank.attention.decode_flops
        compute = flops / self._attention_flops
        return np.maximum(read / (self._bandwidth * efficiency), compute)

    @cached_property
    def _attention_flops(self) -> float:
        peak = self.gpu.dense_tflops[self.precision.activations] * 1e12
        return peak * self.gpu.calibration.attention_efficiency

    def _prefill_attention(
        self, attention: AttentionRank, prompt_tokens: FloatArray
    ) -> FloatArray:
        attended = _windowed(float(self.mix.attended_mean), attention)
        flops = float(attention.prefill_flops) * prompt_tokens * attended
        return flops / self._attention_flops

    def stage_constant(self, role: int, load: Load) -> tuple[IntArray, IntArray]:
        """Time of a stage outside its layers, and its communication part."""
        calibration = self.gpu.calibration
        seconds = calibration.step_overhead_us * 1e-6 + load.sequences * (
            calibration.sequence_overhead_us * 1e-6
        )
        communication = np.zeros_like(load.sequences)
        if role in (FIRST, ONLY):
            message = load.rank_tokens * self.spec.hidden * self._activation_bytes
            seconds = seconds + message / (self._bandwidth * calibration.hbm_efficiency)
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
        return to_ns(seconds + communication), to_ns(communication)

    def _lm_head(self, rows: FloatArray) -> FloatArray:
        width = ceil_div(padded_vocabulary(self.spec.vocabulary), self.shape.tp)
        matrix = self.spec.hidden * width
        compute = 2.0 * matrix * rows / self._sustained(self.precision.activations)
        efficiency = self.gpu.calibration.hbm_efficiency
        read = matrix * self._activation_bytes / (self._bandwidth * efficiency)
        return np.maximum(compute, read)


def _windowed(tokens: float, attention: AttentionRank) -> float:
    window = attention.window_tokens
    return tokens if window is None else min(tokens, window)


def hop_ns(
    spec: ModelSpec,
    precision: Precision,
    sender: GpuSpec,
    receiver: GpuSpec,
    same_island: bool,
) -> Callable[[FloatArray], IntArray]:
    """Hop time as a function of the tokens carried, between two GPU types."""
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
        speed = min(network_speed(g) for g in ends)
    return lambda tokens: to_ns(latency_us * 1e-6 + tokens * payload_bytes / speed)
