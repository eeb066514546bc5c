"""Which latency targets a replica answers for (cost-model, sections 5 and 12)."""

from __future__ import annotations

from shardwright.schema.instance import Instance
from shardwright.schema.plan import PoolRole
from shardwright.schema.workload import LatencyMetric, SloTarget

METRICS: dict[PoolRole, tuple[LatencyMetric, ...]] = {
    "mixed": ("ttft", "prefill", "tpot", "itl", "e2e"),
    "prefill": ("ttft", "prefill"),
    "decode": ("tpot", "itl"),
}
"""Metrics of each role: only a mixed replica serves a request from end to end."""

TargetKey = tuple[LatencyMetric, float]
"""Metric and percentile."""


def mean_targets(instance: Instance, role: PoolRole) -> list[SloTarget]:
    """Targets on the mean that replicas of the role answer for."""
    return [target for target in _targets(instance, role) if key_of(target) is None]


def percentile_targets(instance: Instance, role: PoolRole) -> list[SloTarget]:
    """Targets on percentiles that replicas of the role answer for."""
    return [target for target in _targets(instance, role) if key_of(target)]


def _targets(instance: Instance, role: PoolRole) -> list[SloTarget]:
    return [target for target in instance.slo if target.metric in METRICS[role]]


def key_of(target: SloTarget) -> TargetKey | None:
    """What a claim for the target is found by; None for a target on the mean."""
    if target.percentile == "mean":
        return None
    return target.metric, target.percentile
