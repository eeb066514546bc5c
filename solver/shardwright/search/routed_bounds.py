"""What no placement can exceed, in whole utok/s."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardwright.formulations.cpsat.routed_covers import flow_refuted
from shardwright.problem.routed import RoutedProblem
from shardwright.problem.routed_groups import groups_of, regions_at
from shardwright.search.base import SearchLimits

_CALL_S = 20.0
"""Longest time for one refutation."""

_FINENESS = 10**5
"""How closely a bound that misses the value is worth knowing."""


def work_bound(problem: RoutedProblem, stages: int | None) -> int:
    """Every unit of flow takes L layers of work: the largest F with

        sum_i max_k (k - m) * min(rate_i(k), F) >= (L - m*D) * F

    for every whole price m of a stage, m = 0 without a cap D. Exact integers.
    """
    prices = range(max(len(c.rates) for c in problem.classes)) if stages else (0,)
    return min(_work_bound(problem, stages or 0, price) for price in prices)


def _work_bound(problem: RoutedProblem, stages: int, price: int) -> int:
    low, high = 0, problem.most_flow
    need = problem.layers - price * stages
    while low < high:
        flow = (low + high + 1) // 2
        if _work(problem, flow, price) >= need * flow:
            low = flow
        else:
            high = flow - 1
    return low


def _work(problem: RoutedProblem, flow: int, price: int) -> int:
    best = (
        max(0, *((k - price) * min(r, flow) for k, r in enumerate(c.rates, 1)))
        for c in problem.classes
    )
    return sum(n * most for n, most in zip(problem.counts, best, strict=True))


def prove(
    problem: RoutedProblem,
    value: int,
    upper: int,
    stages: int | None,
    limits: SearchLimits,
) -> int:
    """The least bound that refutations show, between ``value`` and ``upper``.

    ``value`` is known to be carried (0: nothing is). Each refuted flow bounds all; a
    limit or too many covers leaves the bound where it is. Regions make the program
    larger, so they are tried after it without them.
    """
    if upper <= value:
        return upper
    proof = _Proof(problem, stages, limits)
    if proof.refutes(value + 1):
        return value
    high = proof.bisect(value + 1, upper)
    if len(set(regions_at(problem, high))) > 1:
        proof = _Proof(problem, stages, limits, with_regions=True)
        if proof.refutes(value + 1):
            return value
        if high > value + 1 and proof.refutes(high):
            high = proof.bisect(value + 1, high - 1)
    return high


@dataclass(frozen=True)
class _Proof:
    problem: RoutedProblem
    stages: int | None
    limits: SearchLimits
    with_regions: bool = False

    def bisect(self, low: int, high: int) -> int:
        """The least bound from refutations above ``low``, which was not refuted."""
        while high - low > high // _FINENESS and not self._ended():
            flow = (low + high + 1) // 2
            # larger flows are easier to refute than one that was left open
            low, high = (low, flow - 1) if self.refutes(flow) else (flow, high)
        return high

    def refutes(self, flow: int) -> bool:
        """Whether ``flow`` is shown to be impossible."""
        if self._ended():
            return False
        regions = (0,) * len(self.problem.ids)
        if self.with_regions:
            regions = regions_at(self.problem, flow)
        groups = groups_of(self.problem, regions)
        limits = self.limits
        seconds = limits.elapsed_s() + min(limits.remaining_s(), _CALL_S)
        part = replace(limits, time_limit_s=seconds)
        layers = self.problem.layers
        return flow_refuted(groups, layers, flow, self.stages, part) is True

    def _ended(self) -> bool:
        return self.limits.stop() or self.limits.remaining_s() <= 0
