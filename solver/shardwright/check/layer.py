"""What one rank computes in one layer beside routed experts (cost-model, 4 and 8)."""

from __future__ import annotations

from fractions import Fraction

from shardwright.check.attention import AttentionShard
from shardwright.check.collectives import hidden_bytes
from shardwright.check.exact import bytes_per_value, exact, us_in_s
from shardwright.check.rank import attention_of, rank_matrices
from shardwright.check.rates import (
    attention_rate,
    engine_costs,
    hbm_rate,
    joined,
    kv_read_rate,
    matmul_rate,
    unpacked,
)
from shardwright.check.stage import Load, StageView, cache_parts
from shardwright.schema.model import LayerKind


def rank_seconds(view: StageView, kind: LayerKind, load: Load) -> Fraction:
    """The rank's matrices and its attention, without collectives and overheads."""
    seconds = _linear(view, kind, load.rank_tokens)
    attention = attention_of(view, kind)
    if attention is not None:
        seconds += _decode_attention(view, attention, load.sequences)
        seconds += _prefill_attention(view, attention, load.rank_prompt)
    return seconds


def plain_overhead(view: StageView) -> Fraction:
    """o·λ."""
    return _overhead(view, engine_costs(view).layer_overhead_us)


def expert_overhead(view: StageView) -> Fraction:
    """o·(λ + λ_x)."""
    return plain_overhead(view) + _overhead(view, engine_costs(view).expert_overhead_us)


def _overhead(view: StageView, microseconds: float) -> Fraction:
    return exact(view.spec.calibration.overhead_factor) * us_in_s(microseconds)


def _linear(view: StageView, kind: LayerKind, tokens: int) -> Fraction:
    """Matrices of all formats computed and read, and y passes over the hidden state."""
    compute = read = Fraction(0)
    for dtype, weights in rank_matrices(view, kind).items():
        compute += 2 * weights * tokens / matmul_rate(view, dtype)
        read += weights * bytes_per_value(dtype) * unpacked(view, dtype)
    passes = exact(view.spec.calibration.hidden_accesses) * hidden_bytes(view, tokens)
    hbm = hbm_rate(view.spec)
    return joined(view, compute, read / hbm) + passes / hbm


def _decode_attention(
    view: StageView, attention: AttentionShard, sequences: int
) -> Fraction:
    """The cache read, joined with the arithmetic of latent attention."""
    seen = sequences * _within_window(view.mix.kv_mean, attention) / cache_parts(view)
    kappa = bytes_per_value(view.instance.precision.kv_cache)
    read = seen * attention.cached * kappa / kv_read_rate(view.spec)
    compute = seen * attention.latent_flops / attention_rate(view)
    return joined(view, read, compute)


def _prefill_attention(
    view: StageView, attention: AttentionShard, tokens: int
) -> Fraction:
    """2·x·(min(A, window) + A_0)·H_t·(D + D_v)/(F[act]·e_att·f), latent heads alike."""
    ramp = exact(view.spec.calibration.attention_ramp_tokens)
    seen = tokens * (_within_window(view.mix.attended, attention) + ramp)
    return seen * attention.prefill_flops / attention_rate(view)


def _within_window(tokens: Fraction, attention: AttentionShard) -> Fraction:
    if attention.window is None:
        return tokens
    return min(tokens, Fraction(attention.window))
