"""``shardwright report``: requirements, margins, failures, solved recommendations."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from shardwright.cli.exits import ExitCode, reported
from shardwright.cli.solve import InstancePath


def report(
    instance: InstancePath,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a Markdown page.")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(help="Seconds for all that is solved.")
    ] = 60.0,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Threads.")] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
) -> None:
    """Compliance of the best plan: what was asked, margins, failures, what to do."""
    with reported():
        from shardwright.cli.options import parse_seconds
        from shardwright.cli.save import write_text
        from shardwright.cli.signals import stop_on_signals
        from shardwright.ingest import load
        from shardwright.report import compliance

        with stop_on_signals() as stop:
            found = compliance(
                load(instance),
                time_limit_s=parse_seconds(time_limit),
                workers=workers,
                stop=stop.is_set,
            )
        if json:
            typer.echo(json_text.dumps(found.document(), indent=2, default=str))
        else:
            typer.echo(found.text())
        if markdown is not None:
            write_text(markdown, found.markdown(), "--markdown")
        solved = found.solution.plan is not None
    raise typer.Exit(ExitCode.DONE if solved else ExitCode.INFEASIBLE)
