"""What can be computed about a claim, before it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NoReturn

from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.printed import Dimension

Verdict = Literal["holds", "wrong", "contradicted", "undecidable"]


class Undecidable(Exception):
    """Nothing decides the claim; the message says what is missing."""


@dataclass(frozen=True)
class Value:
    """A number in base units (B, s, FLOP, one)."""

    number: Fraction
    dimension: Dimension


@dataclass(frozen=True)
class Reading:
    """One value that the claim's words can mean; ``label`` says which."""

    value: Fraction
    label: str = ""


@dataclass(frozen=True)
class Evidence:
    """Computed readings, the first being the usual one, and how they follow.

    ``needs`` names the figures of the instance that they rest on. ``bound`` stands in
    for readings: the true figure is at least (``>=``) or at most (``<=``) this.
    ``ends`` are those of a range. ``counted`` bytes come from the model itself, so that
    a print in GB may mean GiB; figures made of other prints stay in their units.
    """

    dimension: Dimension
    derivation: str
    readings: tuple[Reading, ...] = ()
    needs: frozenset[str] = frozenset()
    bound: tuple[Literal[">=", "<="], Fraction] | None = None
    ends: tuple[int, int] | None = None
    estimate: str = ""
    counted: bool = False


@dataclass(frozen=True)
class Finding:
    """The verdict on one claim. ``error`` is claimed / computed - 1."""

    id: str
    line: int
    quote: str
    claimed: str
    computed: str | None
    verdict: Verdict
    derivation: str
    error: float | None = None
    against: tuple[str, ...] = ()

    def document(self) -> dict[str, str | None]:
        """As ``--json`` prints it."""
        return {
            "id": self.id,
            "quote": self.quote,
            "claimed": self.claimed,
            "computed": self.computed,
            "verdict": self.verdict,
            "derivation": self.derivation,
        }


def refuse(source: str, claim: str, field: str, found: str, allowed: str) -> NoReturn:
    """Refuse one field of a claim. Raises InvalidInstance."""
    error = FieldError(f"claims.{claim}.{field}", found, allowed)
    raise InvalidInstance(source, [error])
