"""Time of one iteration of a stage, and of hops (docs/cost-model.md, section 4).

Everything is computed in exact fractions of a second and rounded up where the page
rounds, so the only tolerance left is for whoever computed the claim in floats.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from shardwright.check.exact import (
    RELATIVE_TOLERANCE,
    Number,
    bytes_per_value,
    exact,
    us_in_s,
    whole_ns,
)
from shardwright.check.stage import (
    StageView,
    linear_weights,
    padded_vocabulary,
    shard,
    vocabulary_shard,
)
from shardwright.schema.cluster import Calibration, GpuSpec
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.model import Attention, LayerKind


@dataclass(frozen=True)
class StageTime:
    """One iteration of a stage: its time, its share in collectives, the roundings.

    ``terms`` counts the values rounded to whole ns in ``total_ns``,
    ``communication_terms`` those in ``communication_ns``.
    """

    total_ns: int
    communication_ns: int
    terms: int
    communication_terms: int

    def accepts(self, claimed_ns: int) -> bool:
        """True within 1e-9 and 1 ns for each separately rounded term."""
        return abs(claimed_ns - self.total_ns) <= self.allowance_ns()

    def allowance_ns(self) -> Fraction:
        """How far a claim may be off."""
        return self.total_ns * RELATIVE_TOLERANCE + self.terms


def stage_time(view: StageView, prompt_tokens: int) -> StageTime:
    """ρ(m, x) + Σ layers τ_g(m, x), each term rounded up to ns."""
    total, communication = _constant_ns(view, prompt_tokens)
    communication_terms = int(communication > 0)
    for name, count in Counter(kind.name for kind in view.kinds).items():
        kind = next(kind for kind in view.kinds if kind.name == name)
        layer, layer_communication = _layer_ns(view, kind, prompt_tokens)
        total += count * layer
        communication += count * layer_communication
        communication_terms += count * int(layer_communication > 0)
    return StageTime(total, communication, len(view.kinds) + 1, communication_terms)


def _layer_ns(view: StageView, kind: LayerKind, prompt_tokens: int) -> tuple[int, int]:
    """τ_g(m, x) and its all-reduce part."""
    parts = int(kind.gqa is not None) + int(kind.dense is not None)
    if not parts:
        return 0, 0
    tokens = view.point.micro_batch_sequences + prompt_tokens
    communication = parts * _all_reduce(view, _hidden_bytes(view, tokens))
    seconds = _linear(view, kind, tokens) + communication
    if kind.gqa is not None:
        seconds += _decode_attention(view, kind.gqa)
        seconds += _prefill_attention(view, kind.gqa, prompt_tokens)
    seconds += us_in_s(view.spec.calibration.layer_overhead_us)
    return whole_ns(seconds), whole_ns(communication)


def _constant_ns(view: StageView, prompt_tokens: int) -> tuple[int, int]:
    """ρ(m, x) and its collective part."""
    calibration = view.spec.calibration
    m = view.point.micro_batch_sequences
    seconds = us_in_s(calibration.step_overhead_us)
    seconds += m * us_in_s(calibration.sequence_overhead_us)
    communication = Fraction(0)
    if view.first:
        hidden_bytes = _hidden_bytes(view, m + prompt_tokens)
        seconds += hidden_bytes / _hbm_rate(view.spec)
        communication += _all_reduce(view, hidden_bytes)
    if view.last:
        rows = m + prompt_tokens / view.mix.computed
        seconds += _head(view, rows)
        communication += _logit_gather(view, rows)
    return whole_ns(seconds + communication), whole_ns(communication)


def _linear(view: StageView, kind: LayerKind, tokens: int) -> Fraction:
    """max(2·P·n/(F[d]·e_mm[d]), P·w/(BW·e_hbm))."""
    weights = linear_weights(kind, view.instance.model.hidden, view.tp)
    stored = bytes_per_value(view.instance.precision.weights)
    compute = 2 * weights * tokens / _matmul_rate(view, _compute_format(view))
    return max(compute, weights * stored / _hbm_rate(view.spec))


def _decode_attention(view: StageView, attention: Attention) -> Fraction:
    """m·min(E_kv, window)·2·K_t·D·κ/(BW·e_kv)."""
    calibration = view.spec.calibration
    seen = _within_window(view.mix.kv_mean, attention)
    values = 2 * shard(attention.kv_heads, view.tp) * attention.head_dim
    kappa = bytes_per_value(view.instance.precision.kv_cache)
    read = view.point.micro_batch_sequences * seen * values * kappa
    return read / (_hbm(view.spec) * exact(calibration.kv_read_efficiency))


def _prefill_attention(view: StageView, attention: Attention, tokens: int) -> Fraction:
    """4·x·min(A, window)·H_t·D/(F[act]·e_att)."""
    seen = _within_window(view.mix.attended, attention)
    width = shard(attention.heads, view.tp) * attention.head_dim
    efficiency = exact(view.spec.calibration.attention_efficiency)
    peak = _peak_flops(view, view.instance.precision.activations)
    return 4 * tokens * seen * width / (peak * efficiency)


def _head(view: StageView, rows: Fraction) -> Fraction:
    """max(2·h·V_t·r/(F[act]·e_mm[act]), h·V_t·a/(BW·e_hbm))."""
    model, activations = view.instance.model, view.instance.precision.activations
    weights = model.hidden * vocabulary_shard(model, view.tp)
    compute = 2 * weights * rows / _matmul_rate(view, activations)
    return max(compute, weights * bytes_per_value(activations) / _hbm_rate(view.spec))


def _all_reduce(view: StageView, message_bytes: Fraction) -> Fraction:
    """α(t) + 2(t − 1)/t·b/(B·e_link) for t > 1, else 0."""
    if view.tp == 1:
        return Fraction(0)
    share = Fraction(2 * (view.tp - 1), view.tp)
    return _alpha(view) + share * message_bytes / _link_rate(view.spec)


def _logit_gather(view: StageView, rows: Fraction) -> Fraction:
    """α(t) + (t − 1)/t·r·V'·a/(B·e_link) for t > 1, else 0."""
    if view.tp == 1:
        return Fraction(0)
    value = bytes_per_value(view.instance.precision.activations)
    message = rows * padded_vocabulary(view.instance.model) * value
    share = Fraction(view.tp - 1, view.tp)
    return _alpha(view) + share * message / _link_rate(view.spec)


