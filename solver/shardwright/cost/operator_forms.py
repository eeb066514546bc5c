"""The closed forms of operator curves: shapes in, microseconds out.

Every form is a pure function of its parameters (``schema.operators.FORMS``), the
columns of a table of shapes (arrays of one length) and a ``Machine``. Times are in
us, bytes in bytes; ``a ⊕ b`` is the smooth maximum (a^n + b^n)^(1/n) of exponent
``norm``. docs/calibration.md says how each form was chosen and what it was held
against. Published sources of the ideas are named in each docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardwright.schema.operators import OperatorForm, Peaks

FloatArray = NDArray[np.float64]
Shapes = Mapping[str, FloatArray]
Values = Mapping[str, float]

VALUE_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "fp4": 0.5625}
"""Bytes of one value; fp4 with its scale per block of eight."""

RANKS_OF_A_NODE = 8
MLA_LATENT = 576
MLA_DECODE_FLOPS = 2 * 1088
MLA_PREFILL_FLOPS = 2 * (192 + 128)


def tflops_16_bit(peaks: Peaks) -> float:
    """Peak in bf16, or in fp16 where there is no bf16; NaN with neither."""
    tflops = peaks.dense_tflops
    return tflops.get("bf16", tflops.get("fp16", math.nan))


def computes_in(peaks: Peaks, dtype: str) -> bool:
    """Whether the GPU multiplies in the number format of a curve."""
    return not math.isnan(_tflops(peaks, dtype))


def _tflops(peaks: Peaks, dtype: str) -> float:
    if dtype == "bf16":
        return tflops_16_bit(peaks)
    return peaks.dense_tflops.get(dtype.removesuffix("_block"), math.nan)


@dataclass(frozen=True)
class Machine:
    """Peaks of one GPU in bytes and FLOPs per microsecond, for one number format."""

    flops_per_us: float
    attention_flops_per_us: float
    hbm_bytes_per_us: float
    link_bytes_per_us: float
    network_bytes_per_us: float
    value_bytes: float

    @classmethod
    def of(cls, peaks: Peaks, dtype: str) -> Machine:
        """The machine of ``peaks`` in ``dtype``; no FLOPs where it is not native."""
        tflops = _tflops(peaks, dtype)
        return cls(
            tflops * 1e6,
            tflops_16_bit(peaks) * 1e6,
            peaks.hbm_gbyte_per_s * 1e3,
            peaks.link_gbyte_per_s * 1e3,
            peaks.network_gbyte_per_s * 1e3,
            VALUE_BYTES[dtype],
        )


Form = Callable[[Values, Shapes, Machine], FloatArray]


def smooth_max(a: FloatArray, b: FloatArray, norm: float) -> FloatArray:
    """(a^n + b^n)^(1/n) without overflow: the sum for n = 1, for large n the max."""
    top = np.maximum(np.maximum(a, b), 1e-300)
    result: FloatArray = top * ((a / top) ** norm + (b / top) ** norm) ** (1 / norm)
    return result


def _matrix(p: Values, x: Shapes, machine: Machine) -> tuple[FloatArray, FloatArray]:
    """Compute and memory time of (m x k)(k x n), results written as bf16."""
    m, n, k = x["m"], x["n"], x["k"]
    compute = 2 * m * n * k / (machine.flops_per_us * p["mfu"])
    moved = (n * k + m * k) * machine.value_bytes + 2 * m * n
    return compute, moved / (machine.hbm_bytes_per_us * p["hbm_efficiency"])


def _quantize(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """Activations read as bf16 and written as 8 bit before the product."""
    moved = 3 * x["m"] * x["k"]
    return moved / (machine.hbm_bytes_per_us * p["quantize_efficiency"])


def _gemm(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + k·us_per_1000_k/1000 + compute ⊕ memory.

    The second term is the serial loop over k of one tile, which shows where few
    tiles are in flight.
    """
    compute, memory = _matrix(p, x, machine)
    serial = p["us_per_1000_k"] * x["k"] / 1000
    return p["floor_us"] + serial + smooth_max(compute, memory, p["norm"])


