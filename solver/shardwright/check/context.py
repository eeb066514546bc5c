"""Collectives of a context group (docs/cost-model.md, section 14)."""

from __future__ import annotations

from fractions import Fraction

from shardwright.check.attention import AttentionShard
from shardwright.check.collectives import all_gather, all_reduce, hidden_bytes
from shardwright.check.exact import bytes_per_value
from shardwright.check.stage import Load, StageView, cuts_cache

LOG_SUM_BYTES = 4


def attention_exchange(
    view: StageView, attention: AttentionShard, load: Load
) -> Fraction:
    """Keys and values of prompts gathered, partial results of decoding merged."""
    if view.layout.cp == 1:
        return Fraction(0)
    return _gathered(view, attention, load) + _merged(view, attention, load)


def _gathered(view: StageView, attention: AttentionShard, load: Load) -> Fraction:
    if not load.prompt:
        return Fraction(0)
    precision = view.instance.precision
    own = load.prompt * bytes_per_value(precision.activations)
    held = Fraction(0)
    if cuts_cache(view):
        held = _preceding(view, attention, load.prompt)
        held *= bytes_per_value(precision.kv_cache)
    return all_gather(view, view.layout.cp, attention.cached * (own + held))


def _preceding(view: StageView, attention: AttentionShard, prompt: int) -> Fraction:
    """u·min(max(0, A − p/2), window): tokens of the cache before those computed."""
    piece = min(prompt, view.point.prompt_part)
    before = max(Fraction(0), view.mix.attended - Fraction(piece, 2))
    if attention.window is not None:
        before = min(before, Fraction(attention.window))
    return Fraction(prompt, piece) * before


def _merged(view: StageView, attention: AttentionShard, load: Load) -> Fraction:
    if not cuts_cache(view) or not load.sequences:
        return Fraction(0)
    cp, value = view.layout.cp, bytes_per_value(view.instance.precision.activations)
    sums = cp * load.sequences * attention.heads * LOG_SUM_BYTES
    outputs = load.sequences * attention.heads * attention.output * value
    gathered = all_gather(view, cp, Fraction(sums))
    return gathered + all_reduce(view, cp, Fraction(outputs))


def returned(view: StageView, load: Load) -> Fraction:
    """Hidden states of prompts, brought to all ranks of the group after the layers."""
    if view.layout.cp == 1 or not load.prompt:
        return Fraction(0)
    return all_gather(view, view.layout.cp, hidden_bytes(view, load.prompt))
