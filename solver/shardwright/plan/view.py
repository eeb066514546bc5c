"""A plan as its reader sees it: the document, its figures and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shardwright.plan.anatomy import Anatomy
from shardwright.plan.compliance import Report, Requirement, requirements
from shardwright.plan.groups import ReplicaGroup, replica_groups
from shardwright.plan.idle import GpuName, IdleGpu, idle_gpus
from shardwright.plan.launch import EngineVerdict, launchability
from shardwright.plan.metrics import metrics
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan

if TYPE_CHECKING:
    from shardwright.schema.result import Result


@dataclass(frozen=True, eq=False)
class PlanView:
    """What ``result.plan`` is: ``.table(name)``, ``.tables()``, ``.document``.

    ``result`` gives the summary its status and bounds, ``report`` (the checker's)
    the compliance table; a view without them leaves these out.
    """

    instance: Instance
    document: Plan
    result: Result | None = None
    report: Report | None = None
    idle_reasons: Mapping[GpuName, str] = field(default_factory=dict)

    def with_result(self, result: Result) -> PlanView:
        """The same view of another result; what follows from the plan is kept."""
        view = replace(self, result=result)
        vars(view).update({n: v for n, v in vars(self).items() if n not in vars(view)})
        return view

    @cached_property
    def anatomy(self) -> Anatomy:
        """The plan taken apart."""
        return Anatomy(self.instance, self.document)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Every figure of the plan, JSON-ready."""
        return metrics(self.anatomy, self.engines)

    @cached_property
    def groups(self) -> list[ReplicaGroup]:
        """Replicas that differ only in their GPUs, gathered."""
        return replica_groups(self.document)

    @cached_property
    def requirements(self) -> list[Requirement]:
        """What was asked, with its slack; empty without a report."""
        return requirements(self.report.rows) if self.report else []

    @cached_property
    def idle(self) -> list[IdleGpu]:
        """GPUs without a rank and why."""
        return idle_gpus(self.instance, self.document, self.idle_reasons)

    @cached_property
    def engines(self) -> list[EngineVerdict]:
        """Which engines can launch the plan."""
        return launchability(self.anatomy)

    def tables(self) -> Sequence[str]:
        """Names of the tables that this plan has."""
        from shardwright.plan.tables import names

        return names(self)

    def table(self, name: str) -> str:
        """One table as text, at most 100 columns wide.

        Raises KeyError with the known names for an unknown one.
        """
        from shardwright.plan.tables import render

        return render(self, name)
