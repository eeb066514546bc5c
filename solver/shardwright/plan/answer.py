"""The whole answer as text: tables of the plan, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from shardwright.plan.compliance import Report
from shardwright.plan.tables import DEFAULT, SAVED, TABLES
from shardwright.plan.tables import chosen as tables_of
from shardwright.plan.tables.alternatives import alternatives_text
from shardwright.plan.tables.compliance import requirements_text
from shardwright.plan.tables.summary import objectives_grid, proof
from shardwright.plan.tables.text import amount, cut, grid, wrapped
from shardwright.plan.view import PlanView
from shardwright.schema.result import Conflict, Result


def answer(
    result: Result,
    view: PlanView | None,
    chosen: Sequence[str] | None = None,
    *,
    fixed: PlanView | None = None,
    violations: Sequence[str] = (),
) -> str:
    """What is printed for a result; ``chosen`` tables, or the default ones.

    ``fixed`` is the plan that was asked for although it breaks rules, and
    ``violations`` says which.
    """
    blocks = []
    if view is None:
        blocks.append(f"{result.status.value}  no plan, {proof(result)}")
    if result.conflict is not None:
        blocks.append(conflict_text(result.conflict))
    if fixed is not None:
        blocks.append(_violations_text(violations))
    shown = view or fixed
    if shown is None:
        blocks.append(objectives_grid(result))
    else:
        blocks += _tables(shown, chosen)
    if view is None:
        blocks.append(alternatives_text(result))
    return "\n\n".join(block for block in blocks if block)


def _violations_text(violations: Sequence[str]) -> str:
    head = "The plan that was fixed, evaluated all the same, breaks:"
    return "\n".join([head, "", *(wrapped("  ", text) for text in violations)])


def _tables(view: PlanView, chosen: Sequence[str] | None) -> list[str]:
    return [view.table(name) for name in tables_of(view, chosen or DEFAULT)]


def saved_tables() -> tuple[str, ...]:
    """Tables of a saved answer unless some are named."""
    return SAVED


def table_names() -> tuple[str, ...]:
    """Every table that can be asked for."""
    return tuple(TABLES)


def conflict_text(conflict: Conflict) -> str:
    """The rules that cannot hold together, and what could be had instead."""
    rows = [
        [rule.rule, fill(rule.asked, 38), fill(rule.best, 38)]
        for rule in conflict.rules
    ]
    blocks = [wrapped("", conflict.message)]
    if rows:
        kind = "minimal" if conflict.verified_minimal else "not proven minimal"
        blocks.append(
            f"Rules that cannot hold together ({kind}):\n\n"
            + grid(["rule", "asked", "best possible"], rows, "lll")
        )
    rate = conflict.largest_request_rate_per_s
    if rate is not None:
        blocks.append(f"Largest request rate that can be held: {cut(rate, 3)}/s")
    return "\n\n".join(blocks)


def report_text(report: Report, messages: Sequence[str]) -> str:
    """The checker's verdict: every violation, then every requirement."""
    rules = len({row.rule for row in report.rows})
    if messages:
        head = f"{amount(len(messages), 'violation')} of {rules} rules"
        lines = [wrapped("  ", message) for message in messages]
        blocks = ["\n".join([head, "", *lines])]
    else:
        blocks = [f"The plan holds: {rules} rules, {len(report.rows)} instances"]
    return "\n\n".join([*blocks, requirements_text(report)])
