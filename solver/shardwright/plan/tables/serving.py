"""Latency against every target, where the time goes, and throughput."""

from __future__ import annotations

from math import nan

from shardwright.plan.breakdown import decode_breakdown, prefill_breakdown
from shardwright.plan.groups import ReplicaGroup
from shardwright.plan.metrics import plan_e2e_ns
from shardwright.plan.tables.text import (
    Cell,
    cut,
    grid,
    ms,
    number,
    percent,
    signed_percent,
    titled,
    wrapped,
)
from shardwright.plan.view import PlanView
from shardwright.schema.workload import SloTarget

_METRICS = {
    "ttft": "first token (TTFT)",
    "prefill": "prefill",
    "tpot": "per output token (TPOT)",
    "itl": "between tokens (ITL)",
    "e2e": "end to end",
}


def latency_table(view: PlanView) -> str:
    """Every latency; those with a target against it. The slowest replica counts."""
    rows = [row for metric in _METRICS for row in _metric_rows(view, metric)]
    headers = [
        "latency",
        "of",
        "limit ms",
        "held to ms",
        "predicted ms",
        "slack ms",
        "slack",
        "holds",
    ]
    note = ""
    if any(r.load and r.load.knife_edge for r in view.document.replicas()):
        note = (
            "Knife edge: the tails hang on rare moments without a free slot; verify "
            "them with shardwright simulate"
        )
    margin = view.instance.limits.latency_margin
    if margin and any(t.metric in _WITH_MARGIN for t in view.instance.slo):
        held = wrapped(
            "",
            f"TPOT and ITL are held to limit/(1 + {margin:g}): the latency_margin with "
            "which predictions kept their limits in published runs",
        )
        note = f"{held}\n{note}" if note else held
    return titled("Latency against targets", grid(headers, rows, "llrrrrrl"), note)


_WITH_MARGIN = ("tpot", "itl")


def _metric_rows(view: PlanView, metric: str) -> list[list[Cell]]:
    targets = [t for t in view.instance.slo if t.metric == metric]
    got = predicted_ns(view, metric)
    if not targets and metric != "itl":
        return [[_METRICS[metric], "mean", "-", "-", ms(got), "", "", ""]]
    ordered = sorted(targets, key=lambda t: t.limit_ms)
    return [_target_row(view, target) for target in ordered]


def _target_row(view: PlanView, target: SloTarget) -> list[Cell]:
    limit, got = target.limit_ms * 1e6, against_ns(view, target)
    margin = view.instance.limits.latency_margin or 0.0
    held = limit / (1 + margin) if target.metric in _WITH_MARGIN else limit
    slack = held - got
    return [
        _METRICS[target.metric],
        _statistic(target),
        ms(limit),
        ms(held),
        ms(got),
        ms(slack),
        signed_percent(slack / held),
        "yes" if slack >= 0 else "NO",
    ]


def _statistic(target: SloTarget) -> str:
    if target.percentile == "mean":
        return "mean"
    return f"P{target.percentile:g}"


def against_ns(view: PlanView, target: SloTarget) -> float:
    """What is held against a target, ns: the largest of the replicas' figures.

    NaN where a plan makes no claim.
    """
    if target.percentile == "mean":
        return predicted_ns(view, target.metric)
    loads = [r.load for r in view.document.replicas() if r.load is not None]
    claims = [c for load in loads for c in load.percentiles]
    mine = [
        c.predicted_ms * 1e6
        for c in claims
        if c.metric == target.metric and c.percentile == target.percentile
    ]
    return max(mine, default=nan)


def predicted_ns(view: PlanView, metric: str) -> int:
    plan = view.document
    if metric == "e2e":
        return plan_e2e_ns(view.anatomy)
    if metric in ("tpot", "itl"):
        return plan.tpot_ns()
    if metric == "ttft":
        return plan.ttft_ns()
    return max(r.latency.prefill_ns for r in plan.replicas())


def time_table(view: PlanView) -> str:
    """Where the time of an output token and of a prompt goes."""
    rows = [row for group in view.groups for row in _time_rows(view, group)]
    headers = [
        "replica",
        "phase",
        "compute\nms",
        "collectives\nms",
        "hops\nms",
        "pipeline wait\nms",
        "total\nms",
    ]
    return titled(
        "Where the time goes (decode: one output token; prefill: a mean prompt)",
        grid(headers, rows, "llrrrrr"),
    )


def _time_rows(view: PlanView, group: ReplicaGroup) -> list[list[Cell]]:
    phases = {
        "decode": decode_breakdown(view.anatomy, group.replica),
        "prefill": prefill_breakdown(view.anatomy, group.replica),
    }
    return [
        [
            group.label,
            name,
            ms(parts.compute_ns),
            ms(parts.collectives_ns),
            ms(parts.hops_ns),
            ms(parts.waiting_ns),
            ms(parts.total_ns),
        ]
        for name, parts in phases.items()
    ]


_THROUGHPUT_HEADERS = (
    "replica",
    "sequences",
    "micro-\nbatches",
    "prefill\nchunk",
    "output\ntokens/s",
    "prompt\ntokens/s",
    "requests/s",
    "pipeline\nefficiency",
    "USD\nper h",
    "USD per 1M\ntokens out",
)


def throughput_table(view: PlanView) -> str:
    """Rates with prefill counted, per replica and in all, and what they cost."""
    per_replica = view.metrics["replicas"]
    rows = [_rate_row(group, per_replica[group.indices[0]]) for group in view.groups]
    total = view.metrics["total"]
    if total["replicas"] > 1:
        rates, efficiency = _rates(total), percent(1 - total["bubble"])
        sequences = number(total["sequences"])
        rows.append(["all", sequences, "", "", *rates, efficiency, *_cost(total)])
    return titled(
        "Throughput, prefill work counted (each replica; then all)"
        if total["replicas"] > 1
        else "Throughput, prefill work counted",
        grid(_THROUGHPUT_HEADERS, rows, "lrrrrrrrrr"),
        rate_sentence(view),
    )


def _rate_row(group: ReplicaGroup, figures: dict[str, float]) -> list[Cell]:
    point = group.replica.operating_point
    return [
        group.label,
        number(point.sequences),
        f"{point.micro_batches} x {point.micro_batch_sequences}",
        number(point.prefill_chunk_tokens),
        *_rates(figures),
        percent(1 - figures["bubble"]),
        *_cost(figures),
    ]


def _rates(figures: dict[str, float]) -> list[Cell]:
    return [
        cut(figures["output_tokens_per_s"], 1),
        number(figures["prompt_tokens_per_s"]),
        cut(figures["requests_per_s"], 3),
    ]


def _cost(figures: dict[str, float]) -> list[Cell]:
    values = (
        figures["cost_usd_per_hour"],
        figures["cost_usd_per_million_output_tokens"],
    )
    return ["-" if value is None else number(value, 2) for value in values]


def rate_sentence(view: PlanView) -> str:
    """What was asked against what is sustained."""
    asked = view.instance.workload.request_rate_per_s
    got = view.metrics["total"]["requests_per_s"]
    if asked is None:
        return ""
    against = signed_percent(got / asked - 1)
    return (
        f"Largest request rate sustained: {cut(got, 3)}/s; asked: {asked:g}/s "
        f"({against})"
    )
