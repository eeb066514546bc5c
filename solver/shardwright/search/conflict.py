"""Why nothing fits: a minimal set of rules that cannot hold together.

Deletion filter: each rule in turn is dropped; when the rest is still infeasible it
stays out. What remains is infeasible and becomes feasible without any one rule.
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

    The unit of ``best`` is the goal's integer unit (``goals.py``), bytes for memory.
    ``structural`` says that no design exists even without all of these rules.
    """

    rules: tuple[str, ...]
    best: dict[str, int]
    verified: bool
    structural: bool = False


def present_rules(problem: Problem) -> list[str]:
    """Rules that are in force in this problem."""
    b = problem.bounds
    return [r for r, (name, off) in _RELAXED.items() if getattr(b, name) != off]


def without(problem: Problem, rules: list[str]) -> Problem:
    """The problem with some rules dropped."""
    changes = dict(_RELAXED[rule] for rule in rules)
    return replace(problem, bounds=replace(problem.bounds, **changes))


def minimal_conflict(problem: Problem, limits: SearchLimits) -> MinimalConflict:
    """A minimal conflict of an infeasible problem, with the best attainable figures."""
    kept, dropped = present_rules(problem), list[str]()
    verified = True
    try:
        if not _feasible(without(problem, kept), limits):
            return MinimalConflict((), {}, True, structural=True)
    except Undecided:
        return MinimalConflict(tuple(kept), {}, False)
    for rule in list(kept):
        try:
            if not _feasible(without(problem, [*dropped, rule]), limits):
                dropped.append(rule)
                kept.remove(rule)
        except Undecided:
            verified = False
    best = _best_figures(problem, kept, limits)
    if not best:
        best = _best_figures(without(problem, dropped), kept, limits)
    return MinimalConflict(tuple(kept), best, verified)


def _feasible(problem: Problem, limits: SearchLimits) -> bool:
    outcome = _solve(problem, ("throughput",), limits)
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
    for rule in rules:
        if rule in goals:
            outcome = _solve(without(problem, [rule]), (goals[rule],), limits)
            if outcome.status is Status.OPTIMAL:
                best[rule] = outcome.values[0]
        elif rule == "memory_fits":
            try:
                best[rule] = least_capacity_bytes(problem, limits)
            except Undecided:
                continue
    return best


def least_capacity_bytes(problem: Problem, limits: SearchLimits) -> int:
    """Least usable bytes per GPU, the same on every class, with which a plan exists."""

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
