"""Balance, bubble and shares (docs/cost-model.md section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from shardwright.schema.plan import Plan, Replica, Stage


def imbalance(values: Sequence[int], gpus: Sequence[int]) -> Fraction:
    """(max - mean)/mean over GPUs; values are per stage, ``gpus`` their weights."""
    total = sum(v * n for v, n in zip(values, gpus, strict=True))
    return Fraction(max(values) * sum(gpus), total) - 1 if total else Fraction(0)


def memory_imbalance(stages: Sequence[Stage]) -> Fraction:
    """Imbalance of the bytes on each GPU."""
    held = [(m.total(), n) for s in stages for _, n, m in s.memory_by_role()]
    return imbalance([m for m, _ in held], [n for _, n in held])


def compute_imbalance(stages: Sequence[Stage]) -> Fraction:
    """Imbalance of the stage times of the balanced iteration."""
    return imbalance([s.decode_time_ns for s in stages], _sizes(stages))


def _sizes(stages: Sequence[Stage]) -> list[int]:
    return [len(stage.gpus) for stage in stages]


def busy_share(replica: Replica, stage: Stage) -> Fraction:
    """Share of the period in which a stage's GPUs work."""
    work = replica.operating_point.micro_batches * stage.decode_time_ns
    return Fraction(work, replica.latency.tpot_ns)


def bubble(replica: Replica) -> Fraction:
    """Share of GPU time idle at the operating point."""
    sizes = _sizes(replica.stages)
    shares = [busy_share(replica, stage) for stage in replica.stages]
    busy = sum((x * n for x, n in zip(shares, sizes, strict=True)), Fraction(0))
    return 1 - busy / sum(sizes)


def flush_bubble(replica: Replica) -> Fraction:
    """(p - 1)/(q + p - 1): what a pipeline that is filled and drained idles."""
    p, q = len(replica.stages), replica.operating_point.micro_batches
    return Fraction(p - 1, q + p - 1)


def all_stages(plan: Plan) -> list[Stage]:
    """The stages of all replicas."""
    return [stage for replica in plan.replicas() for stage in replica.stages]
