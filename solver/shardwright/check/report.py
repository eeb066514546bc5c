"""What the checker says: a row for every rule instance, and those that do not hold."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from shardwright.check.exact import NS_PER_MS, Number
from shardwright.check.figures import Figures
from shardwright.schema.errors import CheckFailed

Relation = Literal["<=", ">=", "="]

_MUST = {"<=": "at most {} allowed", ">=": "at least {} needed", "=": "must be {}"}
_MISSED = {"<=": "over", ">=": "short", "=": "off"}


@dataclass(frozen=True)
class Violation:
    """A rule instance that does not hold, and by how much."""

    rule: str
    entity: str
    left: Number
    right: Number
    unit: str
    slack: Number
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


class RuleRow(NamedTuple):
    """One rule instance: ``left relation right``, in ``unit``.

    ``quantity`` says what ``left`` is; ``slack`` is negative where the rule is broken.
    """

    rule: str
    entity: str
    quantity: str
    left: Number
    relation: Relation
    right: Number
    unit: str
    slack: Number
    holds: bool
    note: str = ""
    detail: str = ""

    def message(self) -> str:
        """The row as a sentence."""
        found = f"{self.entity}: {self.quantity} {written(self.left, self.unit)}"
        must = _MUST[self.relation].format(written(self.right, self.unit))
        gap = written(_distance(self.left, self.right), self.unit)
        return f"{found}; {must} ({gap} {_MISSED[self.relation]})" + (
            f": {self.detail}" if self.detail else ""
        )

    def violation(self) -> Violation:
        """The row as a violation."""
        return Violation(
            rule=self.rule,
            entity=self.entity,
            left=self.left,
            right=self.right,
            unit=self.unit,
            slack=self.slack,
            message=self.message(),
        )


@dataclass(frozen=True)
class Report:
    """All rows, in the order of the rules, and the recomputed figures."""

    rows: tuple[RuleRow, ...]
    figures: Figures

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Every rule instance that does not hold."""
        return tuple(row.violation() for row in self.rows if not row.holds)

    @property
    def ok(self) -> bool:
        """True when every rule holds."""
        return all(row.holds for row in self.rows)

    def slack(self, rule: str) -> Number | None:
        """The smallest slack of a rule; None where it has no instance."""
        return min((row.slack for row in self.rows if row.rule == rule), default=None)

    def broken(self) -> tuple[str, ...]:
        """Names of the rules that do not hold, each once."""
        return tuple(dict.fromkeys(row.rule for row in self.rows if not row.holds))

    def raise_if_bad(self) -> None:
        """Raise CheckFailed with every violation unless all rules hold."""
        if not self.ok:
            raise CheckFailed([str(violation) for violation in self.violations])

    def as_dict(self) -> dict[str, Any]:
        """Rows and violations for JSON; fractions become floats."""
        return {
            "ok": self.ok,
            "violations": [_plain(violation) for violation in self.violations],
            "rows": [_plain(row) for row in self.rows],
        }


def at_most(
    rule: str,
    entity: str,
    quantity: str,
    left: Number,
    right: Number,
    unit: str,
    *,
    allowance: Number = 0,
    note: str = "",
    detail: str = "",
) -> RuleRow:
    """left ≤ right, or within the allowance above it."""
    slack = right - left
    return RuleRow(
        rule=rule,
        entity=entity,
        quantity=quantity,
        left=left,
        relation="<=",
        right=right,
        unit=unit,
        slack=slack,
        holds=slack + allowance >= 0,
        note=note,
        detail=detail,
    )


def at_least(
    rule: str, entity: str, quantity: str, left: Number, right: Number, unit: str
) -> RuleRow:
    """left ≥ right."""
    slack = left - right
    return RuleRow(
        rule=rule,
        entity=entity,
        quantity=quantity,
        left=left,
        relation=">=",
        right=right,
        unit=unit,
        slack=slack,
        holds=slack >= 0,
    )


def equal(
    rule: str,
    entity: str,
    quantity: str,
    left: Number,
    right: Number,
    unit: str,
    *,
    allowance: Number = 0,
    note: str = "",
    detail: str = "",
) -> RuleRow:
    """|left − right| ≤ allowance; the slack is what is left of the allowance."""
    slack = allowance - _distance(left, right)
    return RuleRow(
        rule=rule,
        entity=entity,
        quantity=quantity,
        left=left,
        relation="=",
        right=right,
        unit=unit,
        slack=slack,
        holds=slack >= 0,
        note=note,
        detail=detail,
    )


def none_of(rule: str, entity: str, quantity: str, found: list[str]) -> RuleRow:
    """Nothing was found that the rule forbids; the message names what was."""
    detail = ", ".join(found)
    return at_most(rule, entity, quantity, len(found), 0, "GPU", detail=detail)


def written(value: Number, unit: str) -> str:
    """A figure in the user's words: ns as ms, thousandths as whole units."""
    if unit == "ns":
        return f"{_decimal(Fraction(value, NS_PER_MS), 6)} ms"
    if unit == "mtok/s":
        return f"{_decimal(Fraction(value, 1000), 3)} tokens/s"
    if unit == "micro-USD/h":
        return f"{_decimal(Fraction(value, 10**6), 6)} USD/h"
    if unit == "share":
        return f"{_decimal(Fraction(value) * 100, 4)} %"
    return f"{_decimal(Fraction(value), 6)} {unit}"


def _distance(left: Number, right: Number) -> Number:
    return left - right if left >= right else right - left


def _decimal(value: Fraction, digits: int) -> str:
    """Rounded to ``digits``, without trailing zeros."""
    text = f"{round(value * 10**digits):d}"
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    text = text.rjust(digits + 1, "0")
    whole, decimals = text[:-digits], text[-digits:].rstrip("0")
    return f"{sign}{int(whole):,}" + (f".{decimals}" if decimals else "")


def _plain(entry: RuleRow | Violation) -> dict[str, Any]:
    fields = entry._asdict() if isinstance(entry, RuleRow) else vars(entry)
    return {
        name: float(value) if isinstance(value, Fraction) else value
        for name, value in fields.items()
    }
