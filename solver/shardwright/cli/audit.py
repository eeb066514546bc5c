"""``shardwright audit``: what of a report holds?"""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from shardwright.cli.exits import ExitCode, reported
from shardwright.cli.save import write_text
from shardwright.cli.solve import InstancePath

ClaimsPath = Annotated[
    Path, typer.Argument(metavar="CLAIMS", help="Claims of a report (YAML or JSON).")
]
_MARKDOWN = "Also write the verdicts as a Markdown table to this file."


def audit(
    instance: InstancePath,
    claims: ClaimsPath,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    markdown: Annotated[Path | None, typer.Option(help=_MARKDOWN)] = None,
) -> None:
    """Compute the claims of a report again: holds, wrong, or not decidable."""
    with reported():
        from shardwright.audit import audit as audit_claims
        from shardwright.ingest import load

        report = audit_claims(load(instance), claims)
        if markdown is not None:
            write_text(markdown, report.markdown(), "--markdown")
        if json:
            typer.echo(json_text.dumps(report.as_list(), indent=2, ensure_ascii=False))
        else:
            typer.echo(report.text())
    raise typer.Exit(ExitCode.DONE if report.ok else ExitCode.VIOLATIONS)
