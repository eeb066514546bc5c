"""The best plan with experts beside attention, and the best with experts apart.

Where an engine may disaggregate, one program has both kinds of stages; each kind is
then solved on its own, to its own proof, so that the answer says what the other one
would have been worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shardwright.check import check
from shardwright.ingest import instance_sha256
from shardwright.outcome import goal_bounds, goal_values
from shardwright.plan.decode import decode
from shardwright.plan.tables.summary import plan_degrees
from shardwright.plan.view import PlanView
from shardwright.problem import Problem, Unit, compile_problem, with_units
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.plan import Plan
from shardwright.schema.result import ObjectiveValue, Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits

COLOCATED, APART = "colocated", "disaggregated"


@dataclass(frozen=True)
class Alternatives:
    """Both kinds of stages of one instance."""

    instance: Instance
    problem: Problem
    limits: Callable[[], SearchLimits]

    @property
    def worth_it(self) -> bool:
        """Whether any stage may be disaggregated."""
        return any(unit.shape.disaggregated for unit in self.problem.units)

    def document(
        self, plan: Plan, objectives: tuple[ObjectiveValue, ...], status: Status
    ) -> dict[str, Any]:
        """Figures of both kinds; that of ``plan`` is not solved again."""
        chosen = kind_of(plan)
        plans = []
        for kind in (COLOCATED, APART):
            if kind == chosen:
                plans.append(self._row(kind, self.instance, plan, objectives, status))
            else:
                plans.append(self._solved(kind))
        return {"chosen": chosen, "plans": plans}

    def _solved(self, kind: str) -> dict[str, Any]:
        instance, problem = self._of(kind)
        outcome = solver("default").solve(problem, self.limits())
        if outcome.fleet is None:
            return {"stages": kind, "status": outcome.status.value, "plan": None}
        sha256 = instance_sha256(instance)
        plan = decode(instance, problem, outcome.fleet, sha256)
        values = goal_values(problem, plan)
        objectives = goal_bounds(problem.goals, values, outcome.bounds)
        check(instance, plan, objectives).raise_if_bad()
        return self._row(kind, instance, plan, objectives, outcome.status)

    def _of(self, kind: str) -> tuple[Instance, Problem]:
        """Units of one kind; where ``fix`` leaves none, without ``fix``."""

        def mine(unit: Unit) -> bool:
            return unit.shape.disaggregated == (kind == APART)

        if any(mine(unit) for unit in self.problem.units):
            return self.instance, with_units(self.problem, mine)
        free = self.instance.model_copy(update={"fix": Fix()})
        return free, with_units(compile_problem(free), mine)

    def _row(
        self,
        kind: str,
        instance: Instance,
        plan: Plan,
        objectives: tuple[ObjectiveValue, ...],
        status: Status,
    ) -> dict[str, Any]:
        view = PlanView(instance, plan)
        total = view.metrics["total"]
        shown = ("gpus_used", "output_tokens_per_s", "tpot_ms", "ttft_ms")
        return {
            "stages": kind,
            "fixed": instance.fix != Fix(),
            "status": status.value,
            "plan": plan_degrees(view),
            "objectives": [o.model_dump(mode="json") for o in objectives],
            **{name: total[name] for name in shown},
        }


def kind_of(plan: Plan) -> str:
    """Colocated, disaggregated, or both where the replicas of a fleet differ."""
    stages = [stage for replica in plan.replicas() for stage in replica.stages]
    apart = {stage.expert_unit is not None for stage in stages}
    if len(apart) > 1:
        return "both"
    return APART if apart.pop() else COLOCATED
