"""The MILP twin of the direct program, solved by HiGHS or CBC through PuLP.

Floating point proposes, integers decide: every answer is evaluated exactly. A rate
claimed above the true one splits an interval of TPOT (``formulations/milp/steps.py``);
an answer that breaks a rule by less than the engine's tolerance, or whose value is not
the engine's bound, is kept if it is good and excluded either way. A goal is proven
when the engine's bound, rounded to the next integer, meets an exact value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from shardwright.formulations.milp import model as twin
from shardwright.formulations.milp.constraints import wait_grain
from shardwright.formulations.milp.engine import Backend, EngineRun, run
from shardwright.formulations.milp.objective import exclude, keep, optimise
from shardwright.formulations.milp.steps import Steps
from shardwright.formulations.milp.variables import Program
from shardwright.formulations.ranges import StageTables
from shardwright.formulations.shape import Needs, Shape
from shardwright.problem import Fleet, Problem
from shardwright.schema.errors import SolverFailure
from shardwright.schema.result import Status, StoppedBy
from shardwright.search.base import (
    SearchLimits,
    SearchOutcome,
    require_goals,
    require_plain,
)
from shardwright.search.goals import ALL_GOALS, fleet_fits, fleet_values, sense
from shardwright.search.verify import verified

_CLAIM = 0.01
"""A rate claimed by this much above the true one is a claim, not rounding noise."""


@dataclass
class _Search:
    """State of one search: what has been split, excluded, settled and found."""

    problem: Problem
    limits: SearchLimits
    backend: Backend
    presolve: bool
    steps: Steps
    settled: list[int] = field(default_factory=list)
    bounds: list[int | None] = field(default_factory=list)
    excluded: list[list[str]] = field(default_factory=list)
    fleet: Fleet | None = None
    size: dict[str, int] = field(default_factory=dict)

    def run(self) -> Status:
        """Settle every goal in its order."""
        for goal in self.problem.goals:
            status = self._settle(goal)
            if status is not Status.OPTIMAL:
                return status
        return Status.OPTIMAL

    def _settle(self, goal: str) -> Status:
        """Solve, look, refine, until the bound meets the best exact value."""
        best = self._signed(goal) if self.fleet else None
        while True:
            program = self._build(goal)
            found = self._run(program)
            self._count(program)
            bound = self._rounded(program, goal, found)
            if found.status is Status.INFEASIBLE:
                bound = best
            if best is not None and bound is not None and bound >= best:
                return self._prove(goal, best)
            if found.status is Status.INFEASIBLE:
                return Status.INFEASIBLE
            if found.found and self._look(program, found, goal, best):
                best = self._signed(goal)
            if found.status is not Status.OPTIMAL:
                self.bounds.append(None if bound is None else sense(goal) * bound)
                return Status.FEASIBLE if self.fleet else Status.UNKNOWN
            if best is not None and bound is not None and bound >= best:
                return self._prove(goal, best)

    def _run(self, program: Program) -> EngineRun:
        """INFEASIBLE counts when presolve on and off say so: each has lied alone."""
        found = run(program.lp, self.limits, self.backend, presolve=self.presolve)
        if found.status is not Status.INFEASIBLE:
            return found
        return run(program.lp, self.limits, self.backend, presolve=not self.presolve)

    def _rounded(self, program: Program, goal: str, found: EngineRun) -> int | None:
        """Goals are integers, so a bound may be rounded up: less a half for the
        tolerances, or less half the grain of the wait that a TTFT contains."""
        if found.bound is None:
            return None
        slack = wait_grain(program) / 2 if goal == "ttft" else 0.5
        return ceil(found.bound - slack)

    def _build(self, goal: str) -> Program:
        program = twin.build(self.problem, self.steps)
        assert program is not None, "the shape has slots"
        for earlier, value in zip(self.problem.goals, self.settled, strict=False):
            keep(program, earlier, value)
        for names in self.excluded:
            exclude(program, names)
        optimise(program, goal)
        return program

    def _count(self, program: Program) -> None:
        self.size["runs"] = self.size.get("runs", 0) + 1
        self.size["variables"] = len(program.lp.variables())
        self.size["constraints"] = program.rows

    def _prove(self, goal: str, best: int) -> Status:
        self.settled.append(best)
        self.bounds.append(sense(goal) * best)
        return Status.OPTIMAL

    def _signed(self, goal: str) -> int:
        assert self.fleet is not None
        return self._signed_values(self.fleet)[self.problem.goals.index(goal)]

    def _signed_values(self, fleet: Fleet) -> list[int]:
        values = fleet_values(self.problem, fleet)
        return [sense(g) * v for g, v in zip(self.problem.goals, values, strict=True)]

    def _look(
        self, program: Program, found: EngineRun, goal: str, best: int | None
    ) -> bool:
        """Evaluate an answer exactly; whether it is the best for the goal."""
        fleet = twin.decode(program, found)
        good = fleet_fits(self.problem, fleet) and self._keeps_earlier(fleet)
        better = False
        if good:
            value = self._signed_values(fleet)[self.problem.goals.index(goal)]
            better = best is None or value < best
        if better:
            self.fleet = fleet
        if not self._split(program, found, fleet):
            self.excluded.append(twin.chosen_arcs(program, found))
        return better

    def _keeps_earlier(self, fleet: Fleet) -> bool:
        values = self._signed_values(fleet)
        return all(v <= s for v, s in zip(values, self.settled, strict=False))

    def _split(self, program: Program, found: EngineRun, fleet: Fleet) -> bool:
        """Split at the true TPOT wherever a rate was claimed above the true one."""
        if not self.steps.sequences or not Needs.of(self.problem).rate:
            return False
        split = False
        claims = twin.claimed_rates(program, found)
        for replica, claim in zip(fleet.replicas, claims, strict=True):
            figures = self.problem.figures(replica.design)
            if claim > figures.rate_mtok_per_s + _CLAIM:
                point = replica.design.point
                split |= self.steps.split(point, figures.tpot_ns)
        return split


@dataclass(frozen=True)
class MilpSolver:
    """MILP over layer boundaries, islands, points and replica slots."""

    name: str = "milp-highs"
    presolve: bool = False

    @property
    def backend(self) -> Backend:
        """Engine of the name."""
        return "cbc" if self.name == "milp-cbc" else "highs"

    def solve(self, problem: Problem, limits: SearchLimits) -> SearchOutcome:
        """Lexicographic goals; each later one among the optima of the earlier."""
        require_goals(self.name, problem, ALL_GOALS)
        require_plain(self.name, problem)
        shape = Shape(problem, StageTables(problem))
        if not problem.points or not shape.slots:
            return SearchOutcome(Status.INFEASIBLE, "proof", None)
        steps = twin.first_steps(problem, shape)
        search = _Search(problem, limits, self.backend, self.presolve, steps)
        status = search.run()
        stopped: StoppedBy = "user" if limits.stop() else "time"
        if stopped == "time" and limits.remaining_s() > 0:
            stopped = "error"  # the engine gave up, or its answer was a lie
        if status is Status.INFEASIBLE:
            if search.fleet is not None:
                raise SolverFailure(f"{self.name}: a goal undid an earlier one")
            return SearchOutcome(status, "proof", None, model_size=search.size)
        bounds = (*search.bounds, *[None] * len(problem.goals))[: len(problem.goals)]
        if search.fleet is None:
            return SearchOutcome(
                status, stopped, None, bounds=bounds, model_size=search.size
            )
        if status is Status.OPTIMAL:
            stopped = "proof"
        return verified(
            self.name, problem, search.fleet, status, stopped, bounds, search.size
        )
