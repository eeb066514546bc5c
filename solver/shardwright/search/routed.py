"""Routed pipelines solved: intervals for nodes, a bound, and the front over depth.

Chains of blocks give the placement, refuted flows the bound; where they differ, local
search uses what is left of the time. A cap on latency is kept by the routes; its bound
is that of the stages which fit the latency at the least time per stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

from shardwright.problem.routed import SINK, SOURCE, RoutedProblem
from shardwright.schema.result import Status, StoppedBy
from shardwright.schema.routed import UTOK
from shardwright.search.base import Improvement, Interrupted, SearchLimits
from shardwright.search.routed_bounds import prove, work_bound
from shardwright.search.routed_chain import ChainSearch
from shardwright.search.routed_local import NOTHING, Found, improve
from shardwright.search.routed_routes import Caps, capped_flow
from shardwright.search.routed_split import joined

_MOVES_AT_ONCE = 2_000
_POINTS = 16
"""Points of a front, about, where routes are long: every second stage beyond 31, ..."""


@dataclass(frozen=True)
class Point:
    """The best under a cap on stages (None: no cap), and its bound in utok/s."""

    max_stages: int | None
    found: Found
    bound: int
    seconds: float

    @property
    def proven(self) -> bool:
        """Whether nothing better exists."""
        return self.found.value == self.bound

    @property
    def gap(self) -> float | None:
        """(bound - value) / bound; None without a placement."""
        if not self.found.value:
            return None
        return (self.bound - self.found.value) / self.bound

    @property
    def status(self) -> Status:
        """Of this point alone."""
        if self.found.value:
            return Status.OPTIMAL if self.proven else Status.FEASIBLE
        return Status.UNKNOWN if self.bound else Status.INFEASIBLE


@dataclass(frozen=True)
class RoutedOutcome:
    """The answer, the front below it (falling stages), and why it ended."""

    best: Point
    front: tuple[Point, ...]
    stopped_by: StoppedBy


@dataclass
class RoutedSearch:
    """One solve; what has been found survives an interruption."""

    problem: RoutedProblem
    caps: Caps
    limits: SearchLimits
    best: Found = NOTHING
    bound: int = 0
    front: list[Point] = field(default_factory=list)
    _chains: ChainSearch | None = None
    _rounds: int = 0

    def run(self, *, with_front: bool) -> RoutedOutcome:
        """Solve within the limits; ``with_front`` also for every cap on stages."""
        self.bound = work_bound(self.problem, self._most_stages())
        stopped: StoppedBy = "time"
        try:
            self._solve()
            if with_front and self.best.value:
                self._front()
            while not self._enough():
                self.limits.poll()
                self._polish()
        except Interrupted as interrupted:
            stopped = interrupted.stopped_by
        if self.bound == self.best.value and stopped != "user":
            stopped = "proof"
        elif self._enough() and stopped != "user":
            stopped = "gap"
        seconds = self.limits.elapsed_s()
        best = Point(self.caps.stages, self.best, self.bound, seconds)
        return RoutedOutcome(best, tuple(self._whole_front(best)), stopped)

    def _whole_front(self, best: Point) -> list[Point]:
        """The front with what was found after it: more flow in no more stages."""
        if not self.front or self.front[0].found.value == best.found.value:
            return self.front
        stages = best.found.flow.stages
        kept = [p for p in self.front if p.found.value < best.found.value]
        first = replace(best, max_stages=stages)
        return [first, *(p for p in kept if p.found.flow.stages < stages)]

    def _solve(self) -> None:
        problem, stages = self.problem, self._most_stages()
        self._chains = chains = ChainSearch(problem, self.bound, self.limits)
        for found in self._candidates(chains, stages):
            self._take(found)
        self.bound = prove(problem, self.best.value, self.bound, stages, self.limits)
        self._report()
        if self.best.value:
            self._take(self._shallower(chains, self.best, stages))
        if not self._enough():
            self._take(joined(problem, self.caps, self.limits, self.best))
            self._report()

    def _candidates(self, chains: ChainSearch, stages: int | None) -> Iterator[Found]:
        """The best chain, and under a cap on latency also shallower ones."""
        found = chains.best(stages, self.bound, NOTHING)
        yield found
        while self.caps.latency_ms is not None and found.flow.stages > 1:
            capped = capped_flow(self.problem, found.placement, self.caps)
            if capped.value == found.value:
                return
            found = chains.best(found.flow.stages - 1, found.value, NOTHING)
            yield found

    def _take(self, found: Found) -> None:
        """Keep it if it is better under the caps: more flow, or as much less deep."""
        if self.caps.latency_ms is not None and found.value:
            flow = capped_flow(self.problem, found.placement, self.caps)
            found = Found(found.placement, flow)
        rank = (found.value, -found.flow.stages)
        if rank > (self.best.value, -self.best.flow.stages):
            self.best = found

    def _front(self) -> None:
        """Ever fewer stages, until none are enough; each point with its own bound."""
        assert self._chains is not None
        found, upper = self.best, self.bound
        step = max(1, found.flow.stages // _POINTS)
        if found.value < upper:
            cap = found.flow.stages
            upper = prove(self.problem, found.value, upper, cap, self.limits)
        self._add(found, upper)
        while found.flow.stages > 1:
            cap = max(1, found.flow.stages - step)
            found = self._chains.best(cap, upper, NOTHING)
            if found.value:
                found = self._shallower(self._chains, found, cap)
                cap = found.flow.stages
            upper = min(upper, work_bound(self.problem, cap))
            upper = prove(self.problem, found.value, upper, cap, self.limits)
            self.limits.poll()
            if not found.value:
                return
            self._add(found, upper)

    def _add(self, found: Found, bound: int) -> None:
        """The point, in place of one with as much flow and more stages."""
        if self.front and self.front[-1].found.value == found.value:
            self.front.pop()
        seconds = self.limits.elapsed_s()
        self.front.append(Point(found.flow.stages, found, bound, seconds))

    def _shallower(
        self, chains: ChainSearch, found: Found, stages: int | None
    ) -> Found:
        """The same flow with the fewest stages that a chain needs for it."""
        self.limits.poll()
        other = chains.at(found.value, stages, least=True)
        if other is None or other.value < found.value:
            return found
        return min(found, other, key=lambda f: (-f.value, f.flow.stages))

    def _polish(self) -> None:
        # another seed every time: the same moves would only be tried again
        limits = replace(self.limits, seed=self.limits.seed + self._rounds)
        starts = [self.best, *(point.found for point in self.front), NOTHING]
        start, before = starts[self._rounds % len(starts)], self.best.value
        self._rounds += 1
        found = improve(
            self.problem, start, self.caps, limits, _MOVES_AT_ONCE, self.bound
        )
        self._take(found)
        if self.best.value > before:
            self._report()

    def _enough(self) -> bool:
        if not self.best.value:
            return self.bound == 0
        return self.bound - self.best.value <= self.limits.gap * self.bound

    def _most_stages(self) -> int | None:
        """Stages that both caps allow; None without a cap."""
        stages, latency = self.caps.stages, self.caps.latency_ms
        least = _least_stage_ms(self.problem)
        if latency is None or not least:
            return stages
        # one more than fits, so that rounding never cuts a route off
        fitting = int(Fraction(latency) / Fraction(least)) + 1
        return fitting if stages is None else min(stages, fitting)

    def _report(self) -> None:
        value, bound = self.best.value // UTOK, self.bound // UTOK
        self.limits.report(Improvement(self.limits.elapsed_s(), value, bound))


def _least_stage_ms(problem: RoutedProblem) -> float:
    """The least time of a hop and the stage behind it."""
    hops = [ms for (a, b), ms in problem.link_ms.items() if a != SOURCE and b != SINK]
    tables = [min(table) for table in problem.stage_ms if table]
    stage = min(tables) if len(tables) == len(problem.stage_ms) else 0.0
    return stage + min(hops, default=0.0)
