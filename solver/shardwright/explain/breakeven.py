"""How far a feasible instance goes: rate, context, memory, and the cheapest GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shardwright.explain import changes
from shardwright.explain.repairs import sustained_per_s
from shardwright.explain.solving import Allowance, OutOfTime
from shardwright.ingest import catalogue
from shardwright.schema.instance import Instance


@dataclass(frozen=True)
class BreakEven:
    """The last value of a field with which a plan exists.

    ``exact`` says that it is the optimum or that the next step (1%) was solved and
    fails; without it the time ran out.
    """

    field: str
    asked: str
    last: str
    exact: bool


def break_evens(instance: Instance, allowance: Allowance) -> list[BreakEven]:
    """Largest rate and context, smallest memory fraction, cheapest GPU type."""
    found = []
    for one in (_rate, _memory, _context, _cheapest):
        try:
            found += list(one(instance, allowance))
        except OutOfTime:
            break
    return found


def _rate(instance: Instance, allowance: Allowance) -> Iterator[BreakEven]:
    solution = allowance.solved(changes.without_rate(instance))
    asked = instance.workload.request_rate_per_s
    if solution.plan is None:
        return
    exact = solution.status.value == "OPTIMAL"
    words = "-" if asked is None else f"{asked:g}/s"
    last = f"{sustained_per_s(solution):g}/s"
    yield BreakEven("largest request rate", words, last, exact)


def _memory(instance: Instance, allowance: Allowance) -> Iterator[BreakEven]:
    asked = instance.limits.memory_fraction

    def holds(permille: int) -> bool:
        share = permille / 1000
        return allowance.feasible(changes.with_limits(instance, memory_fraction=share))

    low, high = 1, int(asked * 1000)
    while high - low > 5:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    last = f"{high / 10:.1f}%"
    yield BreakEven("smallest memory fraction", f"{asked:.1%}", last, True)


def _context(instance: Instance, allowance: Allowance) -> Iterator[BreakEven]:
    asked = instance.workload.max_context_tokens
    longest = instance.model.max_position_tokens or 64 * asked

    def holds(tokens: int) -> bool:
        variant = changes.with_workload(instance, max_context_tokens=tokens)
        return changes.consistent(variant) and allowance.feasible(variant)

    top = _last(asked, longest, holds)
    words = f"{top:,} tokens" + (" (the model's limit)" if top == longest else "")
    yield BreakEven("longest context", f"{asked:,} tokens", words, True)


def _last(low: int, top: int, holds: Callable[[int], bool]) -> int:
    """Largest value in [low, top] to 1% that holds; ``low`` does."""
    if low >= top or holds(top):
        return max(low, top)
    high = low
    while 2 * high < top and holds(2 * high):
        high *= 2
    low, high = high, min(2 * high, top)
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _cheapest(instance: Instance, allowance: Allowance) -> Iterator[BreakEven]:
    """The cheapest catalogue type of which as many GPUs as now suffice."""
    gpus = sum(g.count * g.gpus for g in instance.cluster.nodes)
    mine = [instance.cluster.gpu_types[g.gpu] for g in instance.cluster.nodes]
    prices = {n: catalogue.gpu(n).price_usd_per_hour for n in catalogue.names("gpu")}
    now = sum(
        g.count * g.gpus * (instance.cluster.gpu_types[g.gpu].price_usd_per_hour or 0.0)
        for g in instance.cluster.nodes
    )
    if not now:
        return
    priced = sorted((p, n) for n, p in prices.items() if p)
    asked = f"{mine[0].name} ({now:,.2f} USD/h)"
    last = "none of the catalogue is cheaper and suffices"
    for price, name in priced:
        if price * gpus >= now:
            break
        variant = changes.with_gpu(instance, name)
        if changes.consistent(variant) and allowance.feasible(variant):
            last = f"{name} ({price * gpus:,.2f} USD/h)"
            break
    yield BreakEven("cheapest GPU type", asked, last, True)
