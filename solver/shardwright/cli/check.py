"""``shardwright check``: does a plan keep what it claims?"""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardwright.cli.exits import ExitCode, reported
from shardwright.cli.solve import InstancePath

if TYPE_CHECKING:
    from shardwright.check.report import Report
    from shardwright.schema.instance import Instance

PlanPath = Annotated[
    Path, typer.Argument(metavar="PLAN", help="Plan, or result with a plan (JSON).")
]


CertificatePath = Annotated[
    Path | None,
    typer.Option(help="Re-check the bounds with this file, without any solver."),
]


def check(
    instance: InstancePath,
    plan: PlanPath,
    certificate: CertificatePath = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
) -> None:
    """Check a plan against an instance, independently of every solver."""
    with reported():
        from shardwright.check import check as check_plan
        from shardwright.ingest import load, load_plan
        from shardwright.ingest.load import says_infeasible

        read = load(instance)
        if certificate is not None and says_infeasible(plan):
            code = _no_plan(read, plan, certificate, as_json=json)
        else:
            report = check_plan(read, load_plan(plan))
            code = _plan(read, report, plan, certificate, as_json=json)
    raise typer.Exit(code)


def _no_plan(instance: Instance, result: Path, path: Path, *, as_json: bool) -> int:
    """That no plan exists, re-checked."""
    from shardwright.check.certified import certified_infeasible
    from shardwright.ingest.load import load_certificate, load_grid

    proof = certified_infeasible(instance, load_certificate(path), load_grid(result))
    own = json_text.dumps({"certificate": proof.as_dict()}, indent=2)
    typer.echo(own if as_json else proof.text())
    return ExitCode.DONE if proof.complete else ExitCode.LIMIT


def _plan(
    instance: Instance, report: Report, plan: Path, path: Path | None, *, as_json: bool
) -> int:
    """The rules, and the bounds where there is a certificate."""
    from shardwright.plan.answer import report_text

    proof = None
    if path is not None:
        from shardwright.check.certified import certified
        from shardwright.ingest.load import (
            load_certificate,
            load_grid,
            load_objectives,
        )

        grid, goals = load_grid(plan), load_objectives(plan)
        proof = certified(instance, report, load_certificate(path), grid, goals)
    if as_json:
        own = {} if proof is None else {"certificate": proof.as_dict()}
        typer.echo(json_text.dumps({**report.as_dict(), **own}, indent=2))
    else:
        messages = [str(violation) for violation in report.violations]
        if proof is not None:
            typer.echo(f"{proof.text()}\n")
        typer.echo(report_text(report, messages))
    if not report.ok or (proof is not None and proof.refuted):
        return ExitCode.VIOLATIONS
    return ExitCode.DONE if proof is None or proof.complete else ExitCode.LIMIT
