"""Limits that the instance sets: batch, memory, latency, rate, balance, fleet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from shardwright.check.case import Case, Rule
from shardwright.check.exact import RELATIVE_TOLERANCE, exact
from shardwright.check.figures import ReplicaFigures
from shardwright.check.latency import LATENCY
from shardwright.check.report import RuleRow, at_least, at_most
from shardwright.check.survive import survive


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
    """c <= chunk of mixed replicas"""
    for replica in case.figures.of_role("mixed"):
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
        sorts = ("",) if stage.expert_memory is None else ("attention ", "expert ")
        for sort, (_, held) in zip(sorts, stage.held_bytes(), strict=True):
            words, most = f"memory of each {sort}GPU is", stage.memory_cap_bytes
            yield at_most("memory_fits", stage.label, words, held, most, "B")


def request_rate(case: Case) -> Iterator[RuleRow]:
    """Σ mixed + min(Σ prefill, Σ decode) >= ⌈request_rate_per_s·Ō·1000⌉, where given"""
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
    return row._replace(holds=False, detail=detail)


LIMITS: tuple[Rule, ...] = (
    batch_limit,
    chunk_feeds_batch,
    chunk_limit,
    max_pipeline_stages,
    max_tensor_parallel,
    memory_fits,
    *LATENCY,
    request_rate,
    memory_imbalance,
    compute_imbalance,
    communication_share,
    survive,
    spare_gpus,
    max_gpus,
    max_cost_usd_per_hour,
)
