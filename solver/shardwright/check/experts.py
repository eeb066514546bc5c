"""Experts of one layer on one GPU: slots, weights, time (cost-model, section 8)."""

from __future__ import annotations

import math
from fractions import Fraction

from shardwright.check.exact import bytes_per_value, exact
from shardwright.check.maps import balanced
from shardwright.check.rank import stored_format
from shardwright.check.rates import hbm_rate, joined, matmul_rate, unpacked
from shardwright.check.stage import Load, StageView, expert_blocks, shard
from shardwright.schema.instance import Instance
from shardwright.schema.model import MoeFfn

EVEN_ENGINES = ("sglang", "trtllm")
"""Engines whose GPUs hold equally many experts: redundant ones fill the slots up."""

SHARE_DIGITS = 40
"""Decimals to which the share of experts asleep is cut; ns need about fifteen."""


def least_slots(experts: int, ep: int) -> int:
    """⌈E/e⌉: slots of a GPU without more redundant experts than it takes."""
    return shard(experts, ep)


def fills_slots(instance: Instance, ep: int) -> bool:
    """True where e must divide E + R: by the engine, or to balance known loads."""
    return instance.engine.name in EVEN_ENGINES or balanced(instance, ep)


def redundant(instance: Instance, slots: int, ep: int, experts: int) -> int:
    """R, which a plan states by its slots alone: s = ⌈(E + R)/e⌉."""
    more = slots > least_slots(experts, ep)
    fills = fills_slots(instance, ep) or (instance.engine.name == "generic" and more)
    return max(0, slots * ep - experts) if fills else 0


def slots_of(view: StageView, ffn: MoeFfn) -> int:
    """s of a layer: the plan's, which are of the layers with the most experts.

    A layer with fewer experts has as many slots fewer as it takes at the least.
    """
    counts = (block.experts for block in expert_blocks(view.instance.model))
    most, ep = max(counts, default=ffn.experts), view.layout.ep
    fewer = least_slots(most, ep) - least_slots(ffn.experts, ep)
    return max(0, view.layout.slots - fewer)


def balance(view: StageView, ffn: MoeFfn) -> Fraction:
    """β, load of the busiest GPU over the mean: the map's, else s·e/(E + R)."""
    if view.layout.balance is not None:
        return view.layout.balance
    slots = slots_of(view, ffn)
    return Fraction(slots * view.layout.ep, held_experts(view, ffn))


def held_experts(view: StageView, ffn: MoeFfn) -> int:
    """E + R."""
    slots, ep = slots_of(view, ffn), view.layout.ep
    return ffn.experts + redundant(view.instance, slots, ep, ffn.experts)


def slot_weights(view: StageView, ffn: MoeFfn) -> int:
    """X: the matrix weights of one slot."""
    inner = shard(ffn.intermediate, view.layout.moe_tp)
    return ffn.matrices * view.instance.model.hidden * inner


def slot_small(view: StageView, ffn: MoeFfn) -> int:
    """The biases of one slot."""
    if not ffn.bias:
        return 0
    inner = shard(ffn.intermediate, view.layout.moe_tp)
    return (ffn.matrices - 1) * inner + view.instance.model.hidden


def expert_bytes(view: StageView, ffn: MoeFfn) -> Fraction:
    """s·X·w, before it is rounded up."""
    stored = bytes_per_value(stored_format(view.instance, "experts"))
    return slots_of(view, ffn) * slot_weights(view, ffn) * stored


def expert_seconds(view: StageView, ffn: MoeFfn, load: Load) -> Fraction:
    """The busiest GPU's pairs, tiles at least, computed and the slots awake read."""
    layout = view.layout
    tokens = load.rows(layout)
    share = awake(ffn, min(tokens, load.stage_tokens))
    stored = stored_format(view.instance, "experts")
    pairs = Fraction(tokens * ffn.top_k, layout.ep) * balance(view, ffn)
    tile = exact(view.spec.calibration.expert_tile_rows)
    rows = max(pairs, slots_of(view, ffn) * share * tile)
    compute = 2 * slot_weights(view, ffn) * rows / matmul_rate(view, stored)
    read = expert_bytes(view, ffn) * share * unpacked(view, stored)
    return joined(view, compute, read / hbm_rate(view.spec))


def awake(ffn: MoeFfn, tokens: int) -> Fraction:
    """1 − (1 − K/E)^N: share of the experts that some token visits."""
    scale = 10**SHARE_DIGITS
    asleep = (ffn.experts - ffn.top_k) ** tokens * scale // ffn.experts**tokens
    return 1 - Fraction(asleep, scale)


def islands_reached(ffn: MoeFfn, islands: int) -> Fraction:
    """ζ: other islands, of ``islands``, to which a token is sent, in the mean."""
    groups = islands
    if ffn.n_group > 1:
        groups = min(islands, ffn.topk_group * math.ceil(islands / ffn.n_group))
    missed = Fraction(islands - 1, islands) ** ffn.top_k
    reached = min(Fraction(groups), islands * (1 - missed))
    return reached * Fraction(islands - 1, islands)