def _alpha(view: StageView) -> Fraction:
    """The smallest listed rank count that is at least t, else the largest one."""
    table = view.spec.calibration.allreduce_latency_us
    enough = [ranks for ranks in table if ranks >= view.tp]
    return us_in_s(table[min(enough) if enough else max(table)])


def _within_window(tokens: Fraction, attention: Attention) -> Fraction:
    if attention.window_tokens is None:
        return tokens
    return min(tokens, Fraction(attention.window_tokens))


def _compute_format(view: StageView) -> str:
    """Weights' format if the GPU computes in it, else the activations'."""
    precision = view.instance.precision
    if precision.weights in view.spec.dense_tflops:
        return precision.weights
    return precision.activations


def _matmul_rate(view: StageView, dtype: str) -> Fraction:
    peak = _peak_flops(view, dtype)
    table = view.spec.calibration.matmul_efficiency
    if dtype not in table:
        raise _missing(view, "calibration.matmul_efficiency", dtype, list(table))
    return peak * exact(table[dtype])


def _peak_flops(view: StageView, dtype: str) -> Fraction:
    table = view.spec.dense_tflops
    if dtype not in table:
        raise _missing(view, "dense_tflops", dtype, list(table))
    return exact(table[dtype]) * 10**12


def _missing(
    view: StageView, field: str, dtype: str, listed: list[str]
) -> InvalidInstance:
    """The page has no time for a format without a figure: refuse, never guess."""
    path = f"cluster.gpu_types ({view.spec.name}).{field}"
    allowed = f"an entry for {dtype} is needed by the precision of the instance"
    error = FieldError(path, f"entries {sorted(listed)}", allowed)
    return InvalidInstance(view.instance.name, [error])


def _hbm(spec: GpuSpec) -> Fraction:
    return exact(spec.hbm_gbyte_per_s) * 10**9


def _hbm_rate(spec: GpuSpec) -> Fraction:
    return _hbm(spec) * exact(spec.calibration.hbm_efficiency)


def _link_rate(spec: GpuSpec) -> Fraction:
    efficiency = exact(spec.calibration.link_efficiency)
    return exact(spec.link_gbyte_per_s) * 10**9 * efficiency


def _network_rate(spec: GpuSpec) -> Fraction:
    efficiency = exact(spec.calibration.network_efficiency)
    return exact(spec.network_gbyte_per_s) * 10**9 * efficiency


def _hidden_bytes(view: StageView, tokens: int) -> Fraction:
    value = bytes_per_value(view.instance.precision.activations)
    return tokens * view.instance.model.hidden * value


def hop_ns(sender: StageView, receiver: StageView, tokens: int, together: bool) -> int:
    """One hop of ``tokens`` tokens: hidden state and residual, rounded up to ns."""
    payload: Number = 2 * _hidden_bytes(sender, tokens)
    here, there = sender.spec, receiver.spec
    if together:
        latency = us_in_s(here.calibration.hop_latency_us)
        return whole_ns(latency + payload / _link_rate(here))
    latency = max(map(_network_latency, (here.calibration, there.calibration)))
    return whole_ns(latency + payload / min(map(_network_rate, (here, there))))


def return_ns(instance: Instance) -> int:
    """η_r: the largest network latency of the instance's GPU types."""
    specs = instance.cluster.gpu_types.values()
    return max(whole_ns(_network_latency(spec.calibration)) for spec in specs)


def _network_latency(calibration: Calibration) -> Fraction:
    return us_in_s(calibration.network_latency_us)
