"""Pairs of changes, where no single one is enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from shardwright.explain import changes
from shardwright.explain.repairs import (
    STEP,
    Family,
    Repair,
    attainable_ms,
    lower_rate,
    more_gpus,
    target_words,
)
from shardwright.explain.solving import Allowance, OutOfTime, least
from shardwright.schema.instance import Instance

_LOOSEST = 2.0**20


def combined_repairs(
    instance: Instance, allowance: Allowance, most: int
) -> list[Repair]:
    """At most so many: formats, better GPUs or looser targets, and what they lack."""
    found: list[Repair] = []
    try:
        for repair in _pairs(instance, allowance):
            if len(found) >= most:
                break
            found.append(repair)
    except OutOfTime:
        pass
    return sorted(found, key=lambda r: r.size)


def _pairs(instance: Instance, allowance: Allowance) -> Iterator[Repair]:
    alone = looser_targets(instance, allowance)
    if alone is not None:
        yield alone
    for words, size, variant, seconds in _first_halves(instance, allowance):
        if not changes.consistent(variant):
            continue
        for second in seconds:
            repair = second(variant, allowance)
            if repair is not None:
                change = f"{words} and {repair.change}"
                larger = max(size, repair.size)
                yield replace(repair, kind="combined", change=change, size=larger)


def _first_halves(
    instance: Instance, allowance: Allowance
) -> Iterator[tuple[str, float, Instance, tuple[Family, ...]]]:
    """Changes that are not enough by themselves: words, size, variant, what may help.

    The size of a pair is that of its larger half.
    """
    targets: tuple[Family, ...] = (looser_targets,) if instance.slo else ()
    for words, variant in changes.smaller_formats(instance):
        size = changes.bytes_given_up(instance, variant)
        yield words, size, variant, (*targets, more_gpus)
    if instance.workload.request_rate_per_s is not None and instance.slo:
        factor = least_factor(changes.without_rate(instance), allowance)
        if factor is not None:
            loose = changes.with_looser_targets(instance, factor)
            words = _loose_words(instance, loose)
            yield words, factor - 1, loose, (lower_rate, more_gpus)
    mine = instance.cluster.gpu_types[instance.cluster.nodes[0].gpu]
    for name in changes.other_gpus(instance)[-2:]:
        variant = changes.with_gpu(instance, name)
        size = changes.gpu_step(mine, variant.cluster.gpu_types[name])
        yield name, size, variant, (*targets, more_gpus)


def looser_targets(instance: Instance, allowance: Allowance) -> Repair | None:
    """All targets looser by one factor, the least to 1%; then each back as far as

    it goes beside the others, so that none is looser than it must be.
    """
    factor = least_factor(instance, allowance)
    if factor is None or factor <= 1:
        return None
    loose = changes.with_looser_targets(instance, factor)
    for asked, target in zip(instance.slo, loose.slo, strict=True):
        limit = max(attainable_ms(loose, target, allowance) or 0.0, asked.limit_ms)
        if limit < target.limit_ms:
            loose = changes.with_target(loose, target, limit)
    solution = allowance.solved(loose)
    if solution.plan is None:
        return None
    change, size = _loose_words(instance, loose), _loosened(instance, loose)
    return Repair("combined", change, size, True, loose, solution)


def least_factor(instance: Instance, allowance: Allowance) -> float | None:
    """The least factor on all targets with which a plan exists; None if none does."""

    def holds(factor: float) -> bool:
        return allowance.feasible(changes.with_looser_targets(instance, factor))

    free = instance.model_copy(update={"slo": ()})
    if not instance.slo or not allowance.feasible(free):
        return None
    if holds(1.0):
        return 1.0
    high = 2.0
    while not holds(high):
        high *= 2
        if high > _LOOSEST:
            return None
    return round(least(high / 2, high, holds, STEP), 4)


def _loosened(instance: Instance, loose: Instance) -> float:
    pairs = zip(instance.slo, loose.slo, strict=True)
    return max(b.limit_ms / a.limit_ms for a, b in pairs) - 1


def _loose_words(instance: Instance, loose: Instance) -> str:
    pairs = zip(instance.slo, loose.slo, strict=True)
    changed = [b for a, b in pairs if b.limit_ms > a.limit_ms]
    return ", ".join(f"{target_words(t)} {t.limit_ms:,.4g} ms" for t in changed)
