"""Every figure of a plan, ready for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from shardwright.cost.law import served
from shardwright.cost.lengths import exact
from shardwright.plan.anatomy import Anatomy, gpu_count
from shardwright.plan.balance import (
    all_stages,
    bubble,
    compute_imbalance,
    flush_bubble,
    memory_imbalance,
)
from shardwright.plan.communication import pass_totals
from shardwright.plan.experts import balance
from shardwright.plan.kv import kv_room
from shardwright.plan.launch import EngineVerdict
from shardwright.schema.plan import Replica, Stage

Document = dict[str, Any]


def metrics(anatomy: Anatomy, engines: Sequence[EngineVerdict]) -> Document:
    """Figures of the plan in all and per replica; units are in the names.

    Latencies of the plan are those of its slowest replica. A price that the
    instance does not know is null.
    """
    replicas = anatomy.plan.replicas()
    known = {i: _replica(anatomy, replicas[i]) for i in set(anatomy.alike)}
    return {
        "total": _total(anatomy),
        "replicas": [dict(known[i]) for i in anatomy.alike],
        "engines": [engine.document() for engine in engines],
    }


def _total(anatomy: Anatomy) -> Document:
    plan = anatomy.plan
    replicas, stages = plan.replicas(), all_stages(plan)
    mtok = served(r.served for r in replicas)
    return {
        "replicas": len(replicas),
        **_gpus(anatomy, stages),
        **_rates(anatomy, mtok),
        "sequences": sum(r.operating_point.sequences for r in replicas),
        "tpot_ms": ms(plan.tpot_ns()),
        "ttft_ms": ms(plan.ttft_ns()),
        "prefill_ms": ms(max(r.latency.prefill_ns for r in replicas)),
        "e2e_ms": ms(plan_e2e_ns(anatomy)),
        **_cost(anatomy, stages, mtok),
        **_memory(anatomy, stages),
        "compute_imbalance": float(compute_imbalance(stages)),
        "bubble": _mean_bubble(anatomy),
        "kv_tokens_reserved": _kv_reserved(anatomy),
    }


def plan_e2e_ns(anatomy: Anatomy) -> int:
    """The slowest mixed replica, or the slowest of each pool one after the other."""
    replicas, plan = anatomy.plan.replicas(), anatomy.plan
    mixed = [r.latency for r in replicas if r.role == "mixed"]
    found = [anatomy.e2e_ns(one.ttft_ns, one.tpot_ns) for one in mixed]
    if len(mixed) < len(replicas):
        found.append(anatomy.e2e_ns(plan.ttft_ns(), plan.tpot_ns()))
    return max(found)


def _replica(anatomy: Anatomy, replica: Replica) -> Document:
    stages, latency = replica.stages, replica.latency
    loop_ns = anatomy.loop_ns(replica)
    communication = pass_totals(anatomy, replica)
    kv = kv_room(anatomy, replica)
    return {
        "role": replica.role,
        "gpus": gpu_count(stages),
        "gpu_types": dict(Counter(s.gpu_type for s in stages for _ in s.gpus)),
        "tp": [s.shape.tp for s in stages],
        "pp": len(stages),
        "shapes": [s.shape.model_dump() for s in stages],
        "expert_slots": [s.expert_slots for s in stages],
        "expert_gpus": [s.expert_unit.gpus if s.expert_unit else 0 for s in stages],
        "expert_balance": _expert_balance(anatomy, replica),
        "layers": [s.layers[1] - s.layers[0] for s in stages],
        **_rates(anatomy, latency.rate_mtok_per_s),
        "tpot_ms": ms(latency.tpot_ns),
        "ttft_ms": ms(latency.ttft_ns),
        "prefill_ms": ms(latency.prefill_ns),
        "e2e_ms": ms(anatomy.e2e_ns(latency.ttft_ns, latency.tpot_ns))
        if replica.role == "mixed"
        else None,
        "slowest_stage_ms": ms(max(s.decode_time_ns for s in stages)),
        "pass_ms": ms(loop_ns),
        "communication_ms_per_pass": ms(communication.decode_ns),
        "communication_share": communication.decode_ns / loop_ns,
        "bubble": float(bubble(replica)),
        "bubble_flush_formula": float(flush_bubble(replica)),
        **_cost(anatomy, stages, latency.rate_mtok_per_s),
        **_memory(anatomy, stages),
        "compute_imbalance": float(compute_imbalance(stages)),
        "kv_tokens_reserved": kv.tokens_reserved,
        "kv_tokens_capacity": kv.tokens_capacity,
        "kv_bytes_per_token": kv.bytes_per_token,
        "kv_bytes_per_token_per_gpu": kv.bytes_per_token_gpu,
    }


def _expert_balance(anatomy: Anatomy, replica: Replica) -> float | None:
    """Busiest GPU's tokens over the mean GPU's; null for a dense model."""
    instance, plan = anatomy.instance, anatomy.plan
    found = [balance(instance, plan, s) for s in replica.stages if s.expert_slots]
    return max(found, default=None)


def _rates(anatomy: Anatomy, mtok_per_s: int) -> Document:
    mix = anatomy.memory.mix
    requests = Fraction(mtok_per_s, 1000) / mix.output_mean
    return {
        "output_tokens_per_s": mtok_per_s / 1000,
        "prompt_tokens_per_s": float(requests * mix.prompt_work),
        "requests_per_s": float(requests),
    }


def _gpus(anatomy: Anatomy, stages: list[Stage]) -> Document:
    groups = anatomy.instance.cluster.nodes
    installed = sum(g.count * g.gpus for g in groups)
    withheld = sum(g.count * len({*g.reserved, *g.failed}) for g in groups)
    used = gpu_count(stages)
    return {
        "gpus_installed": installed,
        "gpus_available": installed - withheld,
        "gpus_used": used,
        "gpus_idle": installed - withheld - used,
    }


def hourly_price(
    anatomy: Anatomy, stages: tuple[Stage, ...] | list[Stage]
) -> Fraction | None:
    """USD per hour of some stages; None when a price is not known."""
    gpus: Counter[str] = Counter()
    for stage in stages:
        gpus[stage.gpu_type] += len(stage.gpus)
    total = Fraction(0)
    for name, count in gpus.items():
        price = anatomy.instance.cluster.gpu_types[name].price_usd_per_hour
        if price is None:
            return None
        total += count * exact(price)
    return total


def _cost(
    anatomy: Anatomy, stages: tuple[Stage, ...] | list[Stage], mtok_per_s: int
) -> Document:
    price = hourly_price(anatomy, stages)
    per_hour = Fraction(mtok_per_s, 1000) * 3600
    known = price is not None and per_hour > 0
    return {
        "cost_usd_per_hour": None if price is None else float(price),
        "cost_usd_per_million_output_tokens": (
            float(price / per_hour * 10**6) if price is not None and known else None
        ),
    }


def _memory(anatomy: Anatomy, stages: tuple[Stage, ...] | list[Stage]) -> Document:
    """Utilisation is of the memory that ``memory_fraction`` leaves usable."""
    held = [(s, m.total(), n) for s in stages for _, n, m in s.memory_by_role()]
    used = sum(total * n for _, total, n in held)
    usable = sum(anatomy.usable_bytes(s) * len(s.gpus) for s in stages)
    peaks = [total / anatomy.gpu(s).memory_bytes for s, total, _ in held]
    return {
        "memory_utilisation": used / usable,
        "memory_peak_share_of_gpu": max(peaks),
        "memory_imbalance": float(memory_imbalance(stages)),
    }


def _kv_reserved(anatomy: Anatomy) -> int:
    return sum(n * kv_room(anatomy, r).tokens_reserved for r, n in anatomy.kinds)


def _mean_bubble(anatomy: Anatomy) -> float:
    """Mean over the GPUs in use."""
    sizes = [n * gpu_count(r.stages) for r, n in anatomy.kinds]
    shares = [bubble(r) for r, _ in anatomy.kinds]
    total = sum(x * n for x, n in zip(shares, sizes, strict=True))
    return float(total / sum(sizes))


def ms(nanoseconds: int) -> float:
    """Milliseconds."""
    return nanoseconds / 10**6
