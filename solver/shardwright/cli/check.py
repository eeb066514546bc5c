"""``shardwright check``: does a plan keep what it claims?"""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from shardwright.cli.exits import ExitCode, reported
from shardwright.cli.solve import InstancePath

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
        from shardwright.plan.answer import report_text

        read = load(instance)
        report = check_plan(read, load_plan(plan))
        proof = None
        if certificate is not None:
            from shardwright.check.certified import certified
            from shardwright.ingest.load import (
                load_certificate,
                load_grid,
                load_objectives,
            )

            proof = certified(
                read,
                report,
                load_certificate(certificate),
                load_grid(plan),
                load_objectives(plan),
            )
        if json:
            own = {} if proof is None else {"certificate": proof.as_dict()}
            typer.echo(json_text.dumps({**report.as_dict(), **own}, indent=2))
        else:
            messages = [str(violation) for violation in report.violations]
            if proof is not None:
                typer.echo(f"{proof.text()}\n")
            typer.echo(report_text(report, messages))
    code = ExitCode.DONE
    if proof is not None and not proof.complete:
        code = ExitCode.LIMIT
    if not report.ok or (proof is not None and proof.refuted):
        code = ExitCode.VIOLATIONS
    raise typer.Exit(code)
