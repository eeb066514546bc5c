"""The explanation of an instance: text and JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from textwrap import fill
from typing import Any

from shardwright.explain.alternatives import Alternative, alternatives, objective_values
from shardwright.explain.attainable import Attainable, attainable
from shardwright.explain.breakeven import BreakEven, break_evens
from shardwright.explain.combined import combined_repairs
from shardwright.explain.repairs import Repair, single_repairs
from shardwright.explain.solving import Allowance
from shardwright.plan.answer import conflict_text
from shardwright.plan.compliance import Requirement
from shardwright.plan.tables.compliance import written
from shardwright.plan.tables.summary import headline
from shardwright.plan.tables.text import (
    figures,
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

    def answer(self) -> str:
        """Why nothing fits and how far each target goes; or what binds."""
        blocks = _limits_met(self) if self.feasible else _conflict(self)
        return "\n\n".join(blocks)

    def rest(self) -> str:
        """What would make it work; or where it breaks and why not otherwise."""
        blocks = _ends(self) if self.feasible else _changes(self)
        if not self.complete:
            blocks.append("The time did not suffice for more: see --time-limit.")
        return "\n\n".join(blocks)

    def text(self) -> str:
        """All of it."""
        return "\n\n".join(part for part in (self.answer(), self.rest()) if part)

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
    on_answer: Callable[[Explanation], None] | None = None,
) -> Explanation:
    """Why nothing fits and what would; or what binds the best plan and by how much.

    ``time_limit_s`` holds for the first answer, and again for all that follows it.
    ``on_answer`` gets what ``Explanation.answer`` needs as soon as it is known.
    """
    stop = stop or (lambda: False)
    solution = solve(instance, time_limit_s=time_limit_s, workers=workers, stop=stop)
    allowance = Allowance(time_limit_s, workers, stop)
    best = () if solution.plan else tuple(attainable(instance, allowance))
    found = Explanation(instance, solution, best)
    if on_answer is not None:
        on_answer(found)
    if solution.plan is not None:
        return _of_feasible(found, allowance)
    return _of_infeasible(found, allowance)


_ENOUGH = 3
"""Repairs with which nobody asks for further pairs of changes."""


def _of_infeasible(found: Explanation, allowance: Allowance) -> Explanation:
    repairs, complete = single_repairs(found.instance, allowance)
    few = _ENOUGH - len(repairs)
    combined = combined_repairs(found.instance, allowance, most=few) if few > 0 else []
    return replace(
        found, repairs=tuple(repairs), combined=tuple(combined), complete=complete
    )


def _of_feasible(found: Explanation, allowance: Allowance) -> Explanation:
    others = alternatives(found.instance, found.solution, allowance)
    ends = break_evens(found.instance, allowance)
    return replace(
        found,
        break_evens=tuple(ends),
        alternatives=tuple(others),
        complete=bool(allowance.left_s()),
    )


def _conflict(found: Explanation) -> list[str]:
    conflict, result = found.solution.result.conflict, found.solution.result
    blocks = [f"{result.status.value}  no plan keeps every rule"]
    if conflict is not None:
        blocks.append(conflict_text(conflict))
    if found.attainable:
        blocks.append(_attainable_table(found.attainable))
    return blocks


def _changes(found: Explanation) -> list[str]:
    blocks = []
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
    for header, best in (
        ("at the largest rate", [a.at_largest_rate for a in targets]),
        ("with nothing else asked", [a.floor for a in targets]),
    ):
        if any(figure is not None for figure in best):
            headers.append(header)
            for row, figure, a in zip(rows, best, targets, strict=True):
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


def _limits_met(found: Explanation) -> list[str]:
    view = found.solution.plan
    assert view is not None
    return [headline(view), _binding_table(found.solution)]


def _ends(found: Explanation) -> list[str]:
    blocks = []
    if found.break_evens:
        rows = [
            [b.field, b.asked, b.last, "solved" if b.exact else "open"]
            for b in found.break_evens
        ]
        table = grid(["", "asked", "last that works", ""], rows, "lrrl")
        blocks.append(titled("Where it breaks", table))
    if found.alternatives:
        blocks.append(_alternatives_table(found))
    return blocks


_BINDS = 0.01
"""Relative slack below which a limit is said to bind."""


def _limits(solution: Solution) -> list[tuple[float, Requirement]]:
    """Requirements with their relative slack, the tightest first."""
    if solution.plan is None:
        return []
    found = [(r.relative_slack, r) for r in solution.plan.requirements]
    known = [(slack, r) for slack, r in found if slack is not None]
    return sorted(known, key=lambda pair: pair[0])


def _binding(solution: Solution) -> list[dict[str, Any]]:
    return [{**r.document(), "relative_slack": s} for s, r in _limits(solution)]


def _binding_table(solution: Solution) -> str:
    rows = []
    for slack, requirement in _limits(solution):
        row = requirement.tightest
        asked = f"{row.relation} {written(row.right, row.unit)}"
        got = written(row.left, row.unit)
        binds = "binds" if slack < _BINDS else ""
        rows.append([requirement.rule, row.entity, asked, got, percent(slack), binds])
    headers = ["rule", "tightest", "asked", "got", "slack", ""]
    return titled("Slack of every limit", grid(headers, rows, "llrrrl"))


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
            there, here = (
                number(x) if x == int(x) else figures(x) for x in (theirs, mine)
            )
            return f"{goal} {there} instead of {here} {unit}{share}"
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
