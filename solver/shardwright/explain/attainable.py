"""The best figure of every target, with everything else as asked."""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.explain import changes
from shardwright.explain.repairs import attainable_ms, sustained_per_s, target_words
from shardwright.explain.solving import Allowance, OutOfTime
from shardwright.schema.instance import Instance


@dataclass(frozen=True)
class Attainable:
    """One thing asked for; ``best`` in ``unit``, None when nothing helps."""

    target: str
    asked: float
    best: float | None
    unit: str
    words: str


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
            asked = float(target.limit_ms)
            found.append(Attainable(target_words(target), asked, best, "ms", words))
    except OutOfTime:
        pass
    return found


def _rate(instance: Instance, asked: float, allowance: Allowance) -> Attainable:
    solution = allowance.solved(changes.without_rate(instance))
    if solution.plan is None:
        return Attainable("request rate", asked, None, "/s", "not this one alone")
    rate = sustained_per_s(solution)
    return Attainable("request rate", asked, rate, "/s", f"{rate:g}/s")
