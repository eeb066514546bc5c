"""Requirements: the checker's rows gathered to one line per rule.

The rules are evaluated once, by the independent checker; this room only reads its
rows, through the protocol below (the checker stands later in the house).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

Number = int | Fraction


class RuleRow(Protocol):
    """One rule instance as the checker reports it: ``left relation right``."""

    @property
    def rule(self) -> str:
        """Name of the rule."""

    @property
    def entity(self) -> str:
        """What it was checked on."""

    @property
    def quantity(self) -> str:
        """What ``left`` is."""

    @property
    def left(self) -> Number:
        """Found."""

    @property
    def relation(self) -> Any:
        """<=, >= or =."""

    @property
    def right(self) -> Number:
        """Asked."""

    @property
    def unit(self) -> str:
        """Unit of both sides."""

    @property
    def slack(self) -> Number:
        """Negative where the rule is broken."""

    @property
    def holds(self) -> bool:
        """Whether the rule holds."""

    @property
    def note(self) -> str:
        """What to know when reading it."""

    @property
    def detail(self) -> str:
        """What in particular is wrong."""


class Report(Protocol):
    """The checker's report."""

    @property
    def rows(self) -> Sequence[RuleRow]:
        """Every rule instance."""


ASKED = (
    "memory_fits",
    "request_rate",
    "ttft_limit",
    "prefill_limit",
    "tpot_limit",
    "itl_limit",
    "e2e_limit",
    "memory_imbalance",
    "compute_imbalance",
    "communication_share",
    "survive",
    "spare_gpus",
    "max_gpus",
    "max_cost_usd_per_hour",
    "max_pipeline_stages",
    "max_tensor_parallel",
    "batch_limit",
    "chunk_limit",
    "chunk_feeds_batch",
    "heads_divisible",
    "equal_shape_per_stage",
    "micro_batches_equal_stages",
    "fix",
    "grid",
)
"""Rules that state what was asked, in the order of the table; others are structure."""


@dataclass(frozen=True)
class Requirement:
    """A rule with its tightest instance, and how many instances it has and breaks."""

    rule: str
    tightest: RuleRow
    instances: int
    broken: int

    @property
    def holds(self) -> bool:
        """Whether every instance holds."""
        return not self.broken

    @property
    def relative_slack(self) -> float | None:
        """Slack as a share of what is asked; None for equalities and zeros."""
        row = self.tightest
        if row.relation == "=" or not row.right:
            return None
        return float(Fraction(row.slack) / Fraction(row.right))

    def document(self) -> dict[str, Any]:
        """JSON-ready; ``asked`` and ``got`` are in ``unit``."""
        row = self.tightest
        return {
            "rule": self.rule,
            "entity": row.entity,
            "relation": row.relation,
            "asked": _plain(row.right),
            "got": _plain(row.left),
            "slack": _plain(row.slack),
            "unit": row.unit,
            "holds": self.holds,
            "instances": self.instances,
            "broken": self.broken,
            "note": row.note,
        }


def _plain(value: Number) -> int | float:
    return float(value) if isinstance(value, Fraction) else value


def requirements(rows: Iterable[RuleRow]) -> list[Requirement]:
    """One requirement per asked rule and limit, in the order of ``ASKED``."""
    groups: dict[tuple[int, Number, str], list[RuleRow]] = {}
    for row in rows:
        if row.rule in ASKED:
            groups.setdefault(_group(row), []).append(row)
    return [_gathered(groups[key]) for key in sorted(groups)]


def _group(row: RuleRow) -> tuple[int, Number, str]:
    """Equal limits of one rule stand together; equalities do by their quantity."""
    place = ASKED.index(row.rule)
    return (place, 0, row.quantity) if row.relation == "=" else (place, row.right, "")


def _gathered(rows: list[RuleRow]) -> Requirement:
    tightest = min(rows, key=lambda row: (row.holds, row.slack))
    broken = sum(not row.holds for row in rows)
    return Requirement(tightest.rule, tightest, len(rows), broken)


def structure(rows: Iterable[RuleRow]) -> tuple[int, list[RuleRow]]:
    """Rules of structure and claims: how many there are, and the broken rows."""
    others = [row for row in rows if row.rule not in ASKED]
    return len({row.rule for row in others}), [r for r in others if not r.holds]
