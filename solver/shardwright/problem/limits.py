"""Engine switches, limits and targets as the integers that programs use."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from shardwright.cost.lengths import ceil_fraction, exact
from shardwright.cost.tails import Target
from shardwright.problem.types import Bounds, Survival
from shardwright.schema.instance import Instance
from shardwright.schema.workload import SloTarget

_NONE = Fraction(0)
_ENGINES_WITHOUT_RULES = frozenset({"generic"})


@dataclass(frozen=True)
class EngineSwitches:
    """Engine rules after defaults: all on, except for ``generic``.

    ``disaggregated_experts`` is a permission, not a rule: on for ``generic`` only, and
    never with measured latencies, which know no such stages.
    """

    micro_batches_equal_stages: bool
    equal_shape_per_stage: bool
    heads_divisible: bool
    disaggregated_experts: bool = False

    @classmethod
    def of(cls, instance: Instance) -> EngineSwitches:
        """Switches of an instance's engine."""
        default = instance.engine.name not in _ENGINES_WITHOUT_RULES
        rules = instance.engine.rules

        def switch(value: bool | None) -> bool:
            return default if value is None else value

        apart = rules.disaggregated_experts
        analytic = instance.engine.latencies == "analytic"

        return cls(
            switch(rules.micro_batches_equal_stages),
            switch(rules.equal_shape_per_stage),
            switch(rules.heads_divisible),
            analytic and (not default if apart is None else apart),
        )


def bounds_of(instance: Instance, output_mean: Fraction) -> Bounds:
    """Limits and targets as integers and exact rationals."""
    limits, fix, slo = instance.limits, instance.fix, instance.slo
    rate = instance.workload.request_rate_per_s
    budget = limits.max_cost_usd_per_hour
    return Bounds(
        tpot_ns=_tightest(slo, ("tpot", "itl"), _margin(instance)),
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
        targets=percentile_targets(instance),
        survive=_survivals(instance, output_mean),
    )


def _survivals(instance: Instance, output_mean: Fraction) -> tuple[Survival, ...]:
    """What is left of the load has to be served; ingest asks for a request rate."""
    rate = instance.workload.request_rate_per_s
    return tuple(
        Survival(
            one.gpus or one.nodes or 0,
            one.nodes is not None,
            ceil_fraction(exact(rate or 0.0) * exact(one.load) * output_mean * 1000),
        )
        for one in instance.limits.survive
    )


def _margin(instance: Instance) -> Fraction:
    return exact(instance.limits.latency_margin or 0.0)


def percentile_targets(instance: Instance) -> tuple[Target, ...]:
    """The targets on percentiles, in seconds, less the margin."""
    kept = {"tpot": 1 + _margin(instance), "itl": 1 + _margin(instance)}
    return tuple(
        Target(
            t.metric,
            t.percentile / 100,
            t.limit_ms / 1000 / float(kept.get(t.metric, 1)),
        )
        for t in instance.slo
        if t.percentile != "mean"
    )


def _optional(value: float | None) -> Fraction | None:
    """A share or tolerance; digits beyond a millionth are cut, on the safe side.

    Products with bytes and nanoseconds then stay within 64 bits.
    """
    return None if value is None else Fraction(floor(exact(value) * _FINEST), _FINEST)


_FINEST = 10**6


def _tightest(
    slo: tuple[SloTarget, ...], metrics: tuple[str, ...], margin: Fraction = _NONE
) -> int | None:
    limits = [
        floor(exact(t.limit_ms) * 10**6 / (1 + margin))
        for t in slo
        if t.metric in metrics and t.percentile == "mean"
    ]
    return min(limits) if limits else None
