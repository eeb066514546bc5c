"""The compliance report: requirements with margins, failures, recommendations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shardwright.explain.solving import Allowance
from shardwright.plan.answer import conflict_text
from shardwright.plan.compliance import Requirement
from shardwright.plan.tables.compliance import requirements_text
from shardwright.plan.tables.summary import headline
from shardwright.plan.tables.text import grid, percent, titled, wrapped
from shardwright.report.recommendations import Recommendation, recommendations
from shardwright.resilience import Failures, failures
from shardwright.schema.instance import Instance
from shardwright.solve import Solution, solve


@dataclass(frozen=True, eq=False)
class Compliance:
    """A verdict on an instance and its best plan; every figure was computed for it."""

    instance: Instance
    solution: Solution
    recommended: tuple[Recommendation, ...]
    failures: Failures | None

    @property
    def requirements(self) -> list[Requirement]:
        """What was asked, as the checker found it; empty without a plan."""
        return self.solution.plan.requirements if self.solution.plan else []

    def text(self) -> str:
        """What is printed."""
        return "\n\n".join(block for block in self._blocks() if block)

    def markdown(self) -> str:
        """A page that can be kept."""
        title = f"# Compliance: {self.instance.name}"
        blocks = [title, self._verdict()]
        if self.requirements:
            blocks += ["## Requirements", _markdown(_HEADERS, self._rows())]
        elif self.solution.result.conflict is not None:
            text = conflict_text(self.solution.result.conflict)
            blocks += ["## Conflict", _fenced(text)]
        if self.failures is not None:
            blocks += ["## Failures", _fenced(self.failures.text())]
        if self.recommended:
            blocks += ["## Recommendations", _markdown(_ADVICE, self._advice())]
        blocks.append(
            "Requirements are recomputed by the independent checker; recommendations "
            "are alternatives that were solved and checked."
        )
        return "\n\n".join(blocks) + "\n"

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        conflict = self.solution.result.conflict
        return {
            "instance": self.instance.name,
            "status": self.solution.status.value,
            "verdict": self._verdict(),
            "requirements": [
                {**r.document(), "margin": r.relative_slack} for r in self.requirements
            ],
            "conflict": None if conflict is None else conflict.model_dump(mode="json"),
            "failures": self.failures.document() if self.failures else [],
            "recommendations": [vars(one) for one in self.recommended],
        }

    def _verdict(self) -> str:
        if self.solution.plan is None:
            return f"{self.solution.status.value}: no plan keeps every requirement."
        broken = [r for r in self.requirements if not r.holds]
        count = len(self.requirements)
        if broken:
            return f"{len(broken)} of {count} requirements broken."
        return f"All {count} requirements hold. {headline(self.solution.plan)}"

    def _blocks(self) -> list[str]:
        blocks = [wrapped("", self._verdict())]
        report = self.solution.report
        if report is not None:
            blocks.append(requirements_text(report))
        elif self.solution.result.conflict is not None:
            blocks.append(conflict_text(self.solution.result.conflict))
        if self.failures is not None:
            blocks.append(self.failures.text())
        if self.recommended:
            rows = [[_short(c) for c in row] for row in self._advice()]
            blocks.append(
                titled("Recommendations (each solved)", grid(_ADVICE, rows, "llll"))
            )
        return blocks

    def _rows(self) -> list[list[str]]:
        return [
            [
                r.rule,
                str(r.tightest.entity),
                f"{r.tightest.relation} {_plain(r.tightest.right)} {r.tightest.unit}",
                _plain(r.tightest.left),
                "-" if r.relative_slack is None else percent(r.relative_slack),
                "holds" if r.holds else "BROKEN",
            ]
            for r in self.requirements
        ]

    def _advice(self) -> list[list[str]]:
        return [
            [r.purpose, r.action, r.gives, "proven" if r.proven else "open"]
            for r in self.recommended
        ]


_HEADERS = ("requirement", "tightest at", "asked", "got", "margin", "status")
_ADVICE = ("for", "do", "gives", "proof")
_CELL = 38


def compliance(
    instance: Instance,
    *,
    time_limit_s: float = 60.0,
    workers: int = 2,
    stop: Callable[[], bool] | None = None,
) -> Compliance:
    """Solve, check, fail every GPU and node, and solve what could be recommended."""
    stop = stop or (lambda: False)
    allowance = Allowance(time_limit_s, workers, stop)
    solution = solve(instance, time_limit_s=time_limit_s, workers=workers, stop=stop)
    hit = None
    if solution.plan is not None:
        hit = failures(instance, solution.plan.document, replan=False, stop=stop)
    advice = recommendations(instance, solution, allowance)
    return Compliance(instance, solution, tuple(advice), hit)


def _plain(value: Any) -> str:
    number = float(value)
    return f"{number:,.0f}" if number == int(number) else f"{number:,.4g}"


def _short(text: str) -> str:
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _fenced(text: str) -> str:
    return f"```\n{text}\n```"


def _markdown(headers: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells)])
