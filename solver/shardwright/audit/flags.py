"""Launch flags against what their engine takes and what the instance allows."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from typing import Annotated, Literal

from pydantic import Field

from shardwright.audit.case import Case
from shardwright.audit.evidence import Finding, Undecidable, Verdict
from shardwright.audit.figures import figure
from shardwright.audit.layout import stage_gpus
from shardwright.ingest.catalogue import root
from shardwright.ingest.document import parse, read_file
from shardwright.ingest.validate import validate
from shardwright.schema.base import Document, Name
from shardwright.schema.claims import Figure, FlagClaim
from shardwright.schema.strategy_name import parse_strategy

_INTEGER = re.compile(r"-?[0-9]{1,15}")
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")

Degree = Literal["tp", "pp", "dp", "ep", "attn_dp", "moe_tp", "stage_gpus"]


class EngineFlag(Document):
    """One flag: its names, what it takes, what it does, and what bounds it.

    ``degree`` must equal the strategy's, ``at_most`` and ``at_least`` a figure of the
    instance.
    """

    names: Annotated[tuple[Name, ...], Field(min_length=1)]
    takes: Literal["integer", "number", "share", "text", "switch"]
    meaning: str
    default: str = ""
    choices: tuple[str, ...] = ()
    degree: Degree | None = None
    at_most: Figure | None = None
    at_least: Figure | None = None


class EngineFlags(Document):
    """A reduced table of one engine's flags, with its version and source."""

    engine: Literal["vllm", "sglang", "trtllm"]
    version: Name
    source: str
    flags: tuple[EngineFlag, ...]

    def named(self, name: str) -> EngineFlag | None:
        """The flag of this name, underscores standing for hyphens."""
        wanted = name.replace("_", "-")
        for flag in self.flags:
            if wanted in [n.replace("_", "-") for n in flag.names]:
                return flag
        return None


@cache
def table(engine: str) -> EngineFlags:
    """The table of ``models/engines``. Raises InvalidInstance."""
    path = root() / "engines" / f"{engine}.yaml"
    return validate(EngineFlags, parse(read_file(path), str(path)), str(path))


def flag(case: Case, claim: FlagClaim) -> Finding:
    """Whether the flag exists, takes the value, and respects what bounds it."""
    try:
        computed, right, text = _judged(case, claim)
    except Undecidable as missing:
        return _finding(claim, None, "undecidable", f"missing: {missing}")
    if right:
        return _finding(claim, computed, "holds", text)
    if claim.against:
        text = f"by {', '.join(claim.against)}: {text}"
    return _finding(claim, computed, "contradicted" if claim.against else "wrong", text)


def _finding(
    claim: FlagClaim, computed: str | None, verdict: Verdict, text: str
) -> Finding:
    return Finding(
        claim.id, claim.line, claim.quote, f"{claim.flag} {claim.claimed}", computed,
        verdict, f"{text}. {claim.note}" if claim.note else text,
        against=claim.against,
    )  # fmt: skip


def _judged(case: Case, claim: FlagClaim) -> tuple[str, bool, str]:
    """What it should be, whether it is, and what the flag does."""
    known = table(claim.engine)
    found = known.named(claim.flag)
    if found is None:
        raise Undecidable(
            f"{claim.flag} in the table of {known.engine} {known.version}"
        )
    does = f"{known.engine} {known.version}: {found.meaning}"
    if wrong := _refused(found, claim.claimed):
        return wrong, False, does
    judges = (_by_degree, _by_most, _by_least)
    said = [v for judge in judges if (v := judge(case, claim, found)) is not None]
    for right, holds, text in said:
        if not holds:
            return right, False, f"{text}; {does}"
    limits = "; ".join(text for _, _, text in said)
    return claim.claimed, True, f"{limits}; {does}" if limits else does


def _refused(found: EngineFlag, value: str) -> str:
    """What the engine's parser takes instead; empty when it takes the value."""
    if found.takes == "switch":
        return "" if value in ("true", "false") else "a switch without a value"
    if found.takes == "integer" and not _INTEGER.fullmatch(value):
        return "a whole number"
    if found.takes in ("number", "share") and _number(value) is None:
        return "a number"
    share = _number(value) if found.takes == "share" else None
    if share is not None and not 0 < share <= 1:
        return "a share above 0, at most 1"
    if found.choices and value not in found.choices:
        return f"one of {', '.join(found.choices)}"
    return ""


def _number(text: str) -> Fraction | None:
    return Fraction(text) if _NUMBER.fullmatch(text) else None


def _by_degree(
    case: Case, claim: FlagClaim, found: EngineFlag
) -> tuple[str, bool, str] | None:
    if found.degree is None or claim.strategy is None:
        return None
    strategy = parse_strategy(claim.strategy)
    if found.degree == "stage_gpus":
        right = stage_gpus(strategy, "shared") or 0
    else:
        right = strategy.degree(found.degree)
    text = f"{found.degree} of {strategy} is {right}"
    return str(right), int(claim.claimed) == right, text


def _by_most(
    case: Case, claim: FlagClaim, found: EngineFlag
) -> tuple[str, bool, str] | None:
    return _bounded(case, claim, found.at_most, "at most")


def _by_least(
    case: Case, claim: FlagClaim, found: EngineFlag
) -> tuple[str, bool, str] | None:
    return _bounded(case, claim, found.at_least, "at least")


def _bounded(
    case: Case, claim: FlagClaim, name: Figure | None, relation: str
) -> tuple[str, bool, str] | None:
    value = _number(claim.claimed)
    if name is None or value is None:
        return None
    limit = figure(case.instance, name)
    open_here = limit.needs & set(case.claims.open)
    if open_here:
        return None
    bound = limit.readings[0].value
    text = f"{relation} {float(bound):g} ({limit.source})"
    holds = value <= bound if relation == "at most" else value >= bound
    return f"{relation} {float(bound):g}", holds, text
