"""Solving variants of an instance within one allowance of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from shardwright.ingest import instance_sha256
from shardwright.problem import compile_problem
from shardwright.schema.errors import ShardwrightError
from shardwright.schema.instance import Instance
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import Interrupted, SearchLimits
from shardwright.solve import Solution, solve


class OutOfTime(Exception):
    """The allowance is used up, or the user asked to stop."""


@dataclass(frozen=True)
class Allowance:
    """Seconds for everything that is solved; counted from when it is made.

    What was solved once is known: the same variants answer several questions.
    """

    seconds: float
    workers: int = 2
    stop: Callable[[], bool] = lambda: False
    started: float = field(default_factory=monotonic)
    _solutions: dict[str, Solution] = field(default_factory=dict)
    _feasible: dict[str, bool] = field(default_factory=dict)

    def left_s(self) -> float:
        """Seconds left."""
        return max(0.0, self.seconds - (monotonic() - self.started))

    def check(self) -> None:
        """Raise OutOfTime when nothing is left."""
        if self.stop() or not self.left_s():
            raise OutOfTime

    def solved(self, instance: Instance) -> Solution:
        """The best plan of a variant; raises OutOfTime if undecided."""
        key = instance_sha256(instance)
        if key in self._solutions:
            return self._solutions[key]
        self.check()
        solution = solve(
            instance,
            time_limit_s=self.left_s(),
            workers=self.workers,
            stop=self.stop,
            explain=False,
        )
        if solution.plan is None and solution.status is not Status.INFEASIBLE:
            raise OutOfTime
        self._solutions[key] = solution
        self._feasible[key] = solution.plan is not None
        return solution

    def feasible(self, instance: Instance) -> bool:
        """Whether a variant has a plan; raises OutOfTime if undecided."""
        key = instance_sha256(instance)
        if key not in self._feasible:
            self.check()
            self._feasible[key] = self._decided(instance)
        return self._feasible[key]

    def _decided(self, instance: Instance) -> bool:
        try:
            problem = compile_problem(instance)
        except ShardwrightError:
            return False
        seen: list[object] = []
        limits = SearchLimits(
            self.left_s(),
            workers=self.workers,
            stop=lambda: bool(seen) or self.stop(),
            report=seen.append,
        )
        try:
            outcome = solver("default").solve(problem, limits)
        except Interrupted as interruption:
            raise OutOfTime from interruption
        if outcome.fleet is not None:
            return True
        if outcome.status is Status.INFEASIBLE:
            return False
        raise OutOfTime


def least(
    low: float, high: float, holds: Callable[[float], bool], step: float
) -> float:
    """Smallest value to a relative ``step`` in (low, high] at which ``holds``.

    ``holds(high)`` is known, ``holds(low)`` is known to fail; monotone.
    """
    while high > low * (1 + step):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
