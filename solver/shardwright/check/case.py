"""What every rule looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shardwright.check.figures import Figures, StageFigures, figures_of
from shardwright.check.inventory import Inventory
from shardwright.check.maps import check_loads
from shardwright.check.report import RuleRow
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.schema.result import ObjectiveValue


@dataclass(frozen=True)
class Case:
    """An instance, a plan for it, the goals' claimed values, and the own figures."""

    instance: Instance
    plan: Plan
    objectives: tuple[ObjectiveValue, ...]
    inventory: Inventory
    figures: Figures

    def stages(self) -> Iterator[StageFigures]:
        """Every stage of every replica."""
        for replica in self.figures.replicas:
            yield from replica.stages

    def together(self) -> Iterator[StageFigures]:
        """The stages whose experts, if any, lie on the GPUs with attention."""
        return (stage for stage in self.stages() if stage.stage.expert_unit is None)


Rule = Callable[[Case], Iterator[RuleRow]]


def case_of(
    instance: Instance, plan: Plan, objectives: Sequence[ObjectiveValue]
) -> Case:
    """Recompute the plan's figures and put everything side by side."""
    check_loads(instance)
    inventory = Inventory(instance.cluster)
    figures = figures_of(instance, plan, inventory)
    return Case(instance, plan, tuple(objectives), inventory, figures)
