"""Engine switches, limits and targets as the integers that programs use."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from shardwright.cost.lengths import ceil_fraction, exact
from shardwright.problem.types import Bounds
from shardwright.schema.instance import Instance
from shardwright.schema.workload import SloTarget

_ENGINES_WITHOUT_RULES = frozenset({"generic"})


@dataclass(frozen=True)
class EngineSwitches:
    """Engine rules after defaults: all on, except for ``generic``."""

    micro_batches_equal_stages: bool
    equal_shape_per_stage: bool
    heads_divisible: bool

    @classmethod
    def of(cls, instance: Instance) -> EngineSwitches:
        """Switches of an instance's engine."""
        default = instance.engine.name not in _ENGINES_WITHOUT_RULES
        rules = instance.engine.rules

        def switch(value: bool | None) -> bool:
            return default if value is None else value

        return cls(
            switch(rules.micro_batches_equal_stages),
            switch(rules.equal_shape_per_stage),
            switch(rules.heads_divisible),
        )


def bounds_of(instance: Instance, output_mean: Fraction) -> Bounds:
    """Limits and targets as integers and exact rationals."""
    limits, fix, slo = instance.limits, instance.fix, instance.slo
    rate = instance.workload.request_rate_per_s
    budget = limits.max_cost_usd_per_hour
    return Bounds(
        tpot_ns=_tightest(slo, ("tpot", "itl")),
        prefill_ns=_tightest(slo, ("prefill",)),
        ttft_ns=_tightest(slo, ("ttft",)),
        e2e_ns=_tightest(slo, ("e2e",)),
        rate_mtok_per_s=None
        if rate is None
        else ceil_fraction(exact(rate) * output_mean * 1000),
        spare_gpus=limits.spare_gpus,
        max_gpus=limits.max_gpus,
        max_cost_micro_usd_per_hour=None
        if budget is None
        else floor(exact(budget) * 10**6),
        memory_imbalance=_optional(limits.memory_imbalance),
        compute_imbalance=_optional(limits.compute_imbalance),
        communication_share=_optional(limits.communication_share),
        max_stages=limits.max_pipeline_stages,
        stages=fix.pp,
        replicas=fix.dp,
        split=fix.layers,
    )


def _optional(value: float | None) -> Fraction | None:
    return None if value is None else exact(value)


def _tightest(slo: tuple[SloTarget, ...], metrics: tuple[str, ...]) -> int | None:
    limits = [floor(exact(t.limit_ms) * 10**6) for t in slo if t.metric in metrics]
    return min(limits) if limits else None
