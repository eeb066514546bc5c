"""Latency limits: targets on the mean by the law, on percentiles by the claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache

from shardwright.check.case import Case, Rule
from shardwright.check.exact import NS_PER_MS, exact
from shardwright.check.figures import ReplicaFigures
from shardwright.check.law import Law
from shardwright.check.report import RuleRow, at_most
from shardwright.check.targets import key_of, mean_targets, percentile_targets
from shardwright.schema.workload import LatencyMetric, SloTarget

MODEL_CLAIMED = "model-claimed"
"""Note of a row whose percentile the checker takes from the plan."""


def _latency(
    case: Case,
    rule: str,
    metric: LatencyMetric,
    words: str,
    value: Callable[[Law], int],
) -> Iterator[RuleRow]:
    """A row for each target of the metric that the replica answers for."""
    for replica in case.figures.replicas:
        for target in mean_targets(case.instance, replica.role):
            if target.metric == metric:
                limit = math.floor(_limit_ns(case, target))
                found = value(replica.law)
                yield at_most(rule, replica.label, f"{words} is", found, limit, "ns")
        yield from _claimed(case, replica, rule, metric, words)


def _limit_ns(case: Case, target: SloTarget) -> Fraction:
    """The limit; μ keeps predictions of TPOT and ITL below theirs."""
    margin = case.instance.limits.latency_margin
    if target.metric not in ("tpot", "itl"):
        margin = None
    return _in_ns(target.limit_ms, margin)


@lru_cache(maxsize=64)
def _in_ns(limit_ms: float, margin: float | None) -> Fraction:
    limit = exact(limit_ms) * NS_PER_MS
    return limit if margin is None else limit / (1 + exact(margin))


def _claimed(
    case: Case, replica: ReplicaFigures, rule: str, metric: LatencyMetric, words: str
) -> Iterator[RuleRow]:
    """The claims of the replica's load; load_claim sees to it that there are any."""
    claims = replica.load.percentiles if replica.load is not None else ()
    for target in percentile_targets(case.instance, replica.role):
        for claim in claims if target.metric == metric else ():
            if (claim.metric, claim.percentile) == key_of(target):
                yield at_most(
                    rule,
                    replica.label,
                    f"P{claim.percentile:g} of {words} is",
                    exact(claim.predicted_ms) * NS_PER_MS,
                    _limit_ns(case, target),
                    "ns",
                    note=MODEL_CLAIMED,
                )


def tpot_limit(case: Case) -> Iterator[RuleRow]:
    """Θ <= ⌊limit_ms·10^6/(1 + μ)⌋ for targets on tpot; claims for percentiles"""
    words = "time per output token"
    return _latency(case, "tpot_limit", "tpot", words, lambda law: law.tpot_ns)


def itl_limit(case: Case) -> Iterator[RuleRow]:
    """Θ <= ⌊limit_ms·10^6/(1 + μ)⌋ for targets on itl; claims for percentiles"""
    words = "inter-token latency"
    return _latency(case, "itl_limit", "itl", words, lambda law: law.tpot_ns)


def prefill_limit(case: Case) -> Iterator[RuleRow]:
    """Π <= ⌊limit_ms·10^6⌋ for targets on prefill; claims for percentiles"""
    words = "prefill latency"
    return _latency(case, "prefill_limit", "prefill", words, lambda law: law.prefill_ns)


def ttft_limit(case: Case) -> Iterator[RuleRow]:
    """TTFT <= ⌊limit_ms·10^6⌋ for targets on ttft; claims for percentiles"""
    words = "time to first token"
    return _latency(case, "ttft_limit", "ttft", words, lambda law: law.ttft_ns)


def e2e_limit(case: Case) -> Iterator[RuleRow]:
    """TTFT + ⌈(Ō - 1)·Θ⌉ <= ⌊limit_ms·10^6⌋ for e2e; claims for percentiles"""
    words = "end-to-end latency"
    return _latency(case, "e2e_limit", "e2e", words, lambda law: law.e2e_ns)


LATENCY: tuple[Rule, ...] = (
    tpot_limit,
    itl_limit,
    prefill_limit,
    ttft_limit,
    e2e_limit,
)
