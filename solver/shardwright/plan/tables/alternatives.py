"""Experts beside attention against experts apart: the best plan of each kind."""

from __future__ import annotations

from typing import Any

from shardwright.plan.tables.text import Cell, grid, ms, number, short, titled
from shardwright.schema.result import Result


def alternatives_text(result: Result | None) -> str:
    """Both kinds with their objectives and bounds; nothing without a comparison."""
    found = result.metrics.get("disaggregation") if result is not None else None
    if not found:
        return ""
    solved = [plan["objectives"] for plan in found["plans"] if plan["plan"]]
    goals: list[dict[str, Any]] = solved[0] if solved else []
    names = [f"{goal['name']}\n{goal['unit']}" for goal in goals]
    last = ["bound of\nthe first", "GPUs", "TPOT\nms"]
    headers = ["stages", "plan", "status", *names, *last]
    rows = [_row(plan, len(goals)) for plan in found["plans"]]
    return titled(
        f"Experts beside attention or apart (this plan: {found['chosen']})",
        grid(headers, rows, f"lll{'r' * (len(goals) + 3)}"),
        "Each kind solved on its own; docs/cost-model.md 11 says what differs."
        + _fixed(found["plans"]),
    )


def _fixed(plans: list[dict[str, Any]]) -> str:
    """Which of the two keeps what was fixed."""
    kept = [plan["stages"] for plan in plans if plan.get("fixed")]
    return (
        f"\nWhat was fixed holds for {kept[0]} stages only." if len(kept) == 1 else ""
    )


def _row(plan: dict[str, Any], goals: int) -> list[Cell]:
    if plan["plan"] is None:
        return [plan["stages"], "none", plan["status"], *[""] * (goals + 3)]
    objectives = plan["objectives"]
    return [
        plan["stages"],
        short(plan["plan"], 28),
        "breaks rules" if plan["status"] == "INFEASIBLE" else plan["status"],
        *(_figure(goal["value"]) for goal in objectives),
        _figure(objectives[0]["bound"]),
        str(plan["gpus_used"]),
        ms(plan["tpot_ms"] * 1e6),
    ]


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return number(value) if float(value).is_integer() else number(value, 3)
