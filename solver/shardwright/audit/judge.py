"""From evidence to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from shardwright.audit import bounds, flags, layout, memory, solved, traffic
from shardwright.audit.case import Case
from shardwright.audit.evidence import (
    Evidence,
    Finding,
    Reading,
    Undecidable,
    Verdict,
    refuse,
)
from shardwright.schema.claims import AllOfClaim, Claim, OpenClaim
from shardwright.schema.printed import (
    BANDWIDTH,
    BYTE,
    COMPUTE,
    COUNT,
    FLOP,
    RATE,
    SECOND,
    Printed,
    in_unit,
    parse_printed,
)

_EVIDENCE: dict[str, Callable[[Case, Any], Evidence]] = {
    "fact": layout.fact,
    "formula": layout.formula,
    "degree": layout.degree,
    "gpus": layout.gpus,
    "replicas": layout.replicas,
    "layers": layout.layers,
    "experts": layout.experts,
    "weights": memory.weights,
    "weights_imbalance": memory.weights_imbalance,
    "kv_bytes_per_token": memory.kv_bytes,
    "kv_tokens": memory.kv_tokens,
    "bubble": traffic.bubble,
    "message": traffic.message,
    "transfer_time": traffic.transfer,
    "link_share": traffic.link_share,
    "flop_per_token": bounds.flop,
    "performance": bounds.performance,
}
_KINDS = {
    BYTE: "bytes, as GB or GiB",
    SECOND: "seconds, as ms",
    RATE: "something per second, as tokens/s",
    BANDWIDTH: "bytes or bits per second, as GB/s or Gbps",
    FLOP: "floating-point operations, as GFLOP",
    COMPUTE: "floating-point operations per second, as TFLOP/s",
    COUNT: "numbers, shares or ratios, as 8 GPUs, 25% or 1.4x",
}
_FINDINGS: dict[str, Callable[[Case, Any], Finding]] = {
    "feasibility": solved.feasibility,
    "optimal": solved.optimal,
    "flag": flags.flag,
}


def judge(case: Case, claim: Claim) -> Finding:
    """The verdict on one claim that does not depend on other verdicts."""
    if isinstance(claim, OpenClaim):
        return _finding(claim, None, "undecidable", f"missing: {claim.missing}")
    if claim.type in _FINDINGS:
        return _FINDINGS[claim.type](case, claim)
    try:
        evidence = _EVIDENCE[claim.type](case, claim)
    except Undecidable as missing:
        return _finding(claim, None, "undecidable", f"missing: {missing}")
    printed = parse_printed(claim.claimed)
    if printed.unit.dimension != evidence.dimension:
        refuse(
            case.claims.document, claim.id, "claimed", repr(claim.claimed),
            f"a figure in {_KINDS.get(evidence.dimension, 'other units')}",
        )  # fmt: skip
    if left_open := sorted(evidence.needs & set(case.claims.open)):
        return _assumed(claim, printed, evidence, left_open)
    if evidence.bound is not None:
        return _bounded(claim, printed, evidence)
    if evidence.ends is not None:
        return _ranged(claim, printed, evidence)
    return _compared(claim, printed, evidence)


def judge_summary(claim: AllOfClaim, found: Mapping[str, Finding]) -> Finding:
    """A summary falls with the first of its claims that falls."""
    parts = [found[name] for name in claim.of]
    fallen = [f.id for f in parts if f.verdict in ("wrong", "contradicted")]
    unclear = [f.id for f in parts if f.verdict == "undecidable"]
    if fallen:
        held = sum(f.verdict == "holds" for f in parts)
        text = f"by {', '.join(fallen)}; {held} of {len(parts)} hold"
        return _finding(claim, f"{held} of {len(parts)}", "contradicted", text)
    if unclear:
        text = f"missing: what decides {', '.join(unclear)}"
        return _finding(claim, None, "undecidable", text)
    return _finding(claim, f"all {len(parts)}", "holds", "every one of them holds")


def _finding(
    claim: Claim,
    computed: str | None,
    verdict: Verdict,
    derivation: str,
    error: float | None = None,
) -> Finding:
    if claim.note:
        derivation = f"{derivation}. {claim.note}" if derivation else claim.note
    return Finding(
        claim.id, claim.line, claim.quote, claim.claimed, computed, verdict,
        derivation, error, claim.against,
    )  # fmt: skip


def _assumed(
    claim: Claim, printed: Printed, evidence: Evidence, left_open: list[str]
) -> Finding:
    """What the instance assumes decides nothing; its figure is told all the same."""
    words = ", ".join(name.replace("_", " ") for name in left_open)
    text = f"missing: {words}; under the instance's assumption"
    if evidence.readings:
        text += f" {in_unit(evidence.readings[0].value, printed.unit)}"
    text += f": {evidence.derivation}"
    if evidence.estimate:
        text += f"; {evidence.estimate}"
    return _finding(claim, None, "undecidable", text)


def _bounded(claim: Claim, printed: Printed, evidence: Evidence) -> Finding:
    """Only a bound is known: what lies beyond it is wrong, the rest open."""
    assert evidence.bound is not None
    sign, bound = evidence.bound
    if sign == ">=":
        says = printed.relation in ("=", "<", "<=")
        beyond = says and printed.high + printed.half < bound
    else:
        says = printed.relation in ("=", ">", ">=")
        beyond = says and printed.low - printed.half > bound
    text = evidence.derivation
    if evidence.estimate:
        text += f"; {evidence.estimate}"
    if not beyond:
        return _finding(claim, None, "undecidable", f"not disproved: {text}")
    return _fallen(claim, printed, bound, f"{sign} ", text)


def _ranged(claim: Claim, printed: Printed, evidence: Evidence) -> Finding:
    assert evidence.ends is not None
    low, high = evidence.ends
    computed = f"{low}-{high} {printed.unit.name}".strip()
    if printed.low == low and printed.high == high:
        return _finding(claim, computed, "holds", evidence.derivation)
    return _judged_wrong(claim, computed, evidence.derivation, None)


def _compared(claim: Claim, printed: Printed, evidence: Evidence) -> Finding:
    for reading in evidence.readings:
        how = _matches(claim, printed, reading.value, evidence.counted)
        if how is None:
            continue
        words = "; ".join(text for text in (_label(evidence, reading), how) if text)
        text = evidence.derivation + (f" ({words})" if words else "")
        return _finding(claim, in_unit(reading.value, printed.unit), "holds", text)
    return _fallen(claim, printed, evidence.readings[0].value, "", evidence.derivation)


def _label(evidence: Evidence, reading: Reading) -> str:
    """Named only where the words can mean several things."""
    return f"read: {reading.label}" if len(evidence.readings) > 1 else ""


def _matches(
    claim: Claim, printed: Printed, value: Fraction, counted: bool
) -> str | None:
    """How the value agrees with the print: '' plainly, words otherwise, None not."""
    if _agrees(claim, printed, value):
        return ""
    unit = printed.unit
    if unit.binary is None or not counted:
        return None
    as_binary = value * unit.factor / unit.binary
    if not _agrees(claim, printed, as_binary):
        return None
    name = unit.name.replace("B", "iB", 1)
    binary = float(value / unit.binary)
    return f"read as {name}: {in_unit(value, unit)} are {binary:.4g} {name}"


def _agrees(claim: Claim, printed: Printed, value: Fraction) -> bool:
    match printed.relation:
        case "<":
            return value < printed.low
        case "<=":
            return value <= printed.low
        case ">":
            return value > printed.low
        case ">=":
            return value >= printed.low
    slack = printed.half
    if claim.tolerance is not None:
        slack = Fraction(str(claim.tolerance)) * abs(printed.low)
    return printed.low - slack <= value <= printed.high + slack


def _fallen(
    claim: Claim, printed: Printed, right: Fraction, sign: str, text: str
) -> Finding:
    # no error to tell where the bound itself is the figure ("below 85%")
    error = (float(printed.low / right - 1) if right else 0.0) or None
    computed = sign + in_unit(right, printed.unit)
    return _judged_wrong(claim, computed, text, error)


def _judged_wrong(
    claim: Claim, computed: str, text: str, error: float | None
) -> Finding:
    if claim.against:
        text = f"by {', '.join(claim.against)}: {text}"
        return _finding(claim, computed, "contradicted", text, error)
    return _finding(claim, computed, "wrong", text, error)
