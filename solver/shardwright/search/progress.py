"""What a lexicographic search knows: its plan, its bounds, what is settled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shardwright.formulations.cpsat.patterns import FleetRows
from shardwright.problem import Fleet, Problem
from shardwright.schema.result import Status, StoppedBy
from shardwright.search.base import Improvement, SearchLimits, SearchOutcome
from shardwright.search.goals import better, fleet_values, sense
from shardwright.search.verify import verified

LINEAR = frozenset({"gpus", "cost", "throughput"})
"""Goals that are sums over the replicas."""


@dataclass
class Progress:
    """The state of one lexicographic search."""

    problem: Problem
    limits: SearchLimits
    rows: FleetRows = field(default_factory=FleetRows)
    fleet: Fleet | None = None
    values: tuple[int, ...] = ()
    bounds: list[int | None] = field(default_factory=list)
    open_bound: int | None = None
    trajectory: list[Improvement] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    gap_used: bool = False

    def _tighten(self, goal: str, bound: int | None) -> None:
        """Keep the better of two bounds on the goal at hand."""
        if bound is None:
            return
        old = self.open_bound
        worse = old is not None and sense(goal) * bound < sense(goal) * old
        self.open_bound = old if worse else bound

    def _within_gap(self, goal: str) -> bool:
        """Whether the first goal's plan is within the asked gap of the bound."""
        index = len(self.bounds)
        if not self.limits.gap or self.fleet is None or self.open_bound is None:
            return False
        if index >= len(self.values) or goal not in LINEAR:
            return False
        value, bound = self.values[index], self.open_bound
        within = abs(value - bound) <= self.limits.gap * abs(bound)
        return within and value != bound

    def _keep_fleet(self, fleet: Fleet, final: bool) -> None:
        """Keep a plan when it is better, or when a goal has just been settled."""
        values = fleet_values(self.problem, fleet)
        worse = self.values and not better(self.problem.goals, values, self.values)
        if worse and not final:
            return
        self.fleet, self.values = fleet, values
        bound = self.bounds[0] if self.bounds else self.open_bound
        point = Improvement(self.limits.elapsed_s(), values[0], bound)
        self.trajectory.append(point)
        self.limits.report(point)

    def outcome(self, status: Status, stopped_by: StoppedBy) -> SearchOutcome:
        """What is known now."""
        has_plan = status in (Status.OPTIMAL, Status.FEASIBLE)
        goals = len(self.problem.goals)
        bounds: list[int | None] = [*self.bounds]
        if len(bounds) < goals:
            bounds.append(self.open_bound)
        bounds += [None] * (goals - len(bounds))
        known = SearchOutcome(
            status,
            stopped_by,
            None,
            bounds=tuple(bounds) if status is not Status.INFEASIBLE else (),
        )
        if has_plan and self.fleet is not None:
            known = verified(
                "default", self.problem, self.fleet, status, stopped_by, known.bounds
            )
        return replace(
            known, trajectory=tuple(self.trajectory), model_size=dict(self.sizes)
        )
