"""Single changes that make an instance feasible, each solved and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil

from shardwright.explain import changes
from shardwright.explain.solving import Allowance, OutOfTime, least
from shardwright.plan.tables.summary import plan_degrees
from shardwright.schema.instance import Instance
from shardwright.schema.workload import SloTarget
from shardwright.solve import Solution

_MOST_TIMES, _FEW_TIMES = 64, 4
STEP = 0.01
"""Relative precision of figures that are found by halving."""


@dataclass(frozen=True, eq=False)
class Repair:
    """A change with the plan that it allows.

    ``size`` is how much is given up or added, relative to what was asked (1: twice as
    much). ``exact`` says that no smaller change of its kind is enough: a rate is proven
    largest; of counts the next smaller one, of other figures one smaller by 1%, and of
    GPU types every weaker one was solved and fails. Formats stand for themselves.
    """

    kind: str
    change: str
    size: float
    exact: bool
    instance: Instance
    solution: Solution

    @property
    def degrees(self) -> str:
        """The plan in short."""
        assert self.solution.plan is not None
        return plan_degrees(self.solution.plan)


Family = Callable[[Instance, Allowance], Repair | None]


def single_repairs(
    instance: Instance, allowance: Allowance, most: int = 12
) -> tuple[list[Repair], bool]:
    """Repairs by size, and whether every kind was tried in the time."""
    found: list[Repair] = []
    complete = True
    for family in _families(instance):
        if len(found) >= most:
            break
        try:
            repair = family(instance, allowance)
        except OutOfTime:
            complete = False
            break
        if repair is not None:
            found.append(repair)
    return sorted(found, key=lambda r: r.size), complete


def _families(instance: Instance) -> Iterator[Family]:
    """Cheap to decide and likely to be wanted first."""
    if instance.workload.request_rate_per_s is not None:
        yield lower_rate
    yield more_gpus
    for name, _ in changes.smaller_formats(instance):
        yield _format(name)
    for target in instance.slo:
        yield _looser(target)
    yield another_gpu
    yield more_memory
    yield shorter_context
    yield smaller_batch


def lower_rate(instance: Instance, allowance: Allowance) -> Repair | None:
    """The largest request rate with everything else as asked: exact when proven."""
    asked = instance.workload.request_rate_per_s
    assert asked is not None
    solution = allowance.solved(changes.without_rate(instance))
    if solution.plan is None:
        return None
    rate = sustained_per_s(solution)
    if rate >= asked:
        return None
    lowered = changes.with_workload(instance, request_rate_per_s=rate)
    change = f"{rate:g} requests/s instead of {asked:g}"
    proven = solution.status.value == "OPTIMAL"
    return Repair("request rate", change, 1 - rate / asked, proven, lowered, solution)


def sustained_per_s(solution: Solution) -> float:
    """Requests/s of the plan, cut to three decimals."""
    assert solution.plan is not None
    return int(solution.plan.metrics["total"]["requests_per_s"] * 1000) / 1000


def more_gpus(instance: Instance, allowance: Allowance) -> Repair | None:
    """The fewest more nodes of the group that needs fewest."""
    best: Repair | None = None
    before = sum(g.count * g.gpus for g in instance.cluster.nodes)
    short = _short_of_rate(instance, allowance)
    for i, group in enumerate(instance.cluster.nodes):
        times = _MOST_TIMES if short else _FEW_TIMES
        top, guess = times * group.count, ceil(short * group.count)
        enough = partial(_enough, instance, allowance, i, guess)
        count = fewest(group.count, top, guess, enough)
        if count is None:
            continue
        larger = changes.with_nodes(instance, i, count)
        solution = allowance.solved(larger)
        more = (count - group.count) * group.gpus
        change = f"{more} more {group.gpu} ({count} nodes {group.name} of {group.gpus})"
        repair = Repair("more GPUs", change, more / before, True, larger, solution)
        if solution.plan is not None and (best is None or repair.size < best.size):
            best = repair
    return best


def _enough(
    instance: Instance, allowance: Allowance, group: int, guess: int, count: int
) -> bool:
    """Whether so many nodes suffice; a good guess is the answer: it is solved."""
    larger = changes.with_nodes(instance, group, count)
    if count == guess:
        return allowance.solved(larger).plan is not None
    return allowance.feasible(larger)


def _short_of_rate(instance: Instance, allowance: Allowance) -> float:
    """The rate asked over the largest that the cluster sustains; 0 if it is not that.

    Where nothing fits at any rate, more nodes help at most by longer pipelines.
    """
    asked = instance.workload.request_rate_per_s
    if asked is None:
        return 0.0
    solution = allowance.solved(changes.without_rate(instance))
    rate = 0.0 if solution.plan is None else sustained_per_s(solution)
    return asked / rate if rate else 0.0


def fewest(low: int, top: int, guess: int, holds: Callable[[int], bool]) -> int | None:
    """Least count above ``low`` that holds: from a guess in growing steps, then halved.

    ``low`` is known to fail; monotone.
    """
    high, step = min(max(low + 1, guess), top), 1
    while not holds(high):
        if high >= top:
            return None
        low, high, step = high, min(high + step, top), 2 * step
    step = 1
    while high - low > 1:
        middle = max(high - step, (low + high) // 2)
        low, high = (low, middle) if holds(middle) else (middle, high)
        step *= 2
    return high


def _format(name: str) -> Family:
    def family(instance: Instance, allowance: Allowance) -> Repair | None:
        variant = dict(changes.smaller_formats(instance))[name]
        if not changes.consistent(variant):
            return None
        solution = allowance.solved(variant)
        if solution.plan is None:
            return None
        size = changes.bytes_given_up(instance, variant)
        return Repair("number format", name, size, True, variant, solution)

    return family


def _looser(target: SloTarget) -> Family:
    def family(instance: Instance, allowance: Allowance) -> Repair | None:
        limit = attainable_ms(instance, target, allowance)
        if limit is None or limit <= target.limit_ms:
            return None
        looser = changes.with_target(instance, target, limit)
        solution = allowance.solved(looser)
        if solution.plan is None:
            return None
        change = (
            f"{target_words(target)} {limit:,.4g} ms instead of {target.limit_ms:g}"
        )
        size = limit / target.limit_ms - 1
        return Repair("looser target", change, size, True, looser, solution)

    return family


def attainable_ms(
    instance: Instance, target: SloTarget, allowance: Allowance
) -> float | None:
    """The smallest limit of a target, to 1%, with everything else as asked.

    None when no limit makes the instance feasible.
    """
    others = tuple(t for t in instance.slo if t != target)
    for slo in ((), others):
        if not allowance.feasible(instance.model_copy(update={"slo": slo})):
            return None

    def holds(limit_ms: float) -> bool:
        return allowance.feasible(changes.with_target(instance, target, limit_ms))

    high = target.limit_ms
    if holds(high):
        low = high
        while holds(low / 2):
            low /= 2
        return least(low / 2, low, holds, STEP)
    low = high
    while not holds(high * 2):
        low, high = high * 2, high * 2
        if high > target.limit_ms * 2**20:
            return None
    return least(low, high * 2, holds, STEP)


def target_words(target: SloTarget) -> str:
    """TTFT P99, TPOT mean, ..."""
    name = target.metric if target.metric == "prefill" else target.metric.upper()
    if target.percentile == "mean":
        return f"{name} mean"
    return f"{name} P{target.percentile:g}"


def another_gpu(instance: Instance, allowance: Allowance) -> Repair | None:
    """The weakest catalogue type that suffices, as many GPUs as now."""
    for name in changes.other_gpus(instance):
        variant = changes.with_gpu(instance, name)
        if not changes.consistent(variant):
            continue
        solution = allowance.solved(variant)
        if solution.plan is not None:
            mine = instance.cluster.gpu_types[instance.cluster.nodes[0].gpu]
            theirs = variant.cluster.gpu_types[name]
            size = changes.gpu_step(mine, theirs)
            change = f"{name} instead of {mine.name}"
            return Repair("other GPU", change, size, True, variant, solution)
    return None


def more_memory(instance: Instance, allowance: Allowance) -> Repair | None:
    """A larger memory fraction, at most 0.98."""
    asked = instance.limits.memory_fraction
    top = 0.98
    if asked >= top or not allowance.feasible(
        changes.with_limits(instance, memory_fraction=top)
    ):
        return None
    share = least(
        asked,
        top,
        lambda f: allowance.feasible(
            changes.with_limits(instance, memory_fraction=round(f, 4))
        ),
        STEP / 4,
    )
    variant = changes.with_limits(instance, memory_fraction=round(share, 4))
    solution = allowance.solved(variant)
    if solution.plan is None:
        return None
    change = f"memory fraction {share:.1%} instead of {asked:.1%}"
    return Repair("memory", change, share / asked - 1, True, variant, solution)


def shorter_context(instance: Instance, allowance: Allowance) -> Repair | None:
    """The longest context that fits, by halving, then to 1%."""
    asked = instance.workload.max_context_tokens
    return _smaller(instance, allowance, "max_context_tokens", asked, "context")


def smaller_batch(instance: Instance, allowance: Allowance) -> Repair | None:
    """The largest max batch that fits: engines reserve for it."""
    asked = instance.workload.max_batch
    return _smaller(instance, allowance, "max_batch", asked, "max batch")


def _smaller(
    instance: Instance, allowance: Allowance, field: str, asked: int, words: str
) -> Repair | None:
    def holds(value: int) -> bool:
        variant = changes.with_workload(instance, **{field: value})
        return changes.consistent(variant) and allowance.feasible(variant)

    high, low = asked, asked // 2
    while low and not holds(low):
        high, low = low, low // 2
        if low < asked // 256:
            return None
    if not low:
        return None
    while high - low > max(1, asked // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    variant = changes.with_workload(instance, **{field: low})
    solution = allowance.solved(variant)
    if solution.plan is None:
        return None
    change = f"{words} {low:,} instead of {asked:,}"
    return Repair(words, change, 1 - low / asked, True, variant, solution)
