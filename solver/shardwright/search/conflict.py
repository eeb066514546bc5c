"""Why nothing fits: a minimal set of rules that cannot hold together.

Deletion filter: rules are dropped; when the rest is still infeasible they stay out.
Whole runs of rules are tried first and halved where they matter. What remains is
infeasible and becomes feasible without any one rule: a rule that was needed beside more
rules is needed beside fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from shardwright.problem import GpuClass, Problem
from shardwright.schema.result import Status
from shardwright.search.base import SearchLimits, SearchOutcome
from shardwright.search.decomposition import DecompositionSolver

_RELAXED: dict[str, tuple[str, Any]] = {
    "fix.dp": ("replicas", None),
    "fix.layers": ("split", None),
    "fix.pp": ("stages", None),
    "communication_share": ("communication_share", None),
    "compute_imbalance": ("compute_imbalance", None),
    "memory_imbalance": ("memory_imbalance", None),
    "max_cost_usd_per_hour": ("max_cost_micro_usd_per_hour", None),
    "max_gpus": ("max_gpus", None),
    "spare_gpus": ("spare_gpus", 0),
    "survive": ("survive", ()),
    "e2e_limit": ("e2e_ns", None),
    "ttft_limit": ("ttft_ns", None),
    "prefill_limit": ("prefill_ns", None),
    "tpot_limit": ("tpot_ns", None),
    "request_rate": ("rate_mtok_per_s", None),
    "memory_fits": ("memory_fits", False),
}
"""Rule -> bound and its value when dropped; the rules tried last are blamed first."""


class Undecided(Exception):
    """The time did not suffice to decide a relaxed problem."""


@dataclass(frozen=True)
class MinimalConflict:
    """Rules that conflict; ``best`` maps a rule to what is attainable without it.

    The unit of ``best`` is the goal's integer unit (``goals.py``), bytes for memory;
    all other rules are kept, or those of the conflict alone for the rules in ``aside``.
    ``structural`` says that no design exists even without all of these rules.
    """

    rules: tuple[str, ...]
    best: dict[str, int]
    verified: bool
    structural: bool = False
    aside: frozenset[str] = frozenset()


_METRICS: dict[str, frozenset[str]] = {
    "e2e_limit": frozenset({"e2e"}),
    "ttft_limit": frozenset({"ttft"}),
    "prefill_limit": frozenset({"prefill"}),
    "tpot_limit": frozenset({"tpot", "itl"}),
}
"""Rule -> metrics of the percentile targets that belong to it."""


def present_rules(problem: Problem) -> list[str]:
    """Rules that are in force in this problem."""
    b = problem.bounds
    limited = {t.metric for t in b.targets}
    return [
        rule
        for rule, (name, off) in _RELAXED.items()
        if getattr(b, name) != off or limited & _METRICS.get(rule, frozenset())
    ]


def without(problem: Problem, rules: list[str]) -> Problem:
    """The problem with some rules dropped."""
    changes = dict(_RELAXED[rule] for rule in rules)
    dropped = frozenset().union(*(_METRICS.get(rule, frozenset()) for rule in rules))
    kept = tuple(t for t in problem.bounds.targets if t.metric not in dropped)
    bounds = replace(problem.bounds, **changes, targets=kept)
    return replace(problem, bounds=bounds)


def minimal_conflict(problem: Problem, limits: SearchLimits) -> MinimalConflict:
    """A minimal conflict of an infeasible problem, with the best attainable figures."""
    present = present_rules(problem)
    try:
        if not _feasible(without(problem, present), limits):
            return MinimalConflict((), {}, True, structural=True)
    except Undecided:
        return MinimalConflict(tuple(present), {}, False)
    dropped: list[str] = []
    verified = _drop(problem, present, dropped, limits)
    kept = [rule for rule in present if rule not in dropped]
    best = _best_figures(problem, kept, limits)
    others = [rule for rule in kept if rule not in best]
    aside = _best_figures(without(problem, dropped), others, limits)
    known = {**best, **aside}
    return MinimalConflict(tuple(kept), known, verified, aside=frozenset(aside))


def _drop(
    problem: Problem, rules: list[str], dropped: list[str], limits: SearchLimits
) -> bool:
    """Add to ``dropped`` what is not needed; False where that was not decided."""
    try:
        if not _feasible(without(problem, [*dropped, *rules]), limits):
            dropped += rules
            return True
    except Undecided:
        if len(rules) == 1:
            return False
    if len(rules) == 1:
        return True
    middle = len(rules) // 2
    first = _drop(problem, rules[:middle], dropped, limits)
    return _drop(problem, rules[middle:], dropped, limits) and first


def _feasible(problem: Problem, limits: SearchLimits) -> bool:
    """Whether a plan exists: the first that is found is enough."""
    seen: list[object] = []
    enough = replace(
        limits, report=seen.append, stop=lambda: bool(seen) or limits.stop()
    )
    outcome = _solve(problem, ("throughput",), enough)
    if outcome.status in (Status.OPTIMAL, Status.FEASIBLE):
        return True
    if outcome.status is Status.INFEASIBLE:
        return False
    raise Undecided


def _solve(
    problem: Problem, goals: tuple[str, ...], limits: SearchLimits
) -> SearchOutcome:
    return DecompositionSolver().solve(replace(problem, goals=goals), limits)


def _best_figures(
    problem: Problem, rules: list[str], limits: SearchLimits
) -> dict[str, int]:
    """What each rule of the conflict could be at best while all others hold."""
    goals = {
        "request_rate": "throughput",
        "tpot_limit": "tpot",
        "ttft_limit": "ttft",
        "max_gpus": "gpus",
        "spare_gpus": "gpus",
        "max_cost_usd_per_hour": "cost",
    }
    best: dict[str, int] = {}
    limited = {t.metric for t in problem.bounds.targets}
    for rule in rules:
        if limited & _METRICS.get(rule, frozenset()):
            continue  # a goal is a mean, no percentile
        if rule in goals:
            outcome = _solve(without(problem, [rule]), (goals[rule],), limits)
            if outcome.status is Status.OPTIMAL:
                best[rule] = outcome.values[0]
        elif rule == "memory_fits":
            try:
                needed = least_capacity_bytes(problem, limits)
            except Undecided:
                continue
            if needed is not None:
                best[rule] = needed
    return best


def least_capacity_bytes(problem: Problem, limits: SearchLimits) -> int | None:
    """Least usable bytes per GPU, the same on every class, with which a plan exists.

    None when other rules rule every plan out, whatever the memory.
    """
    if not _feasible(without(problem, ["memory_fits"]), limits):
        return None

    def fits(capacity: int) -> bool:
        return _feasible(_with_capacity(problem, capacity), limits)

    low = high = max(k.capacity_bytes for k in problem.classes) + 1
    while not fits(high):
        low, high = high, 2 * high
    return _bisect(low, high, fits)


def _with_capacity(problem: Problem, capacity: int) -> Problem:
    def resized(k: GpuClass) -> GpuClass:
        return replace(k, capacity_bytes=capacity)

    return replace(problem, classes=tuple(resized(k) for k in problem.classes))


def _bisect(low: int, high: int, fits: Callable[[int], bool]) -> int:
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return low


def largest_rate_mtok(problem: Problem, limits: SearchLimits) -> int | None:
    """Largest proven rate with all other rules kept; None if there is no plan."""
    outcome = _solve(without(problem, ["request_rate"]), ("throughput",), limits)
    return outcome.values[0] if outcome.status is Status.OPTIMAL else None
