"""KV cache from a prefill to a decode replica (docs/cost-model.md section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

from shardwright.cost.disaggregated import attention_part
from shardwright.cost.lengths import ceil_fraction, exact
from shardwright.cost.links import link_speed, network_speed
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.problem.costing import StageCosts
from shardwright.problem.types import Transfer
from shardwright.schema.cluster import GpuSpec


def kv_transfer(
    costs: StageCosts,
    gpus: Sequence[GpuSpec],
    capacity_bytes: int,
    one_island: bool,
    experts_apart: bool,
) -> Transfer:
    """latency + bytes / (G V), and the rate that V carries.

    Bytes are the KV cache of a mean prompt, each value once. V is the slowest of the
    GPU types' links: those of the island when there is only one, else the network.
    G is the fewest GPUs that hold the weights beside the cache (without the routed
    experts where ``experts_apart`` allows them GPUs of their own): no replica has
    fewer, so the time is never understated.
    """
    whole = costs.ranks(StageShape.dense(1))
    kinds = costs.instance.model.kind_indices()
    size = sum(_prompt_kv_bytes(costs, whole[kind]) for kind in kinds)
    precision = costs.instance.precision
    held = tuple(map(attention_part, whole)) if experts_apart else whole
    weights = sum(held[kind].weight_bytes(precision) for kind in kinds)
    fewest = max(1, ceil_fraction(Fraction(weights, capacity_bytes)))
    if one_island:
        speed = min(link_speed(gpu) for gpu in gpus)
        latency_us = max(gpu.calibration.hop_latency_us for gpu in gpus)
    else:
        speed = min(network_speed(gpu) for gpu in gpus)
        latency_us = max(
            max(g.calibration.network_latency_us, g.calibration.hop_latency_us)
            for g in gpus
        )
    seconds = size / (fewest * exact(speed))
    ns = ceil_fraction(exact(latency_us) * 1000 + seconds * 10**9)
    if not size:
        return Transfer(ns)
    return Transfer(ns, floor(exact(speed) / size * costs.mix.output_mean * 1000))


def _prompt_kv_bytes(costs: StageCosts, rank: RankLayer) -> Fraction:
    """KV bytes of a mean prompt in one layer."""
    if rank.attention is None:
        return Fraction(0)
    tokens = costs.mix.prompt_mean
    window = rank.attention.window_tokens
    kept = tokens if window is None else min(tokens, Fraction(window))
    return kept * Fraction(rank.kv_bytes_per_token(costs.instance.precision))
