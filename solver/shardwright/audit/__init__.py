"""Somebody's report as claims, each computed again: holds, wrong, or not decidable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardwright._callable import make_callable
from shardwright.audit.evidence import Finding as Finding
from shardwright.audit.evidence import Verdict as Verdict
from shardwright.audit.load import load_claims as load_claims
from shardwright.audit.report import AuditReport as AuditReport
from shardwright.schema.claims import Claims
from shardwright.schema.instance import Instance


def audit(
    instance: Instance,
    claims: Claims | str | Path,
    *,
    solve: Callable[..., Any] | None = None,
) -> AuditReport:
    """Judge every claim against the instance.

    ``claims`` is a document or the path of one. ``solve`` decides strategies; by
    default ``shardwright.solve``. Raises InvalidInstance where a claim cannot be read,
    names what is not there, or is in units of another kind.
    """
    from shardwright.audit.case import Case
    from shardwright.audit.judge import judge, judge_summary
    from shardwright.schema.claims import AllOfClaim

    if solve is None:
        from shardwright.solve import solve as solve_instance

        solve = solve_instance
    document = claims if isinstance(claims, Claims) else load_claims(claims)
    case = Case(instance, document, solve)
    found: dict[str, Finding] = {}
    summaries = [c for c in document.claims if isinstance(c, AllOfClaim)]
    for claim in document.claims:
        if not isinstance(claim, AllOfClaim):
            found[claim.id] = judge(case, claim)
    for summary in summaries:
        found[summary.id] = judge_summary(summary, found)
    ordered = tuple(found[claim.id] for claim in document.claims)
    return AuditReport(document.document, instance.name, ordered)


make_callable(__name__, audit)
