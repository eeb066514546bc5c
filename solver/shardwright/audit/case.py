"""One audit: the instance, the claims, and what several claims share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

from shardwright.audit.evidence import Value, refuse
from shardwright.schema.claims import Claim, Claims
from shardwright.schema.instance import Instance
from shardwright.schema.printed import COUNT, Dimension, Printed, parse_printed


@dataclass(frozen=True, eq=False)
class Case:
    """Claims against an instance; ``solve`` is how strategies are decided."""

    instance: Instance
    claims: Claims
    solve: Callable[..., Any]
    solved: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def _by_id(self) -> dict[str, Claim]:
        return {claim.id: claim for claim in self.claims.claims}

    def value(self, claim: Claim, name: str, operand: str | float) -> Value:
        """A number, a printed figure, or the figure that another claim prints.

        Raises InvalidInstance naming the claim's field where it is none of them.
        """
        if isinstance(operand, int | float):
            return Value(Fraction(str(operand)), COUNT)
        text = self._printed_text(claim, name, operand)
        try:
            printed = parse_printed(text)
        except ValueError as error:
            allowed = str(error).split("; found ")[0] + ", or the id of a claim"
            refuse(self.claims.document, claim.id, name, repr(operand), allowed)
        return Value(printed.low, printed.unit.dimension)

    def _printed_text(self, claim: Claim, name: str, operand: str) -> str:
        other = self._by_id.get(operand)
        if other is None:
            return operand
        if other.id == claim.id:
            refuse(self.claims.document, claim.id, name, operand, "another claim")
        return other.claimed

    def sized(
        self, claim: Claim, name: str, operand: str | float, dimension: Dimension
    ) -> Fraction:
        """The number of an operand, above 0 and of this dimension."""
        found = self.value(claim, name, operand)
        if found.dimension != dimension:
            allowed = "a figure in other units: its dimension does not fit"
            refuse(self.claims.document, claim.id, name, str(operand), allowed)
        if found.number <= 0:
            refuse(self.claims.document, claim.id, name, str(operand), "more than 0")
        return found.number

    def shown(self, operand: str | float) -> str:
        """An operand as its document prints it."""
        other = self._by_id.get(operand) if isinstance(operand, str) else None
        return other.claimed if other else str(operand)


def printed(claim: Claim) -> Printed:
    """The claimed figure."""
    return parse_printed(claim.claimed)
