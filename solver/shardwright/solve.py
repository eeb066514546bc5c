"""The one orchestrator: compile, search, decode, check, explain when nothing fits."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib import import_module
from typing import Any

from shardwright._callable import make_callable
from shardwright._version import __version__
from shardwright.alternatives import Alternatives
from shardwright.check import Report, check
from shardwright.ingest import instance_sha256
from shardwright.outcome import conflict_document, goal_bounds, goal_values
from shardwright.plan.decode import decode
from shardwright.plan.idle import why_idle
from shardwright.plan.view import PlanView
from shardwright.problem import ROUNDING, Compiler, Problem
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.plan import Plan
from shardwright.schema.result import (
    Conflict,
    ObjectiveValue,
    Result,
    Status,
    TrajectoryPoint,
)
from shardwright.search import solver as solver_named
from shardwright.search.base import Improvement, SearchLimits, SearchOutcome
from shardwright.search.conflict import (
    largest_rate_mtok,
    minimal_conflict,
    present_rules,
    without,
)

_LIBRARIES = ("ortools", "numpy", "pydantic")
_EXPLAIN_S = 10.0


@dataclass(frozen=True, eq=False)
class Solution:
    """What ``solve`` returns.

    ``plan`` is the checked plan, ``report`` the checker's. When ``fix`` asks for a
    plan that breaks rules, ``fixed`` is that plan as asked and ``fixed_report`` lists
    every rule that it breaks; the result itself is INFEASIBLE and has no plan.
    """

    instance: Instance
    result: Result
    plan: PlanView | None
    report: Report | None
    fixed: PlanView | None = None
    fixed_report: Report | None = None

    @property
    def status(self) -> Status:
        """The result's status."""
        return self.result.status

    def table(self, name: str) -> str:
        """A table of the plan; ValueError without one."""
        if self.plan is None:
            raise ValueError(f"{self.status.value}: there is no plan to show")
        return self.plan.table(name)


def solve(
    instance: Instance,
    *,
    solver: str = "default",
    time_limit_s: float = 60.0,
    gap: Fraction | float | str = 0,
    workers: int = 2,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[Improvement], None] | None = None,
    explain: bool = True,
) -> Solution:
    """Find the best plan of an instance and prove it.

    ``explain`` looks for a minimal conflict where nothing fits.

    Every plan passes the independent checker before it is returned; CheckFailed is
    raised otherwise (a bug, not a result). Infeasible instances, time limits and
    ``stop`` are results.
    """
    compiler = Compiler(instance)
    problem = compiler.problem()
    limits = SearchLimits(
        time_limit_s=time_limit_s,
        gap=Fraction(str(gap)),
        workers=workers,
        seed=seed,
        stop=stop or (lambda: False),
        report=on_progress or (lambda improvement: None),
    )
    outcome = solver_named(solver).solve(problem, limits)
    sha256 = instance_sha256(instance)
    case = _Case(instance, compiler, problem, limits, solver, sha256, explain)
    return case.solution(outcome)


