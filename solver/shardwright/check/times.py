"""Time of one iteration of a stage, and of hops (docs/cost-model.md, section 4).

Everything is computed in exact fractions of a second and rounded up where the page
rounds, so the only tolerance left is for whoever computed the claim in floats.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from shardwright.check.attention import AttentionShard
from shardwright.check.collectives import (
    after_experts,
    all_reduce,
    hidden_bytes,
    logit_gather,
)
from shardwright.check.exact import (
    RELATIVE_TOLERANCE,
    bytes_per_value,
    us_in_s,
    whole_ns,
)
from shardwright.check.experts import expert_seconds
from shardwright.check.rank import attention_of, rank_matrices
from shardwright.check.rates import (
    attention_rate,
    crossing_rate,
    hbm_rate,
    kv_read_rate,
    link_rate,
    matmul_rate,
)
from shardwright.check.stage import Load, StageView, vocabulary_shard
from shardwright.schema.cluster import Calibration
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind, MoeFfn


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


def stage_time(view: StageView, load: Load) -> StageTime:
    """ρ + Σ layers τ_g of one iteration, each term rounded up to ns."""
    total, communication = _constant_ns(view, load)
    communication_terms = int(communication > 0)
    for name, count in Counter(kind.name for kind in view.kinds).items():
        kind = next(kind for kind in view.kinds if kind.name == name)
        layer, layer_communication = _layer_ns(view, kind, load)
        total += count * layer
        communication += count * layer_communication
        communication_terms += count * int(layer_communication > 0)
    return StageTime(total, communication, len(view.kinds) + 1, communication_terms)


def _layer_ns(view: StageView, kind: LayerKind, load: Load) -> tuple[int, int]:
    """τ_g and its part in collectives."""
    if kind.attention is None and kind.ffn is None:
        return 0, 0
    communication = _layer_communication(view, kind, load)
    seconds = _linear(view, kind, load.rank_tokens) + communication
    attention = attention_of(view, kind)
    if attention is not None:
        seconds += _decode_attention(view, attention, load.sequences)
        seconds += _prefill_attention(view, attention, load.prompt)
    if isinstance(kind.ffn, MoeFfn):
        seconds += expert_seconds(view, kind.ffn, load)
    seconds += us_in_s(view.spec.calibration.layer_overhead_us)
    return whole_ns(seconds), whole_ns(communication)


def _layer_communication(view: StageView, kind: LayerKind, load: Load) -> Fraction:
    """After attention, and after the FFN: an all-reduce, or the experts' exchange."""
    reduce = all_reduce(view, view.tp, hidden_bytes(view, load.rank_tokens))
    total = reduce if kind.attention is not None else Fraction(0)
    if isinstance(kind.ffn, MoeFfn):
        return total + after_experts(view, kind.ffn, load)
    return total + reduce if kind.ffn is not None else total


def _constant_ns(view: StageView, load: Load) -> tuple[int, int]:
    """ρ and its collective part."""
    calibration = view.spec.calibration
    seconds = us_in_s(calibration.step_overhead_us)
    seconds += load.sequences * us_in_s(calibration.sequence_overhead_us)
    communication = Fraction(0)
    if view.first:
        embedded = hidden_bytes(view, load.rank_tokens)
        seconds += embedded / hbm_rate(view.spec)
        communication += all_reduce(view, view.tp, embedded)
    if view.last:
        rows = load.sequences + load.prompt / view.mix.computed
        seconds += _head(view, rows)
        communication += logit_gather(view, rows)
    return whole_ns(seconds + communication), whole_ns(communication)


def _linear(view: StageView, kind: LayerKind, tokens: int) -> Fraction:
    """max(Σ 2·P_i·n_r/(F[d_i]·e_mm[d_i]), Σ P_i·w_i/(BW·e_hbm)) over the formats."""
    compute = read = Fraction(0)
    for dtype, weights in rank_matrices(view, kind).items():
        compute += 2 * weights * tokens / matmul_rate(view, dtype)
        read += weights * bytes_per_value(dtype) / hbm_rate(view.spec)
    return max(compute, read)


def _decode_attention(
    view: StageView, attention: AttentionShard, sequences: int
) -> Fraction:
    """The cache read; latent attention may take longer to compute."""
    seen = sequences * _within_window(view.mix.kv_mean, attention)
    kappa = bytes_per_value(view.instance.precision.kv_cache)
    read = seen * attention.cached * kappa / kv_read_rate(view.spec)
    return max(read, seen * attention.latent_flops / attention_rate(view))


def _prefill_attention(
    view: StageView, attention: AttentionShard, tokens: int
) -> Fraction:
    """2·x·min(A, window)·H_t·(D + D_v)/(F[act]·e_att), or as latent heads have it."""
    seen = tokens * _within_window(view.mix.attended, attention)
    return seen * attention.prefill_flops / attention_rate(view)


def _head(view: StageView, rows: Fraction) -> Fraction:
    """max(2·h·V_t·r/(F[act]·e_mm[act]), h·V_t·a/(BW·e_hbm))."""
    model, activations = view.instance.model, view.instance.precision.activations
    weights = model.hidden * vocabulary_shard(model, view.tp)
    compute = 2 * weights * rows / matmul_rate(view, activations)
    return max(compute, weights * bytes_per_value(activations) / hbm_rate(view.spec))


def _within_window(tokens: Fraction, attention: AttentionShard) -> Fraction:
    if attention.window is None:
        return tokens
    return min(tokens, Fraction(attention.window))


def hop_ns(sender: StageView, receiver: StageView, tokens: int, together: bool) -> int:
    """One hop of ``tokens`` tokens: hidden state and residual, rounded up to ns."""
    payload = 2 * hidden_bytes(sender, tokens)
    ends = (sender.spec, receiver.spec)
    if together:
        latency = us_in_s(ends[0].calibration.hop_latency_us)
        return whole_ns(latency + payload / link_rate(ends[0]))
    latency = max(_crossing_latency(spec.calibration) for spec in ends)
    return whole_ns(latency + payload / min(map(crossing_rate, ends)))


def return_ns(instance: Instance) -> int:
    """η_r: the largest network latency of the instance's GPU types."""
    specs = instance.cluster.gpu_types.values()
    return max(whole_ns(us_in_s(spec.calibration.network_latency_us)) for spec in specs)


def _crossing_latency(calibration: Calibration) -> Fraction:
    """A hop between islands takes no less than one inside."""
    return max(
        us_in_s(calibration.network_latency_us), us_in_s(calibration.hop_latency_us)
    )
