"""Axes of a front: what is optimised, and how a limit on the other one is stated."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast, get_args

from shardwright.ingest.refuse import one_of, refuse
from shardwright.planning.sweep_rows import predicted_ms
from shardwright.schema.instance import Instance
from shardwright.schema.workload import Goal, LatencyMetric, SloTarget
from shardwright.solve import Solution

_SLACK = 1 + 1e-9
_LOOSE_MS = 1e9
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


@dataclass(frozen=True)
class Axis:
    """A figure of a plan. ``up``: more is better. ``key``: its name with the unit."""

    name: str
    key: str
    up: bool


FIGURES = {
    "throughput_per_gpu": Axis("throughput_per_gpu", "tokens_per_s_per_gpu", True),
    "throughput": Axis("throughput", "output_tokens_per_s", True),
    "rate": Axis("rate", "requests_per_s", True),
    "gpus": Axis("gpus", "gpus_used", False),
    "cost": Axis("cost", "cost_usd_per_hour", False),
}
_GOALS: dict[str, tuple[Goal, ...]] = {
    "throughput_per_gpu": ("throughput", "gpus", "tpot"),
    "throughput": ("throughput", "tpot", "gpus"),
    "rate": ("throughput", "gpus", "tpot"),
    "gpus": ("gpus", "tpot"),
    "cost": ("cost", "tpot"),
}


def axis(name: str) -> Axis:
    """An axis by its name. Raises InvalidInstance with the known names."""
    if name in FIGURES:
        return FIGURES[name]
    if name == "tokens_per_s_per_user":
        return Axis(name, name, True)
    metric, _, percentile = name.partition("_")
    if metric in get_args(LatencyMetric) and percentile in ("", *_PERCENTILES):
        return Axis(name, f"{name}_ms", False)
    latencies = f"{', '.join(get_args(LatencyMetric))}, each also as ttft_p99"
    allowed = f"{one_of([*FIGURES, 'tokens_per_s_per_user'])}, or {latencies}"
    return refuse("command line", "--front", repr(name), allowed)


def prepared(instance: Instance, first: Axis, second: Axis) -> Instance:
    """The axes' goals; no request rate where more of it is what is looked for."""
    update: dict[str, Any] = {"objective": _GOALS[first.name]}
    if first.up:
        workload = instance.workload.model_copy(update={"request_rate_per_s": None})
        limits = instance.limits.model_copy(update={"survive": ()})
        update |= {"workload": workload, "limits": limits}
    elif instance.workload.request_rate_per_s is None:
        refuse(
            instance.name, "workload.request_rate_per_s", "nothing",
            f"a rate: the least {first.name} without one is that of one replica",
        )  # fmt: skip
    if first.up and "_p" in second.name and second.name != "tokens_per_s_per_user":
        refuse(
            "command line", "--front", f"{first.name},{second.name}",
            "percentiles are predicted at a request rate: cost or gpus go with them",
        )  # fmt: skip
    if first.name == "throughput_per_gpu":
        if instance.pools != "mixed":
            allowed = "mixed, for throughput_per_gpu"
            refuse(instance.name, "pools", instance.pools, allowed)
        update["fix"] = instance.fix.model_copy(update={"dp": 1})
    return instance.model_copy(update=update)


def limited(instance: Instance, second: Axis, limit: float | None) -> Instance:
    """The instance with a limit on the second axis; None: as loose as can be."""
    if second.name in ("gpus", "cost"):
        field = {"gpus": "max_gpus", "cost": "max_cost_usd_per_hour"}[second.name]
        if limit is None:
            return instance
        value: float = int(limit) if second.name == "gpus" else limit * _SLACK
        given = getattr(instance.limits, field)
        value = value if given is None else min(value, given)
        limits = instance.limits.model_copy(update={field: value})
        return instance.model_copy(update={"limits": limits})
    target = _target(second, limit, instance)
    return instance.model_copy(update={"slo": (*instance.slo, target)})


def _target(second: Axis, limit: float | None, instance: Instance) -> SloTarget:
    name = "tpot" if second.name == "tokens_per_s_per_user" else second.name
    metric, _, percentile = name.partition("_")
    # the limit is on what is predicted; the margin of safety is the instance's own
    margin = instance.limits.latency_margin or 0.0
    held = 1 + margin if metric in ("tpot", "itl", "e2e") else 1.0
    return SloTarget(
        metric=cast("LatencyMetric", metric),
        percentile=_PERCENTILES[percentile] if percentile else "mean",
        limit_ms=_LOOSE_MS if limit is None else limit * held * _SLACK,
    )


def figure(solution: Solution, wanted: Axis) -> float:
    """A figure of the plan in the axis' own unit."""
    assert solution.plan is not None
    total = solution.plan.metrics["total"]
    if wanted.name == "throughput_per_gpu":
        return float(Fraction(total["output_tokens_per_s"]) / total["gpus_used"])
    if wanted.name == "tokens_per_s_per_user":
        return 1000 / float(total["tpot_ms"])
    if wanted.key in total:
        return float(total[wanted.key])
    return predicted_ms(solution)[wanted.key]
