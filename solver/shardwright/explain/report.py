"""The explanation of an instance: text and JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from shardwright.explain.alternatives import Alternative, alternatives, objective_values
from shardwright.explain.attainable import Attainable, attainable
from shardwright.explain.breakeven import BreakEven, break_evens
from shardwright.explain.combined import combined_repairs
from shardwright.explain.repairs import Repair, single_repairs
from shardwright.explain.solving import Allowance
from shardwright.plan.answer import conflict_text
from shardwright.plan.tables.summary import headline
from shardwright.plan.tables.text import (
    grid,
    number,
    percent,
    short,
    titled,
    wrapped,
)
from shardwright.schema.instance import Instance
from shardwright.solve import Solution, solve


@dataclass(frozen=True, eq=False)
class Explanation:
    """What ``explain`` found; ``complete``: the time sufficed for all of it."""

    instance: Instance
    solution: Solution
    attainable: tuple[Attainable, ...] = ()
    repairs: tuple[Repair, ...] = ()
    combined: tuple[Repair, ...] = ()
    break_evens: tuple[BreakEven, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    complete: bool = True

    @property
    def feasible(self) -> bool:
        """Whether the instance has a plan."""
        return self.solution.plan is not None

    def text(self) -> str:
        """What is printed."""
        blocks = _feasible_blocks(self) if self.feasible else _infeasible_blocks(self)
        if not self.complete:
            blocks.append("The time did not suffice for more: see --time-limit.")
        return "\n\n".join(block for block in blocks if block)

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        conflict = self.solution.result.conflict
        return {
            "status": self.solution.status.value,
            "conflict": None if conflict is None else conflict.model_dump(mode="json"),
            "attainable": [vars(one) for one in self.attainable],
            "repairs": [_repair_document(one) for one in self.repairs],
            "combined_repairs": [_repair_document(one) for one in self.combined],
            "binding": _binding(self.solution),
            "break_evens": [vars(one) for one in self.break_evens],
            "alternatives": [vars(one) for one in self.alternatives],
            "complete": self.complete,
        }


def explain(
    instance: Instance,
    *,
    time_limit_s: float = 30.0,
    workers: int = 2,
    stop: Callable[[], bool] | None = None,
) -> Explanation:
    """Why nothing fits and what would; or what binds the best plan and by how much.

    ``time_limit_s`` holds for the first answer, and again for all that follows it.
    """
    stop = stop or (lambda: False)
    solution = solve(instance, time_limit_s=time_limit_s, workers=workers, stop=stop)
    allowance = Allowance(time_limit_s, workers, stop)
    if solution.plan is not None:
        return _of_feasible(instance, solution, allowance)
    return _of_infeasible(instance, solution, allowance)


_ENOUGH = 3
"""Repairs with which nobody asks for further pairs of changes."""


def _of_infeasible(
    instance: Instance, solution: Solution, allowance: Allowance
) -> Explanation:
    best = attainable(instance, allowance)
    repairs, complete = single_repairs(instance, allowance)
    combined = combined_repairs(instance, allowance, most=_ENOUGH - len(repairs))
    return Explanation(
        instance,
        solution,
        tuple(best),
        tuple(repairs),
        tuple(combined),
        complete=complete,
    )


def _of_feasible(
    instance: Instance, solution: Solution, allowance: Allowance
) -> Explanation:
    others = alternatives(instance, solution, allowance)
    ends = break_evens(instance, allowance)
    return Explanation(
        instance,
        solution,
        break_evens=tuple(ends),
        alternatives=tuple(others),
        complete=bool(allowance.left_s()),
    )


def _infeasible_blocks(found: Explanation) -> list[str]:
    conflict, result = found.solution.result.conflict, found.solution.result
    blocks = [f"{result.status.value}  no plan keeps every rule"]
    if conflict is not None:
        blocks.append(conflict_text(conflict))
    if found.attainable:
        blocks.append(_attainable_table(found.attainable))
    if found.repairs:
        title = "What would make it work (each solved and checked)"
        blocks.append(_repairs_table(title, found.repairs))
    if found.combined:
        title = "Changes together (solved and checked)"
        blocks.append(_repairs_table(title, found.combined))
    if not found.repairs and not found.combined:
        blocks.append("No repair was found in the time.")
    return blocks


def _attainable_table(targets: tuple[Attainable, ...]) -> str:
    headers = ["asked for", "asked", "best, all else as asked"]
    rows = [[a.target, f"{a.asked:g} {a.unit}", a.words] for a in targets]
    for header, figures in (
        ("at the largest rate", [a.at_largest_rate for a in targets]),
        ("with nothing else asked", [a.floor for a in targets]),
    ):
        if any(figure is not None for figure in figures):
            headers.append(header)
            for row, figure, a in zip(rows, figures, targets, strict=True):
                row.append("-" if figure is None else f"{figure:,.4g} {a.unit}")
    return titled("Each by itself", grid(headers, rows, "lrlrr"[: len(headers)]))


def _repairs_table(title: str, repairs: tuple[Repair, ...]) -> str:
    rows = [
        [
            fill(r.change, 46),
            short(r.degrees, 20),
            number(r.solution.result.metrics["total"]["gpus_used"]),
            number(r.solution.result.metrics["total"]["requests_per_s"], 2),
            percent(r.size),
        ]
        for r in repairs
    ]
    headers = [
        "change",
        "best plan then",
        "GPUs",
        "requests/s\nsustained",
        "size of\nthe change",
    ]
    return titled(title, grid(headers, rows, "llrrr"))


def _feasible_blocks(found: Explanation) -> list[str]:
    view = found.solution.plan
    assert view is not None
    blocks = [headline(view), _binding_table(found.solution)]
    if found.break_evens:
        rows = [
            [b.field, b.asked, b.last, "solved" if b.exact else "open"]
            for b in found.break_evens
        ]
        blocks.append(
            titled(
                "Where it breaks",
                grid(["", "asked", "last that works", ""], rows, "lrrl"),
            )
        )
    if found.alternatives:
        blocks.append(_alternatives_table(found))
    return blocks


def _binding(solution: Solution) -> list[dict[str, Any]]:
    if solution.plan is None:
        return []
    rows = [r for r in solution.plan.requirements if r.relative_slack is not None]
    ordered = sorted(rows, key=lambda r: r.relative_slack or 0.0)
    return [{**r.document(), "relative_slack": r.relative_slack} for r in ordered]


def _binding_table(solution: Solution) -> str:
    rows = [
        [
            str(row["rule"]),
            str(row["entity"]),
            percent(row["relative_slack"]),
            "binds" if row["relative_slack"] < 0.01 else "",
        ]
        for row in _binding(solution)
    ]
    return titled(
        "Slack of every limit", grid(["rule", "tightest", "slack", ""], rows, "llrl")
    )


def _alternatives_table(found: Explanation) -> str:
    best = objective_values(found.solution.result)
    rows = []
    for other in found.alternatives:
        if other.degrees is None:
            words = "no plan keeps all rules" if other.proven else "not decided"
            rows.append([other.choice, words, ""])
            continue
        rows.append([other.choice, other.degrees, _difference(best, other.values)])
    note = wrapped(
        "", "Each line: the best plan when this degree is fixed, against the best plan."
    )
    table = grid(["why not", "best plan with it", "first difference"], rows, "lll")
    return titled("Other choices", table, note)


def _difference(
    best: tuple[tuple[str, float | None, str], ...],
    other: tuple[tuple[str, float | None, str], ...],
) -> str:
    for (goal, mine, unit), (_, theirs, _) in zip(best, other, strict=True):
        if mine is not None and theirs is not None and mine != theirs:
            share = f" ({(theirs - mine) / mine:+.1%})" if mine else ""
            return (
                f"{goal} {number(theirs, 2)} instead of {number(mine, 2)} {unit}{share}"
            )
    return "none: as good"


def _repair_document(repair: Repair) -> dict[str, Any]:
    return {
        "kind": repair.kind,
        "change": repair.change,
        "size": repair.size,
        "exact": repair.exact,
        "degrees": repair.degrees,
        "metrics": repair.solution.result.metrics.get("total"),
    }
