"""Limits that the instance sets: batch, memory, latency, rate, balance, fleet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

from shardwright.check.case import Case, Rule
from shardwright.check.exact import NS_PER_MS, RELATIVE_TOLERANCE, exact
from shardwright.check.figures import ReplicaFigures
from shardwright.check.law import Law
from shardwright.check.report import RuleRow, at_least, at_most

NOT_MODELLED = "mean, percentile not modelled"


def batch_limit(case: Case) -> Iterator[RuleRow]:
    """M <= max_batch"""
    most = case.instance.workload.max_batch
    for replica in case.figures.replicas:
        yield at_most(
            "batch_limit",
            replica.label,
            "sequences (M) is",
            replica.point.sequences,
            most,
            "sequences",
        )


def chunk_feeds_batch(case: Case) -> Iterator[RuleRow]:
    """c <= chunk"""
    for replica in case.figures.replicas:
        yield at_most(
            "chunk_feeds_batch",
            replica.label,
            "prompt tokens of a micro-batch (c) are",
            replica.point.prompt_tokens,
            replica.point.chunk,
            "tokens",
        )


def chunk_limit(case: Case) -> Iterator[RuleRow]:
    """chunk <= max_context_tokens"""
    most = case.instance.workload.max_context_tokens
    for replica in case.figures.replicas:
        yield at_most(
            "chunk_limit",
            replica.label,
            "prefill_chunk_tokens is",
            replica.point.chunk,
            most,
            "tokens",
        )


def max_pipeline_stages(case: Case) -> Iterator[RuleRow]:
    """p <= max_pipeline_stages"""
    most = case.instance.limits.max_pipeline_stages
    for replica in case.figures.replicas:
        yield at_most(
            "max_pipeline_stages",
            replica.label,
            "number of stages is",
            len(replica.stages),
            most,
            "stages",
        )


def max_tensor_parallel(case: Case) -> Iterator[RuleRow]:
    """tp <= max_tensor_parallel, where given"""
    most = case.instance.limits.max_tensor_parallel
    for stage in case.stages() if most is not None else ():
        yield at_most(
            "max_tensor_parallel", stage.label, "tp is", stage.tp, most or 0, "GPU"
        )


def memory_fits(case: Case) -> Iterator[RuleRow]:
    """sum of the five parts <= ⌊memory_fraction·memory⌋, on each GPU"""
    for stage in case.stages():
        yield at_most(
            "memory_fits",
            stage.label,
            "memory of each GPU is",
            stage.memory.total(),
            stage.memory_cap_bytes,
            "B",
        )


def _latency(
    case: Case, rule: str, metric: str, words: str, value: Callable[[Law], int]
) -> Iterator[RuleRow]:
    """One row for each target of the metric; the tightest one binds."""
    targets = [target for target in case.instance.slo if target.metric == metric]
    for replica in case.figures.replicas:
        for target in targets:
            yield at_most(
                rule,
                replica.label,
                words,
                value(replica.law),
                math.floor(exact(target.limit_ms) * NS_PER_MS),
                "ns",
                note="" if target.percentile == "mean" else NOT_MODELLED,
            )


def tpot_limit(case: Case) -> Iterator[RuleRow]:
    """Θ <= ⌊limit_ms·10^6⌋ for targets on tpot"""
    return _latency(
        case, "tpot_limit", "tpot", "time per output token is", lambda law: law.tpot_ns
    )


def itl_limit(case: Case) -> Iterator[RuleRow]:
    """Θ <= ⌊limit_ms·10^6⌋ for targets on itl"""
    return _latency(
        case, "itl_limit", "itl", "inter-token latency is", lambda law: law.tpot_ns
    )


def prefill_limit(case: Case) -> Iterator[RuleRow]:
    """Π <= ⌊limit_ms·10^6⌋ for targets on prefill"""
    return _latency(
        case,
        "prefill_limit",
        "prefill",
        "prefill latency is",
        lambda law: law.prefill_ns,
    )


def ttft_limit(case: Case) -> Iterator[RuleRow]:
    """TTFT <= ⌊limit_ms·10^6⌋ for targets on ttft"""
    return _latency(
        case, "ttft_limit", "ttft", "time to first token is", lambda law: law.ttft_ns
    )


def e2e_limit(case: Case) -> Iterator[RuleRow]:
    """TTFT + ⌈(Ō - 1)·Θ⌉ <= ⌊limit_ms·10^6⌋ for targets on e2e"""
    return _latency(
        case, "e2e_limit", "e2e", "end-to-end latency is", lambda law: law.e2e_ns
    )


def request_rate(case: Case) -> Iterator[RuleRow]:
    """Σ rate >= ⌈request_rate_per_s·Ō·1000⌉, where given"""
    asked = case.instance.workload.request_rate_per_s
    if asked is not None:
        needed = math.ceil(exact(asked) * case.figures.mix.mean_output * 1000)
        yield at_least(
            "request_rate",
            "plan",
            "output rate of all replicas is",
            case.figures.rate_mtok_per_s(),
            needed,
            "mtok/s",
        )


def memory_imbalance(case: Case) -> Iterator[RuleRow]:
    """max mem·G <= (1 + δ)·Σ_s t_s·mem_s, where given"""
    most = case.instance.limits.memory_imbalance
    for replica in case.figures.replicas if most is not None else ():
        yield at_most(
            "memory_imbalance",
            replica.label,
            "memory above the mean GPU is",
            replica.memory_imbalance(),
            exact(most or 0.0),
            "share",
        )


def compute_imbalance(case: Case) -> Iterator[RuleRow]:
    """T·G <= (1 + δ)·Σ_s t_s·τ_s, where given"""
    most = case.instance.limits.compute_imbalance
    for replica in case.figures.replicas if most is not None else ():
        yield at_most(
            "compute_imbalance",
            replica.label,
            "stage time above the mean GPU is",
            replica.compute_imbalance(),
            exact(most or 0.0),
            "share",
        )


def communication_share(case: Case) -> Iterator[RuleRow]:
    """Σ comm_s + Σ η + η_r <= φ·S, where given"""
    most = case.instance.limits.communication_share
    for replica in case.figures.replicas if most is not None else ():
        yield at_most(
            "communication_share",
            replica.label,
            "communication of an iteration is",
            replica.communication_share(),
            exact(most or 0.0),
            "share",
            allowance=_communication_allowance(replica),
        )


def _communication_allowance(replica: ReplicaFigures) -> Fraction:
    """1e-9, and 1 ns for each rounded term, as a share of S."""
    own = replica.communication_ns()
    terms = sum(stage.decode.communication_terms for stage in replica.stages)
    terms += replica.hops.decode_allowance_ns()
    return (own * RELATIVE_TOLERANCE + terms) / max(1, replica.law.pass_ns)


def spare_gpus(case: Case) -> Iterator[RuleRow]:
    """GPUs used <= GPUs available - spare_gpus"""
    figures = case.figures
    most = figures.gpus_available - case.instance.limits.spare_gpus
    yield at_most("spare_gpus", "plan", "GPUs used are", figures.gpus_used, most, "GPU")


def max_gpus(case: Case) -> Iterator[RuleRow]:
    """GPUs used <= max_gpus, where given"""
    most, used = case.instance.limits.max_gpus, case.figures.gpus_used
    if most is not None:
        yield at_most("max_gpus", "plan", "GPUs used are", used, most, "GPU")


def max_cost_usd_per_hour(case: Case) -> Iterator[RuleRow]:
    """Σ GPUs used·⌈price·10^6⌉ <= max_cost_usd_per_hour·10^6, where given"""
    most = case.instance.limits.max_cost_usd_per_hour
    if most is not None:
        row = at_most(
            "max_cost_usd_per_hour",
            "plan",
            "cost is",
            case.figures.cost_micro_usd_per_hour,
            exact(most) * 10**6,
            "micro-USD/h",
        )
        yield priced(case, row)


def priced(case: Case, row: RuleRow) -> RuleRow:
    """The row, broken where a GPU of the plan has no price: its cost is unknown."""
    if not case.figures.unpriced_types:
        return row
    names = ", ".join(case.figures.unpriced_types)
    detail = f"no price_usd_per_hour for {names}, counted as 0"
    return replace(row, holds=False, detail=detail)


LIMITS: tuple[Rule, ...] = (
    batch_limit,
    chunk_feeds_batch,
    chunk_limit,
    max_pipeline_stages,
    max_tensor_parallel,
    memory_fits,
    tpot_limit,
    itl_limit,
    prefill_limit,
    ttft_limit,
    e2e_limit,
    request_rate,
    memory_imbalance,
    compute_imbalance,
    communication_share,
    spare_gpus,
    max_gpus,
    max_cost_usd_per_hour,
)
