"""Speeds of a GPU type, in bytes and FLOPs per second (docs/cost-model.md, section 4).

Everything is exact; a format without a figure is refused, never guessed.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from shardwright.check.exact import Number, exact, power_norm, us_in_s
from shardwright.check.stage import StageView
from shardwright.schema.cluster import EngineCosts, GpuSpec
from shardwright.schema.errors import FieldError, InvalidInstance

_REMEMBERED = 1024


def hbm_rate(spec: GpuSpec) -> Fraction:
    """BW·e_hbm."""
    return _bytes_per_s(spec.hbm_gbyte_per_s, spec.calibration.hbm_efficiency)


def kv_read_rate(spec: GpuSpec) -> Fraction:
    """BW·e_kv."""
    return _bytes_per_s(spec.hbm_gbyte_per_s, spec.calibration.kv_read_efficiency)


def link_rate(spec: GpuSpec) -> Fraction:
    """B·e_link."""
    return _bytes_per_s(spec.link_gbyte_per_s, spec.calibration.link_efficiency)


def crossing_rate(spec: GpuSpec) -> Fraction:
    """min(N·e_net, B·e_link): data leaves a GPU over its own links first."""
    efficiency = spec.calibration.network_efficiency
    return min(_bytes_per_s(spec.network_gbyte_per_s, efficiency), link_rate(spec))


def matmul_rate(view: StageView, stored: str) -> Fraction:
    """F[d]·e_mm[d]·f for matrices stored in a format."""
    dtype = _compute_format(view, stored)
    table = view.spec.calibration.matmul_efficiency
    peak = _peak_tflops(view, dtype)
    if dtype not in table:
        raise _missing(view, "calibration.matmul_efficiency", dtype, list(table))
    return _flops_per_s(peak, table[dtype], engine_costs(view).compute_factor)


def attention_rate(view: StageView) -> Fraction:
    """F[act]·e_att·f."""
    efficiency = view.spec.calibration.attention_efficiency
    peak = _peak_tflops(view, view.instance.precision.activations)
    return _flops_per_s(peak, efficiency, engine_costs(view).compute_factor)


def unpacked(view: StageView, stored: str) -> Fraction:
    """u_d: u for matrices that are unpacked to be computed with, else 1."""
    if _compute_format(view, stored) == stored:
        return Fraction(1)
    return exact(view.spec.calibration.unpacking_factor)


def joined(view: StageView, first: Number, second: Number) -> Fraction:
    """‖a, b‖ of two times that one kernel takes of two resources."""
    return power_norm(first, second, view.spec.calibration.roofline_exponent)


def engine_costs(view: StageView) -> EngineCosts:
    """The engine's own entry, else vLLM's, else the calibration's three overheads."""
    calibration, engine = view.spec.calibration, view.instance.engine.name
    for name in (engine, "vllm"):
        if name in calibration.engines:
            return calibration.engines[name]
    return EngineCosts(
        layer_overhead_us=calibration.layer_overhead_us,
        step_overhead_us=calibration.step_overhead_us,
        sequence_overhead_us=calibration.sequence_overhead_us,
    )


def start_up(view: StageView, ranks: int) -> Fraction:
    """α: the smallest listed rank count that is enough, else the largest one."""
    table = view.spec.calibration.allreduce_latency_us
    enough = [listed for listed in table if listed >= ranks]
    return us_in_s(table[min(enough) if enough else max(table)])


@lru_cache(maxsize=_REMEMBERED)
def _bytes_per_s(gbyte_per_s: float, efficiency: float) -> Fraction:
    return exact(gbyte_per_s) * 10**9 * exact(efficiency)


@lru_cache(maxsize=_REMEMBERED)
def _flops_per_s(tflops: float, efficiency: float, factor: float) -> Fraction:
    return exact(tflops) * 10**12 * exact(efficiency) * exact(factor)


def _compute_format(view: StageView, stored: str) -> str:
    """The stored format if the GPU computes in it, else the activations'."""
    if stored in view.spec.dense_tflops:
        return stored
    return view.instance.precision.activations


def _peak_tflops(view: StageView, dtype: str) -> float:
    table = view.spec.dense_tflops
    if dtype not in table:
        raise _missing(view, "dense_tflops", dtype, list(table))
    return table[dtype]


def _missing(
    view: StageView, field: str, dtype: str, listed: list[str]
) -> InvalidInstance:
    path = f"cluster.gpu_types ({view.spec.name}).{field}"
    allowed = f"an entry for {dtype} is needed by the precision of the instance"
    error = FieldError(path, f"entries {sorted(listed)}", allowed)
    return InvalidInstance(view.instance.name, [error])