@dataclass(frozen=True, eq=False)
class _Case:
    """One solve, from the search's outcome to documents."""

    instance: Instance
    compiler: Compiler
    problem: Problem
    limits: SearchLimits
    solver: str
    sha256: str
    explain: bool = True

    def solution(self, outcome: SearchOutcome, last: bool = False) -> Solution:
        """Decode, check and describe."""
        if outcome.fleet is None:
            return self._without_plan(outcome)
        plan = decode(self.instance, self.problem, outcome.fleet, self.sha256)
        outcome = self._as_named(outcome, plan)
        objectives = self._objectives(outcome, plan)
        report = check(self.instance, plan, objectives)
        if not (report.ok or last) and self.problem.tables.slower_hops:
            return self.solution(self._on_slowest_links(outcome), last=True)
        report.raise_if_bad()
        proven = outcome.status is Status.OPTIMAL
        result = self._result(outcome, objectives, plan)
        view = PlanView(
            self.instance,
            plan,
            result,
            report,
            why_idle(self.instance, self.problem, plan, proven=proven),
        )
        metrics = view.metrics | self._alternatives(plan, objectives, outcome.status)
        result = result.model_copy(update={"metrics": metrics})
        return Solution(self.instance, result, view.with_result(result), report)

    def _as_named(self, outcome: SearchOutcome, plan: Plan) -> SearchOutcome:
        """The outcome with the values that the links of the plan's GPUs allow."""
        values = goal_values(self.problem, plan)
        if not self.problem.tables.slower_hops or values == outcome.values:
            return outcome
        if values == outcome.bounds:
            return replace(
                outcome, values=values, status=Status.OPTIMAL, stopped_by="proof"
            )
        proven = outcome.status is Status.OPTIMAL
        why = "memory" if proven else outcome.stopped_by
        return replace(outcome, values=values, status=Status.FEASIBLE, stopped_by=why)

    def _on_slowest_links(self, outcome: SearchOutcome) -> SearchOutcome:
        """No GPUs of the islands keep a limit that their best links do: another plan.

        Every hop between islands is then taken for as slow as any; bounds stay.
        """
        tables = self.problem.tables
        decode_ns, prefill_ns = tables.slower_hops[-1]
        slow = replace(
            self.problem,
            reach=None,
            tables=replace(
                tables,
                hop_inter=decode_ns,
                prefill_hop_inter=prefill_ns,
                slower_hops=(),
            ),
        )
        found = solver_named(self.solver).solve(slow, self._more_time())
        status = Status.UNKNOWN if found.fleet is None else Status.FEASIBLE
        bounds = outcome.bounds if found.fleet is not None else ()
        return replace(found, status=status, stopped_by="memory", bounds=bounds)

    def _alternatives(
        self, plan: Plan, objectives: tuple[ObjectiveValue, ...], status: Status
    ) -> dict[str, Any]:
        """Where stages may be disaggregated: the best of both kinds, side by side."""
        both = Alternatives(self.instance, self.problem, self._as_much_time)
        if not both.worth_it:
            return {}
        return {"disaggregation": both.document(plan, objectives, status)}

    def _as_much_time(self) -> SearchLimits:
        """What is left, and at least what an explanation has."""
        seconds = max(self.limits.remaining_s(), _EXPLAIN_S)
        limits = self.limits
        return SearchLimits(
            seconds, gap=limits.gap, workers=limits.workers, stop=limits.stop
        )

    def _objectives(
        self, outcome: SearchOutcome, plan: Plan
    ) -> tuple[ObjectiveValue, ...]:
        values = goal_values(self.problem, plan)
        return goal_bounds(self.problem.goals, values, outcome.bounds)

    def _without_plan(self, outcome: SearchOutcome) -> Solution:
        empty: tuple[int | None, ...] = (None,) * len(self.problem.goals)
        objectives = goal_bounds(self.problem.goals, empty, outcome.bounds or empty)
        conflict = None
        fixed: tuple[PlanView, Report] | None = None
        if outcome.status is Status.INFEASIBLE and self.explain:
            conflict = self._conflict()
            if self.instance.fix != Fix():
                fixed = self._fixed_plan()
        result = self._result(outcome, objectives, None, conflict)
        if fixed is None:
            return Solution(self.instance, result, None, None)
        violations = [str(v.message) for v in fixed[1].violations]
        values = goal_values(self.problem, fixed[0].document)
        unproven: tuple[int | None, ...] = (None,) * len(values)
        claims = goal_bounds(self.problem.goals, values, unproven)
        alternatives = self._alternatives(fixed[0].document, claims, result.status)
        document = {
            "plan": fixed[0].document.model_dump(mode="json", by_alias=True),
            "violations": violations,
            "metrics": fixed[0].metrics,
        }
        metrics = {"fixed_plan": document, **alternatives}
        result = result.model_copy(update={"metrics": metrics})
        return Solution(self.instance, result, None, None, *fixed)

    def _more_time(self) -> SearchLimits:
        """Explaining has its own time: the proof of infeasibility is already there."""
        return SearchLimits(
            _EXPLAIN_S, workers=self.limits.workers, stop=self.limits.stop
        )

    def _conflict(self) -> Conflict:
        limits = self._more_time()
        found = minimal_conflict(self.problem, limits)
        rate = None
        if self.problem.bounds.rate_mtok_per_s is not None and not found.structural:
            rate = largest_rate_mtok(self.problem, limits)
        return conflict_document(
            self.instance, self.compiler, self.problem, found, rate
        )

    def _fixed_plan(self) -> tuple[PlanView, Report] | None:
        """The plan that ``fix`` asks for, with as few rules dropped as allow it."""
        kept = [r for r in present_rules(self.problem) if not r.startswith("fix.")]
        dropped: list[str] = []
        for rule in (None, "request_rate", *_DROP_ORDER):
            if rule is not None:
                if rule not in kept:
                    continue
                dropped.append(rule)
            goals = ("throughput", "tpot")
            relaxed = replace(without(self.problem, dropped), goals=goals)
            outcome = solver_named("default").solve(relaxed, self._more_time())
            if outcome.fleet is not None:
                plan = decode(self.instance, relaxed, outcome.fleet, self.sha256)
                report = check(self.instance, plan)
                return PlanView(self.instance, plan, report=report), report
        return None

    def _result(
        self,
        outcome: SearchOutcome,
        objectives: tuple[ObjectiveValue, ...],
        plan: Plan | None,
        conflict: Conflict | None = None,
    ) -> Result:
        first = self.problem.goals[:1]
        return Result(
            status=outcome.status,
            stopped_by=outcome.stopped_by,
            gap=_gap(outcome),
            objectives=objectives,
            plan=plan,
            metrics={},
            conflict=conflict,
            solve_seconds=round(self.limits.elapsed_s(), 3),
            solver=self.solver,
            seed=self.limits.seed,
            grid={**self.compiler.grid_document(), "rounding": ROUNDING},
            model_size=outcome.model_size,
            trajectory=tuple(_trajectory(first, i) for i in outcome.trajectory),
            instance_sha256=self.sha256,
            versions={**_versions(), **self.compiler.latency_versions()},
        )


_DROP_ORDER = (
    "e2e_limit",
    "ttft_limit",
    "prefill_limit",
    "tpot_limit",
    "compute_imbalance",
    "communication_share",
    "memory_imbalance",
    "survive",
    "spare_gpus",
    "max_gpus",
    "max_cost_usd_per_hour",
    "memory_fits",
)


def _gap(outcome: SearchOutcome) -> float | None:
    """Relative gap of the first goal whose bound is not its value; 0 when proven."""
    if outcome.fleet is None:
        return None
    for value, bound in zip(outcome.values, outcome.bounds, strict=True):
        if bound is None:
            return None
        if value != bound:
            return abs(value - bound) / max(abs(bound), 1)
    return 0.0


def _trajectory(goal: tuple[str, ...], point: Improvement) -> TrajectoryPoint:
    [objective] = goal_bounds(goal, (point.value,), (point.bound,))
    return TrajectoryPoint(
        seconds=round(point.seconds, 3), value=objective.value, bound=objective.bound
    )


def _versions() -> dict[str, Any]:
    return {
        "shardwright": __version__,
        "python": platform.python_version(),
        **{name: import_module(name).__version__ for name in _LIBRARIES},
    }


make_callable(__name__, solve)
