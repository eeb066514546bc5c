"""The verdicts as text, Markdown and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shardwright.audit.evidence import Finding, Verdict
from shardwright.plan.tables.text import amount, grid, short, wrapped

ORDER: tuple[Verdict, ...] = ("wrong", "contradicted", "undecidable", "holds")
_FALLEN = ("wrong", "contradicted")
_MANY = 10


@dataclass(frozen=True)
class AuditReport:
    """Every claim of a document with its verdict, in the document's order."""

    document: str
    instance: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong or contradicted."""
        return not self.fallen

    @property
    def fallen(self) -> tuple[Finding, ...]:
        """What is wrong or contradicted."""
        return tuple(f for f in self.findings if f.verdict in _FALLEN)

    def of(self, verdict: Verdict) -> tuple[Finding, ...]:
        """The findings with one verdict."""
        return tuple(f for f in self.findings if f.verdict == verdict)

    def finding(self, name: str) -> Finding:
        """The finding on one claim; KeyError without it."""
        for found in self.findings:
            if found.id == name:
                return found
        raise KeyError(name)

    def as_list(self) -> list[dict[str, str | None]]:
        """One mapping per claim: id, quote, claimed, computed, verdict, derivation."""
        return [found.document() for found in self.findings]

    def summary(self) -> str:
        """One line: how many claims hold and how many do not."""
        counts = Counter(found.verdict for found in self.findings)
        parts = [f"{counts[verdict]} {verdict}" for verdict in ORDER]
        return f"{amount(len(self.findings), 'claim')}: {', '.join(parts)}"

    def text(self) -> str:
        """For a terminal, 100 columns: summary, what is wrong, then the rest."""
        title = wrapped("", f"{self.document}, against {self.instance}")
        blocks = [f"{title}\n{self.summary()}"]
        for verdict in ORDER[:-1]:
            if found := self.of(verdict):
                heading = f"{verdict.capitalize()} ({len(found)})"
                blocks.append("\n\n".join([heading, *map(_block, found)]))
        if held := self.of("holds"):
            blocks.append(f"Holds ({len(held)})\n\n{_held(held)}")
        return "\n\n".join(blocks)

    def markdown(self) -> str:
        """One table: what is wrong first, then the rest, in the document's order."""
        lines = [
            f"# {_cell(self.document)}",
            "",
            f"Against `{self.instance}`. {self.summary()}.",
            "",
            "| line | quote | claimed | computed | verdict | derivation |",
            "|---:|---|---|---|---|---|",
        ]
        for verdict in ORDER:
            lines += [_row(found) for found in self.of(verdict)]
        return "\n".join(lines) + "\n"


def error_text(error: float) -> str:
    """claimed / computed - 1 in words: ``+100%``, ``1/320 of it``, ``1,000 times``."""
    ratio = error + 1
    if ratio >= _MANY:
        return f"{ratio:,.4g} times as much"
    if 0 < ratio <= 1 / _MANY:
        return f"1/{1 / ratio:,.4g} of it"
    return f"{error * 100:+.3g}%"


def _block(found: Finding) -> str:
    says = f"claimed {found.claimed}"
    if found.computed is not None:
        says += f"; computed {found.computed}"
    if found.error is not None and found.verdict in _FALLEN:
        says += f" ({error_text(found.error)})"
    head = f"  line {found.line:<4} {found.id}: {says}"
    return "\n".join(
        [
            wrapped("  ", head.strip()),
            wrapped("            ", f'"{found.quote}"'),
            wrapped("            ", found.derivation),
        ]
    )


def _held(found: Sequence[Finding]) -> str:
    rows = [
        [
            str(f.line),
            short(f.id, 26),
            short(f.claimed, 20),
            short(f.computed or "", 18),
            _first(f.derivation, 28),
        ]
        for f in found
    ]
    return grid(["line", "claim", "claimed", "computed", "because"], rows, "rllll")


def _first(text: str, width: int) -> str:
    """The beginning of a derivation."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _row(found: Finding) -> str:
    computed = found.computed or ""
    if found.error is not None and found.verdict in _FALLEN:
        computed += f" ({error_text(found.error)})"
    cells = [
        str(found.line),
        found.quote,
        found.claimed,
        computed,
        found.verdict,
        found.derivation,
    ]
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Text that cannot break out of a table cell, nor pass for HTML."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return escaped.replace("<", "&lt;")
