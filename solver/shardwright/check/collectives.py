"""What ranks of a stage send each other (docs/cost-model.md, sections 4 and 8)."""

from __future__ import annotations

from fractions import Fraction

from shardwright.check.exact import Number, bytes_per_value, us_in_s
from shardwright.check.experts import islands_reached
from shardwright.check.rates import crossing_rate, link_rate, start_up
from shardwright.check.stage import Load, StageView, padded_vocabulary
from shardwright.schema.model import MoeFfn


def hidden_bytes(view: StageView, tokens: Number) -> Fraction:
    """The hidden state of so many tokens: n·h·a."""
    value = bytes_per_value(view.instance.precision.activations)
    return tokens * view.instance.model.hidden * value


def all_reduce(view: StageView, ranks: int, message_bytes: Fraction) -> Fraction:
    """α(t) + 2(t − 1)/t·b/(B·e_link) over t > 1 ranks, else 0; over islands, three."""
    if ranks == 1:
        return Fraction(0)
    if (own := _on_each(view)) < ranks:
        ring = 2 * (view.layout.islands - 1)
        return all_reduce(view, own, message_bytes) + _ring(view, ring, message_bytes)
    share = Fraction(2 * (ranks - 1), ranks)
    return start_up(view, ranks) + share * message_bytes / link_rate(view.spec)


def all_gather(view: StageView, ranks: int, message_bytes: Fraction) -> Fraction:
    """α(t) + (t − 1)/t·b/(B·e_link) over t > 1 ranks, else 0; a reduce-scatter too."""
    if ranks == 1:
        return Fraction(0)
    if (own := _on_each(view)) < ranks:
        ring = view.layout.islands - 1
        return all_gather(view, own, message_bytes) + _ring(view, ring, message_bytes)
    share = Fraction(ranks - 1, ranks)
    return start_up(view, ranks) + share * message_bytes / link_rate(view.spec)


def _on_each(view: StageView) -> int:
    """g: GPUs of the stage on each of its islands, at least one."""
    return max(1, view.layout.all_gpus // view.layout.islands)


def _ring(view: StageView, steps: int, message_bytes: Fraction) -> Fraction:
    """steps·(λ_net + b/(g·z·V)) between z islands."""
    z, latency = view.layout.islands, view.spec.calibration.network_latency_us
    own = message_bytes / _on_each(view)
    return steps * (us_in_s(latency) + own / z / crossing_rate(view.spec))


def logit_gather(view: StageView, rows: Fraction) -> Fraction:
    """The parts of r rows of logits, brought together over t ranks."""
    value = bytes_per_value(view.instance.precision.activations)
    message = rows * padded_vocabulary(view.instance.model) * value
    return all_gather(view, view.tp, message)


def after_experts(view: StageView, ffn: MoeFfn, load: Load) -> Fraction:
    """How tokens come to their experts and back, within one copy of the experts."""
    layout = view.layout
    if layout.ranks_per_copy <= 1:
        return all_reduce(view, view.tp, hidden_bytes(view, load.rank_tokens))
    rows = load.rows(layout)
    if layout.ep == 1:
        return 2 * all_gather(view, layout.ranks_per_copy, hidden_bytes(view, rows))
    partial = hidden_bytes(view, Fraction(rows, layout.ep))
    exchange = 2 * _dispatch(view, ffn, rows)
    return exchange + all_reduce(view, layout.moe_tp, partial)


def _dispatch(view: StageView, ffn: MoeFfn, tokens: int) -> Fraction:
    """One way of the exchange; the way back takes as long."""
    layout = view.layout
    own = hidden_bytes(view, Fraction(tokens, layout.moe_tp * layout.ep))
    elsewhere = ffn.top_k * (1 - Fraction(1, layout.ep))
    inside = own * elsewhere / link_rate(view.spec)
    per_island = -(-layout.gpus // layout.islands)
    latency = start_up(view, min(layout.ep, per_island))
    if layout.islands == 1:
        return latency + inside
    latency += us_in_s(view.spec.calibration.network_latency_us)
    reached = islands_reached(ffn, layout.islands)
    return latency + max(inside, own * reached / crossing_rate(view.spec))
