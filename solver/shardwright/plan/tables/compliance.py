"""Compliance: every requirement with what was asked, what is had, and its slack."""

from __future__ import annotations

from shardwright.plan.compliance import (
    Number,
    Report,
    Requirement,
    requirements,
    structure,
)
from shardwright.plan.tables.text import (
    Cell,
    amount,
    figures,
    gb,
    grid,
    percent,
    short,
    titled,
    wrapped,
)
from shardwright.plan.view import PlanView

_HEADERS = ("requirement", "tightest at", "asked", "got", "slack", "status")


def compliance_table(view: PlanView) -> str:
    """One row per requirement, as the independent checker found it."""
    if view.report is None:
        return "The plan has not been checked."
    return requirements_text(view.report)


def requirements_text(report: Report) -> str:
    """Requirements of a checker's report; structure and claims in one line."""
    found = requirements(report.rows)
    notes = sorted({r.tightest.note for r in found if r.tightest.note})
    return titled(
        "Requirements, as recomputed by the independent checker",
        grid(_HEADERS, [_row(requirement) for requirement in found], "llrrrl"),
        "\n".join(f"* {note}" for note in notes),
        _structure(report),
    )


def _structure(report: Report) -> str:
    count, broken = structure(report.rows)
    if not broken:
        return f"{amount(count, 'rule')} of structure and claimed figures hold."
    names = ", ".join(dict.fromkeys(row.rule for row in broken))
    return wrapped("", f"BROKEN rules of structure and claimed figures: {names}")


def _row(requirement: Requirement) -> list[Cell]:
    row = requirement.tightest
    mark = " *" if row.note else ""
    status = "holds" if requirement.holds else f"BROKEN x{requirement.broken}"
    return [
        requirement.rule,
        short(row.entity.replace("replica ", "r"), 13),
        f"{row.relation} {written(row.right, row.unit)}",
        written(row.left, row.unit),
        "" if row.relation == "=" else written(row.slack, row.unit),
        status + mark,
    ]


def written(value: Number, unit: str) -> str:
    """A figure of the checker in a reader's unit."""
    if unit == "ns":
        return f"{figures(float(value) / 1e6)} ms"
    if unit == "mtok/s":
        return f"{figures(float(value) / 1e3)} tok/s"
    if unit == "micro-USD/h":
        return f"{figures(float(value) / 1e6)} USD/h"
    if unit == "B":
        return f"{gb(value, 3)} GB"
    if unit == "share":
        return percent(value, 2)
    return f"{float(value):,g}"
