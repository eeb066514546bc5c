"""The best figure of every target, with everything else as asked."""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.explain import changes
from shardwright.explain.repairs import attainable_ms, sustained_per_s, target_words
from shardwright.explain.solving import Allowance, OutOfTime
from shardwright.plan.tables.serving import against_ns
from shardwright.schema.instance import Instance
from shardwright.schema.workload import SloTarget


@dataclass(frozen=True)
class Attainable:
    """One thing asked for; ``best`` in ``unit``, None when nothing helps.

    ``at_largest_rate``: the figure of the plan that sustains the largest rate.
    ``floor``: the best there is on this cluster when nothing else is asked.
    """

    target: str
    asked: float
    best: float | None
    unit: str
    words: str
    at_largest_rate: float | None = None
    floor: float | None = None


def attainable(instance: Instance, allowance: Allowance) -> list[Attainable]:
    """The request rate, then every target, each to 1%; fewer when time runs out."""
    found: list[Attainable] = []
    try:
        rate = instance.workload.request_rate_per_s
        if rate is not None:
            found.append(_rate(instance, rate, allowance))
        for target in instance.slo:
            best = attainable_ms(instance, target, allowance)
            words = "not this one alone" if best is None else f"{best:,.4g} ms"
            asked, there = float(target.limit_ms), _there(instance, target, allowance)
            name = target_words(target)
            floor = None
            if best is None and there is None:
                alone = changes.only_target(instance, target)
                floor = attainable_ms(alone, target, allowance)
            found.append(Attainable(name, asked, best, "ms", words, there, floor))
    except OutOfTime:
        pass
    return found


def _there(instance: Instance, target: SloTarget, allowance: Allowance) -> float | None:
    """What the plan of the largest rate has, ms; None where no rate is asked."""
    if instance.workload.request_rate_per_s is None:
        return None
    view = allowance.solved(changes.without_rate(instance)).plan
    return None if view is None else against_ns(view, target) / 1e6


def _rate(instance: Instance, asked: float, allowance: Allowance) -> Attainable:
    solution = allowance.solved(changes.without_rate(instance))
    if solution.plan is None:
        return Attainable("request rate", asked, None, "/s", "not this one alone")
    rate = sustained_per_s(solution)
    return Attainable("request rate", asked, rate, "/s", f"{rate:g}/s", rate)
