"""Time of one stage iteration and of one hop (docs/cost-model.md section 4).

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
from shardwright.cost.memory import (
    FIRST,
    LAST,
    ONLY,
    RankLayer,
    padded_vocabulary,
    value_bytes,
)
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.model import ModelSpec
from shardwright.schema.workload import Precision

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def to_ns(seconds: FloatArray) -> IntArray:
    """Whole nanoseconds, rounded up."""
    return np.ceil(seconds * 1e9).astype(np.int64)


@dataclass(frozen=True)
class StageClock:
    """Iteration times of the stages of one GPU type at one tensor-parallel degree."""

    spec: ModelSpec
    precision: Precision
    mix: RequestMix
    gpu: GpuSpec
    tp: int

    @cached_property
    def _bandwidth(self) -> float:
        return self.gpu.hbm_gbyte_per_s * 1e9

    @cached_property
    def _activation_bytes(self) -> int:
        return value_bytes(self.precision.activations)[0]

    @cached_property
    def _linear_flops(self) -> float:
        """Sustained FLOP/s of linear layers."""
        native = self.precision.weights in self.gpu.dense_tflops
        dtype = self.precision.weights if native else self.precision.activations
        return self._sustained(dtype)

    def _sustained(self, dtype: str) -> float:
        peak = self.gpu.dense_tflops[dtype] * 1e12
        return peak * self.gpu.calibration.matmul_efficiency[dtype]

    @cached_property
    def _allreduce_latency(self) -> float:
        table = self.gpu.calibration.allreduce_latency_us
        at_least = [n for n in table if n >= self.tp]
        return table[min(at_least) if at_least else max(table)] * 1e-6

    @cached_property
    def _link(self) -> float:
        return _link_speed(self.gpu)

    def all_reduce(self, message_bytes: FloatArray) -> FloatArray:
        """Seconds of one all-reduce inside the island; 0 for one rank."""
        if self.tp == 1:
            return np.zeros_like(message_bytes)
        volume = 2 * (self.tp - 1) / self.tp * message_bytes
        return self._allreduce_latency + volume / self._link

    def _logit_gather(self, rows: FloatArray) -> FloatArray:
        if self.tp == 1:
            return np.zeros_like(rows)
        width = padded_vocabulary(self.spec.vocabulary) * self._activation_bytes
        volume = (self.tp - 1) / self.tp * rows * width
        return self._allreduce_latency + volume / self._link

    def layer(
        self, rank: RankLayer, sequences: FloatArray, prompt_tokens: FloatArray
    ) -> tuple[IntArray, IntArray]:
        """Time of one layer, and its communication part, per point."""
        if not rank.collectives:
            nothing = np.zeros(sequences.shape, dtype=np.int64)
            return nothing, nothing
        tokens = sequences + prompt_tokens
        message = tokens * self.spec.hidden * self._activation_bytes
        communication = rank.collectives * self.all_reduce(message)
        seconds = (
            self._linear(rank, tokens)
            + self._decode_attention(rank, sequences)
            + self._prefill_attention(rank, prompt_tokens)
            + communication
            + self.gpu.calibration.layer_overhead_us * 1e-6
        )
        return to_ns(seconds), to_ns(communication)

    def _linear(self, rank: RankLayer, tokens: FloatArray) -> FloatArray:
        numerator, denominator = value_bytes(self.precision.weights)
        compute = 2.0 * rank.matrix_parameters * tokens / self._linear_flops
        read = rank.matrix_parameters * numerator / denominator
        efficiency = self.gpu.calibration.hbm_efficiency
        return np.maximum(compute, read / (self._bandwidth * efficiency))

    def _decode_attention(self, rank: RankLayer, sequences: FloatArray) -> FloatArray:
        context = _windowed(float(self.mix.context_mean), rank)
        read = sequences * context * rank.kv_bytes_per_token(self.precision)
        return read / (self._bandwidth * self.gpu.calibration.kv_read_efficiency)

    def _prefill_attention(
        self, rank: RankLayer, prompt_tokens: FloatArray
    ) -> FloatArray:
        attended = _windowed(float(self.mix.attended_mean), rank)
        flops = 4.0 * prompt_tokens * attended * rank.query_heads * rank.head_dim
        peak = self.gpu.dense_tflops[self.precision.activations] * 1e12
        return flops / (peak * self.gpu.calibration.attention_efficiency)

    def stage_constant(
        self, role: int, sequences: FloatArray, prompt_tokens: FloatArray
    ) -> tuple[IntArray, IntArray]:
        """Time of a stage outside its layers, and its communication part."""
        calibration = self.gpu.calibration
        seconds = calibration.step_overhead_us * 1e-6 + sequences * (
            calibration.sequence_overhead_us * 1e-6
        )
        communication = np.zeros_like(sequences)
        if role in (FIRST, ONLY):
            tokens = sequences + prompt_tokens
            message = tokens * self.spec.hidden * self._activation_bytes
            seconds = seconds + message / (self._bandwidth * calibration.hbm_efficiency)
            communication = communication + self.all_reduce(message)
        if role in (LAST, ONLY):
            rows = sequences + prompt_tokens / float(self.mix.prompt_work)
            seconds = seconds + self._lm_head(rows)
            communication = communication + self._logit_gather(rows)
        return to_ns(seconds + communication), to_ns(communication)

    def _lm_head(self, rows: FloatArray) -> FloatArray:
        width = ceil_div(padded_vocabulary(self.spec.vocabulary), self.tp)
        matrix = self.spec.hidden * width
        compute = 2.0 * matrix * rows / self._sustained(self.precision.activations)
        efficiency = self.gpu.calibration.hbm_efficiency
        read = matrix * self._activation_bytes / (self._bandwidth * efficiency)
        return np.maximum(compute, read)


def _windowed(tokens: float, rank: RankLayer) -> float:
    return tokens if rank.window_tokens is None else min(tokens, rank.window_tokens)


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
        speed = _link_speed(sender)
    else:
        latency_us = max(
            max(g.calibration.network_latency_us, g.calibration.hop_latency_us)
            for g in ends
        )
        speed = min(min(_network_speed(g), _link_speed(g)) for g in ends)
    return lambda tokens: to_ns(latency_us * 1e-6 + tokens * payload_bytes / speed)


def _link_speed(gpu: GpuSpec) -> float:
    return gpu.link_gbyte_per_s * 1e9 * gpu.calibration.link_efficiency


def _network_speed(gpu: GpuSpec) -> float:
    return gpu.network_gbyte_per_s * 1e9 * gpu.calibration.network_efficiency
