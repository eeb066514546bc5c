"""The independent checker: does a plan keep every rule that it claims to keep?

It imports the documents (``schema``) and the standard library, nothing else of the
package: the formulas of docs/cost-model.md are written here a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shardwright._callable import make_callable
from shardwright.check.case import case_of
from shardwright.check.report import Report as Report
from shardwright.check.report import RuleRow as RuleRow
from shardwright.check.report import Violation as Violation
from shardwright.check.rules import CHECKS
from shardwright.check.rules import RULES as RULES
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.schema.result import ObjectiveValue


class HasDocument(Protocol):
    """Anything that carries a plan, such as the plan of a solution."""

    @property
    def document(self) -> Plan:
        """The plan."""


def check(
    instance: Instance,
    plan: Plan | HasDocument,
    objectives: Sequence[ObjectiveValue] = (),
) -> Report:
    """Evaluate every rule on the plan, and list all that it breaks.

    ``objectives`` are the claimed values of the goals, as a result carries them.
    """
    document = plan if isinstance(plan, Plan) else plan.document
    case = case_of(instance, document, objectives)
    rows = tuple(row for rule in CHECKS.values() for row in rule(case))
    return Report(rows, case.figures)


make_callable(__name__, check)
