"""``shardwright mix``: which GPUs to rent for buckets of requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shardwright.cli.exits import ExitCode, reported

_FILE = "Tables of requests/s, or an instance with GPU types and buckets (YAML, JSON)."


def mix(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_FILE)],
    time_limit: Annotated[float, typer.Option(help="Seconds for one solve.")] = 30.0,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Find the cheapest set of GPU types that serves every kind of request."""
    with reported():
        from shardwright.cli.counting import counting
        from shardwright.cli.options import parse_seconds
        from shardwright.cli.signals import stop_on_signals
        from shardwright.planning.fleet_mix import mix as cheapest
        from shardwright.planning.fleet_mix import mix_text

        with stop_on_signals() as stop, counting("solves", quiet=quiet) as counted:
            found = cheapest(
                file,
                time_limit_s=parse_seconds(time_limit),
                workers=workers,
                stop=stop.is_set,
                on_row=lambda row, total: counted(total),
            )
        typer.echo(found.model_dump_json(indent=2) if json else mix_text(found))
        codes = {
            "OPTIMAL": ExitCode.DONE,
            "FEASIBLE": ExitCode.LIMIT,
            "INFEASIBLE": ExitCode.INFEASIBLE,
        }
        code = codes.get(found.status.value, ExitCode.UNKNOWN)
        if stop.is_set():
            code = ExitCode.INTERRUPTED
    raise typer.Exit(code)