def _gemm_quantizing(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """As ``gemm``, plus the pass that quantises the activations."""
    return _gemm(p, x, machine) + _quantize(p, x, machine)


def _gemm_eager(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """host floor ⊕ (max(compute, memory) + quantising pass).

    Launched one by one from the host, which overlaps with the device; two code
    paths with a floor each, at most 16 rows and more.
    """
    compute, memory = _matrix(p, x, machine)
    work = np.maximum(compute, memory) + _quantize(p, x, machine)
    floor = np.where(x["m"] <= 16, p["floor_to_16_rows_us"], p["floor_us"])
    return smooth_max(floor, work, p["norm"])


def _prefill_attention(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + (FLOPs + traffic of Q, K, V, O) ⊕ serial walk over the positions.

    FLOPs = 4·sequences·tokens·attended·heads·head_dim; ``attended`` is the mean
    number of positions that a token attends to (tokens/2 for a causal prompt).
    """
    rows = x["sequences"] * x["tokens"]
    flops = 4 * rows * x["attended"] * x["heads"] * x["head_dim"]
    moved = rows * (2 * x["heads"] + 2 * x["kv_heads"]) * x["head_dim"] * 2
    busy = flops / (machine.attention_flops_per_us * p["mfu"])
    busy = busy + moved / (machine.hbm_bytes_per_us * p["hbm_efficiency"])
    serial = p["us_per_1000_positions"] * x["tokens"] / 1000
    return p["floor_us"] + smooth_max(busy, serial, p["norm"])


def _decode_attention(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + grouped_us + (cache read + per KV head) ⊕ serial walk.

    With as many KV heads as heads the kernel walks the whole context in one block
    (``ungrouped_us_per_1000_positions``); grouped heads share one read of the cache
    and split the context, which costs ``grouped_us`` for the second kernel.
    """
    blocks = x["sequences"] * x["kv_heads"]
    moved = 2 * blocks * x["head_dim"] * x["context"] * x["cache_bytes"]
    read = moved / (machine.hbm_bytes_per_us * p["hbm_efficiency"])
    read = read + p["ns_per_kv_head"] * blocks / 1000
    ungrouped = x["heads"] == x["kv_heads"]
    walk = p["ungrouped_us_per_1000_positions"] * x["context"] / 1000
    start = p["floor_us"] + np.where(ungrouped, 0.0, p["grouped_us"])
    return start + smooth_max(read, np.where(ungrouped, walk, 0.0), p["norm"])


def mla_parameters(heads: FloatArray) -> FloatArray:
    """Matrix parameters of one latent-attention block of DeepSeek-V3, per rank."""
    shared = 7168.0 * (1536 + 576)
    return shared + heads * (1536 * 192 + 512 * 256 + 128 * 7168)


def _mla_matrices(p: Values, rows: FloatArray, x: Shapes, m: Machine) -> FloatArray:
    parameters = x["matrix_parameters"]
    read = parameters * m.value_bytes / (m.hbm_bytes_per_us * p["hbm_efficiency"])
    return np.maximum(read, 2 * rows * parameters / (m.flops_per_us * p["mfu"]))


def _mla_prefill(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + max(weights read, compute) + attention FLOPs + rest per token.

    FLOPs = 2·(nope + rope + value)·heads·tokens·attended.
    """
    rows = x["sequences"] * x["tokens"]
    flops = MLA_PREFILL_FLOPS * rows * x["attended"] * x["heads"]
    attention = flops / (machine.attention_flops_per_us * p["attention_mfu"])
    rest = p["us_per_1000_tokens"] * rows / 1000
    return p["floor_us"] + _mla_matrices(p, rows, x, machine) + attention + rest


def _mla_decode(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + max(weights read, compute) + max(latents read, FLOPs) + rest per token.

    The latent cache is read once for all heads; every head multiplies with it.
    """
    positions = x["sequences"] * x["context"]
    cache = positions * MLA_LATENT * x["cache_bytes"]
    read = cache / (machine.hbm_bytes_per_us * p["cache_efficiency"])
    flops = MLA_DECODE_FLOPS * positions * x["heads"]
    attention = flops / (machine.attention_flops_per_us * p["attention_mfu"])
    matrices = _mla_matrices(p, x["sequences"], x, machine)
    rest = p["us_per_1000_tokens"] * x["sequences"] / 1000
    return p["floor_us"] + matrices + np.maximum(read, attention) + rest


def _moe(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + (woken experts read ⊕ routed pairs computed)·narrow + routed traffic.

    ``woken`` and ``pairs`` are those of the busiest rank. narrow = 1 +
    narrow_columns/intermediate: thin expert matrices fill their tiles badly. Routed
    traffic: ``passes`` over (hidden + intermediate) values of every token-expert pair
    of the group, which the fused kernels touch on every rank.
    """
    width = x["hidden"] + x["intermediate"]
    size = x["matrices"] * x["hidden"] * x["intermediate"]
    read = x["woken"] * size * machine.value_bytes
    read = read / (machine.hbm_bytes_per_us * p["hbm_efficiency"])
    compute = 2 * size * x["pairs"] / (machine.flops_per_us * p["mfu"])
    narrow = 1 + p["narrow_columns"] / x["intermediate"]
    traffic = x["tokens"] * x["top_k"] * width * 2 * p["passes"]
    busy = narrow * smooth_max(read, compute, p["norm"])
    return p["floor_us"] + busy + traffic / machine.hbm_bytes_per_us


def _pipelined(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + per_rank·(n − 1) + v + sqrt(pipeline·v), v = volume over the link.

    sqrt is what a pipeline with the best number of chunks costs beyond its latency
    and volume. ``volume_share`` is 2(n−1)/n for all-reduce, (n−1)/n for the others;
    the sustained link share goes with (n/8)^rank_exponent (reduction in the switch).
    """
    ranks = x["ranks"]
    speed = machine.link_bytes_per_us * p["link_efficiency"]
    sent = x["volume_share"] * x["bytes"]
    volume = sent / (speed * (ranks / 8) ** p["rank_exponent"])
    start = p["floor_us"] + p["per_rank_us"] * (ranks - 1)
    result: FloatArray = start + volume + np.sqrt(p["pipeline_us"] * volume)
    return result


def _one_or_two_shot(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + per_rank·(n − 1) + the lesser of one shot and the pipelined volume.

    One shot: every rank reads the whole message of each other rank.
    """
    ranks = x["ranks"]
    peak = machine.link_bytes_per_us
    once = (ranks - 1) * x["bytes"] / (peak * p["one_shot_efficiency"])
    speed = peak * p["link_efficiency"] * (ranks / 8) ** p["rank_exponent"]
    volume = x["volume_share"] * x["bytes"] / speed
    twice = volume + np.sqrt(p["pipeline_us"] * volume)
    start = p["floor_us"] + p["per_rank_us"] * (ranks - 1)
    result: FloatArray = start + np.minimum(once, twice)
    return result


def distinct_others(top_k: FloatArray, groups: FloatArray | float) -> FloatArray:
    """Other groups (ranks, nodes) that hold an expert of a token, uniform routing."""
    result: FloatArray = (groups - 1) * (1 - (1 - 1 / groups) ** top_k)
    return result


def _exchange(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor ⊕ (launch + bytes/link + rest per token), ``bytes`` leaving a GPU."""
    sent = x["bytes"] / (machine.link_bytes_per_us * p["link_efficiency"])
    work = p["launch_us"] + sent + p["us_per_1000_tokens"] * x["tokens"] / 1000
    return smooth_max(np.full_like(work, p["floor_us"]), work, p["norm"])


def _exchange_by_sm(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + v + sqrt(pipeline·v), v = bytes over SMs ⊕ bytes over the link."""
    by_sm = x["bytes"] / (x["sms"] * p["sm_gbyte_per_s"] * 1e3)
    by_link = x["bytes"] / (machine.link_bytes_per_us * p["link_efficiency"])
    volume = smooth_max(by_sm, by_link, p["norm"])
    result: FloatArray = p["floor_us"] + volume + np.sqrt(p["pipeline_us"] * volume)
    return result


def _exchange_by_sm_nodes(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + per_doubling·log2(nodes) + bytes over SMs ⊕ bytes over the network.

    The network share falls with (nodes/2)^contention_exponent.
    """
    nodes = x["nodes"]
    by_sm = x["bytes"] / (x["sms"] * p["sm_gbyte_per_s"] * 1e3)
    speed = machine.network_bytes_per_us * p["network_efficiency"]
    across = x["bytes_across"] / (speed * (nodes / 2) ** -p["contention_exponent"])
    start = p["floor_us"] + p["per_doubling_us"] * np.log2(nodes)
    result: FloatArray = start + smooth_max(by_sm, across, p["norm"])
    return result


def _exchange_low_latency(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor ⊕ (us_per_local_expert·experts of the rank + bytes/link)."""
    sent = x["bytes"] / (machine.link_bytes_per_us * p["link_efficiency"])
    work = sent + p["us_per_local_expert"] * x["local_experts"]
    return smooth_max(np.full_like(work, p["floor_us"]), work, p["norm"])


def _exchange_low_latency_nodes(p: Values, x: Shapes, machine: Machine) -> FloatArray:
    """floor + network_us[nodes > 1] + max(bytes inside/link, bytes across/network)."""
    inside = x["bytes"] / x["nodes"]
    across = x["bytes"] * (1 - 1 / x["nodes"])
    start = p["floor_us"] + np.where(x["nodes"] > 1, p["network_us"], 0.0)
    return start + np.maximum(
        inside / (machine.link_bytes_per_us * p["link_efficiency"]),
        across / (machine.network_bytes_per_us * p["network_efficiency"]),
    )


EVALUATE: dict[OperatorForm, Form] = {
    "gemm": _gemm,
    "gemm_quantizing": _gemm_quantizing,
    "gemm_eager": _gemm_eager,
    "prefill_attention": _prefill_attention,
    "decode_attention": _decode_attention,
    "mla_prefill": _mla_prefill,
    "mla_decode": _mla_decode,
    "moe": _moe,
    "pipelined": _pipelined,
    "one_or_two_shot": _one_or_two_shot,
    "exchange": _exchange,
    "exchange_by_sm": _exchange_by_sm,
    "exchange_by_sm_nodes": _exchange_by_sm_nodes,
    "exchange_low_latency": _exchange_low_latency,
    "exchange_low_latency_nodes": _exchange_low_latency_nodes,
}
