"""``shardwright sweep``: many instances that differ in a few fields, in parallel."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from shardwright.cli.exits import ExitCode, reported

_OUT = "Folder of the journal and of results.csv, results.jsonl; a re-run goes on."
_RAY = "On a Ray cluster: its address, auto, or local (needs the extra ray)."


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="SWEEP", help="Sweep file (YAML or JSON).")
    ],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help=_OUT)] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes at a time.")
    ] = 2,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help=_RAY)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Solve one instance at many values of its fields."""
    with reported():
        from shardwright.cli.counting import counting
        from shardwright.cli.signals import stop_on_signals
        from shardwright.planning.sweep import run_sweep
        from shardwright.planning.sweep_text import sweep_text

        with stop_on_signals() as stop, counting("points", quiet=quiet) as counted:
            run = run_sweep(
                file,
                folder=out,
                workers=workers,
                ray=ray,
                stop=stop.is_set,
                on_row=lambda row, total: counted(total),
            )
        document = run.document()
        typer.echo(json_text.dumps(document, indent=2) if json else sweep_text(run))
        code = _code(run.counts, complete=run.complete)
    raise typer.Exit(code)


def _code(counts: dict[str, int], *, complete: bool) -> ExitCode:
    if not complete:
        return ExitCode.INTERRUPTED
    if counts.get("ERROR"):
        return ExitCode.INTERNAL
    if {*counts} == {"INVALID"}:
        return ExitCode.BAD_INPUT
    open_ = counts.get("UNKNOWN") or counts.get("FEASIBLE")
    return ExitCode.LIMIT if open_ else ExitCode.DONE
