"""What every solver is given and returns: one protocol, one outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from time import monotonic
from typing import Protocol

from shardwright.problem import Fleet, Problem
from shardwright.schema.errors import UnsupportedRule
from shardwright.schema.result import Status, StoppedBy


class Interrupted(Exception):
    """Raised inside a search when its time is up or the user asked to stop."""

    def __init__(self, stopped_by: StoppedBy) -> None:
        self.stopped_by: StoppedBy = stopped_by
        super().__init__(stopped_by)


@dataclass(frozen=True)
class Improvement:
    """Value and bound of the first goal at one moment of the search."""

    seconds: float
    value: int | None
    bound: int | None


@dataclass(frozen=True)
class SearchLimits:
    """Limits and resources of one search.

    ``stop`` is polled between steps and during engine calls; it returns whether the
    user asked to stop. ``report`` hears of every improvement. ``gap`` is the relative
    gap at which the search may end.
    """

    time_limit_s: float = 60.0
    gap: Fraction = Fraction(0)
    workers: int = 2
    seed: int = 0
    stop: Callable[[], bool] = lambda: False
    report: Callable[[Improvement], None] = lambda improvement: None
    started: float = field(default_factory=monotonic)

    def elapsed_s(self) -> float:
        """Seconds since the search began."""
        return monotonic() - self.started

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.time_limit_s - self.elapsed_s())

    def poll(self) -> None:
        """Raise Interrupted when the search has to end."""
        if self.stop():
            raise Interrupted("user")
        if self.remaining_s() <= 0:
            raise Interrupted("time")


@dataclass(frozen=True)
class SearchOutcome:
    """What a solver found and proved.

    ``values`` and ``bounds`` hold one integer per goal in the goal's integer unit
    (see ``goals.py``); both are empty without a fleet, except that a bound proven
    without a plan may stand alone. OPTIMAL: bounds equal values for every goal.
    """

    status: Status
    stopped_by: StoppedBy
    fleet: Fleet | None
    values: tuple[int, ...] = ()
    bounds: tuple[int | None, ...] = ()
    trajectory: tuple[Improvement, ...] = ()
    model_size: dict[str, int] = field(default_factory=dict)


class Solver(Protocol):
    """A strategy over the programs."""

    @property
    def name(self) -> str:
        """Name used by ``--solver``."""

    def solve(self, problem: Problem, limits: SearchLimits) -> SearchOutcome:
        """Optimise the goals of ``problem`` lexicographically."""


def require_goals(solver: str, problem: Problem, known: frozenset[str]) -> None:
    """Refuse goals that a solver does not model."""
    for goal in problem.goals:
        if goal not in known:
            raise UnsupportedRule(solver, f"objective {goal}")


def require_plain(solver: str, problem: Problem) -> None:
    """Refuse pools, targets on percentiles and survival of failures."""
    if any(point.role != "mixed" for point in problem.points):
        raise UnsupportedRule(solver, "pools of prefill and decode replicas")
    if problem.bounds.targets:
        raise UnsupportedRule(solver, "targets on percentiles")
    if problem.bounds.survive:
        raise UnsupportedRule(solver, "survive")


def require_single_islands(solver: str, problem: Problem) -> None:
    """Refuse stages that spread over several islands."""
    if any(unit.islands > 1 for unit in problem.units):
        raise UnsupportedRule(solver, "stages that spread over several islands")
