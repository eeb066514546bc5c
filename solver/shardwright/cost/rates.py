"""Constants of GPU types and engines as columns over many deployments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.links import link_speed, network_speed, start_up_s
from shardwright.schema.cluster import GpuSpec

FloatArray = NDArray[np.float64]

FORMATS = ("bf16", "fp16", "fp8", "int8", "fp4", "int4")
_RANKS = tuple(2**k for k in range(11))


@dataclass(frozen=True)
class Rates:
    """Constants of the GPU type and engine of every deployment, as columns (D, 1)."""

    columns: dict[str, FloatArray]
    flops: FloatArray
    start_up: FloatArray

    @classmethod
    def of(cls, parts: Sequence[tuple[GpuSpec, str]]) -> Rates:
        """Constants of pairs of a GPU type and an engine."""
        known: dict[tuple[int, str], int] = {}
        distinct: list[tuple[GpuSpec, str]] = []
        index = np.empty(len(parts), dtype=np.int64)
        for i, (gpu, engine) in enumerate(parts):
            key = (id(gpu), engine)
            if key not in known:
                known[key] = len(distinct)
                distinct.append((gpu, engine))
            index[i] = known[key]
        rows = [_constants(gpu, engine) for gpu, engine in distinct]
        columns = {
            name: np.array([row[name] for row in rows])[index][:, None]
            for name in rows[0]
        }
        flops = np.array([_matmul_flops(*pair) for pair in distinct])[index]
        start = np.array([_start_ups(gpu) for gpu, _ in distinct])[index]
        return cls(columns, flops, start)

    def latency(self, ranks: FloatArray) -> FloatArray:
        """Start-up of a collective of so many ranks, (D, 1)."""
        step = np.ceil(np.log2(np.maximum(ranks, 1))).astype(np.int64)
        return np.take_along_axis(self.start_up, step, axis=1)


def _constants(gpu: GpuSpec, engine: str) -> dict[str, float]:
    c, e = gpu.calibration, gpu.calibration.engine(engine)
    attention = {k: gpu.dense_tflops.get(k, 0.0) for k in ("bf16", "fp16")}
    peak = max(attention.values()) * 1e12
    return {
        "weights": gpu.hbm_gbyte_per_s * 1e9 * c.hbm_efficiency,
        "kv": gpu.hbm_gbyte_per_s * 1e9 * c.kv_read_efficiency,
        "attention": peak * c.attention_efficiency * e.compute_factor,
        "link": link_speed(gpu),
        "network": network_speed(gpu),
        "exponent": c.roofline_exponent,
        "accesses": c.hidden_accesses,
        "ramp": c.attention_ramp_tokens,
        "unpacking": c.unpacking_factor,
        "tile": c.expert_tile_rows,
        "layer": c.overhead_factor * e.layer_overhead_us * 1e-6,
        "experts": c.overhead_factor * e.expert_overhead_us * 1e-6,
        "step": e.step_overhead_us * 1e-6,
        "sequence": e.sequence_overhead_us * 1e-6,
        "request": e.request_overhead_ms * 1e-3,
        "admission": e.admission_steps,
        "cold_start": e.cold_start_s,
        "hop": c.hop_latency_us * 1e-6,
        "network_latency": c.network_latency_us * 1e-6,
    }


def _matmul_flops(gpu: GpuSpec, engine: str) -> list[float]:
    factor = gpu.calibration.engine(engine).compute_factor
    efficiency = gpu.calibration.matmul_efficiency
    return [
        gpu.dense_tflops[d] * 1e12 * efficiency[d] * factor
        if d in gpu.dense_tflops and d in efficiency
        else 1.0
        for d in FORMATS
    ]


def _start_ups(gpu: GpuSpec) -> list[float]:
    return [start_up_s(gpu, ranks) for ranks in _RANKS]
