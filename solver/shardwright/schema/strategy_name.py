"""Names of parallel strategies in every usual notation."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from math import prod

_NAMES = {
    "TP": "tp", "PP": "pp", "DP": "dp", "EP": "ep", "CP": "cp",
    "ADP": "attn_dp", "ETP": "moe_tp",
}  # fmt: skip
_DEGREE = re.compile(r"\s*(ADP|ETP|TP|PP|DP|EP|CP)\s*[=:]?\s*(?:\(\s*(\d+)\s*\)|(\d+))")
_BETWEEN = re.compile(
    r"\s*(?:[-\u2013\u2014\u00d7x*\u00b7,;/+&_]|and|with)?\s*", re.IGNORECASE
)
_MOST = 10**6


@dataclass(frozen=True)
class Strategy:
    """Degrees that a name states; None where it is silent.

    ``attn_dp`` (ADP) is data parallelism of attention within a replica, ``moe_tp``
    (ETP) tensor parallelism of one expert.
    """

    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None
    cp: int | None = None
    attn_dp: int | None = None
    moe_tp: int | None = None

    def degree(self, name: str) -> int:
        """A degree, 1 where the name is silent."""
        return getattr(self, name) or 1

    def product(self) -> int:
        """The product of all stated degrees, as reports count GPUs."""
        return prod(getattr(self, field.name) or 1 for field in fields(self))

    def __str__(self) -> str:
        """As ``TP2 PP4 DP1``: stated degrees only."""
        names = {field: name for name, field in _NAMES.items()}
        stated = [(names[f.name], getattr(self, f.name)) for f in fields(self)]
        return " ".join(f"{name}{value}" for name, value in stated if value)


def parse_strategy(text: str) -> Strategy:
    """Degrees of ``TP2-PP4-DP1``, ``PP(4) × TP(2)``, ``TP=2, PP=4``, ``TP2*PP4``.

    Raises ValueError where the text has anything else, or a degree twice.
    """
    found: dict[str, int] = {}
    place, upper = 0, text.strip().upper()
    while place < len(upper):
        match = _DEGREE.match(upper, place)
        if match is None:
            raise ValueError(_ALLOWED + f"; found {text!r}")
        field, degree = _NAMES[match[1]], int(match[2] or match[3])
        if field in found or not 1 <= degree <= _MOST:
            raise ValueError(f"each degree once, from 1 to {_MOST}; found {text!r}")
        found[field] = degree
        between = _BETWEEN.match(upper, match.end())
        place = between.end() if between else match.end()
        if place == len(upper) and place > match.end():
            raise ValueError(_ALLOWED + f"; found {text!r}")
    if not found:
        raise ValueError(_ALLOWED + f"; found {text!r}")
    return Strategy(**found)


_ALLOWED = (
    "degrees of TP, PP, DP, EP, CP, ADP (attention DP) or ETP (TP of an expert), as in "
    "'TP2-PP4-DP1', 'PP(4) x TP(2)', 'TP=2, PP=4'"
)
