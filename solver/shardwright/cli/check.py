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


def check(
    instance: InstancePath,
    plan: PlanPath,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
) -> None:
    """Check a plan against an instance, independently of every solver."""
    with reported():
        from shardwright.check import check as check_plan
        from shardwright.ingest import load, load_plan
        from shardwright.plan.answer import report_text

        report = check_plan(load(instance), load_plan(plan))
        if json:
            typer.echo(json_text.dumps(report.as_dict(), indent=2))
        else:
            messages = [str(violation) for violation in report.violations]
            typer.echo(report_text(report, messages))
    raise typer.Exit(ExitCode.DONE if report.ok else ExitCode.VIOLATIONS)
