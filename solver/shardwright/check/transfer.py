"""The way of a prompt's cache from prefill to decode (cost-model, section 10)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from shardwright.check.attention import attention_shard
from shardwright.check.exact import bytes_per_value, us_in_s, whole_ns
from shardwright.check.inventory import Inventory
from shardwright.check.lengths import Mix
from shardwright.check.memory import layer_weight_bytes, memory_cap_bytes
from shardwright.check.rates import crossing_rate, link_rate
from shardwright.check.stage import whole_model_view
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance


@dataclass(frozen=True)
class Transfer:
    """What moving caches costs: x, and ρ of one GPU (None: there is nothing to move).

    The same for every replica: by the slowest links, over as few as there may be.
    """

    fetch_ns: int
    gpu_rate_mtok_per_s: int | None


def transfer_of(instance: Instance, mix: Mix, inventory: Inventory) -> Transfer:
    """x = ⌈latency + b/(W·V)⌉ ns and ρ = ⌊V·Ō·1000/b⌋."""
    specs = [instance.cluster.gpu_types[name] for name in inventory.gpu_types()]
    together = inventory.usable_islands() == 1
    speed = min(map(link_rate if together else crossing_rate, specs))
    cache = prompt_cache_bytes(instance, mix)
    lanes = _fewest_gpus(instance, mix, specs)
    fetch = whole_ns(_latency(specs, together) + cache / (lanes * speed))
    rate = math.floor(speed * mix.mean_output * 1000 / cache) if cache else None
    return Transfer(fetch, rate)


def prompt_cache_bytes(instance: Instance, mix: Mix) -> Fraction:
    """b: the cache of a mean prompt, each value once."""
    kinds, hidden = instance.model.layer_kinds, instance.model.hidden
    kappa, values = bytes_per_value(instance.precision.kv_cache), Fraction(0)
    for index in instance.model.kind_indices():
        attention = attention_shard(kinds[index], hidden, 1)
        if attention is not None:
            window = attention.window
            most = mix.mean_input if window is None else Fraction(window)
            values += min(mix.mean_input, most) * attention.cached
    return values * kappa


def _fewest_gpus(instance: Instance, mix: Mix, specs: list[GpuSpec]) -> int:
    """W: no replica has fewer GPUs with cache than the layers' weights fill."""
    view = whole_model_view(instance, mix, specs[0])
    weights = sum(layer_weight_bytes(view, kind) for kind in view.kinds)
    room = max(memory_cap_bytes(instance, spec) for spec in specs)
    return max(1, math.ceil(Fraction(weights, max(1, room))))


def _latency(specs: list[GpuSpec], together: bool) -> Fraction:
    calibrations = [spec.calibration for spec in specs]
    latencies = [c.hop_latency_us for c in calibrations]
    if not together:
        latencies += [c.network_latency_us for c in calibrations]
    return us_in_s(max(latencies))
