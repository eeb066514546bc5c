"""``shardwright pareto``: the plans that trade one figure for another."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from shardwright.cli.exits import ExitCode, reported
from shardwright.cli.solve import InstancePath

_FRONT = "Two axes: what is optimised, what is limited."


def pareto(
    instance: InstancePath,
    front: Annotated[
        str, typer.Option(metavar="A,B", help=_FRONT)
    ] = "throughput_per_gpu,tokens_per_s_per_user",
    points: Annotated[int, typer.Option(min=2, max=500, help="Most plans.")] = 8,
    time_limit: Annotated[float, typer.Option(help="Seconds for one solve.")] = 20.0,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Threads.")] = 2,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw the front.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Trade throughput, cost or GPUs against a latency, each point proven."""
    with reported():
        from shardwright.cli.counting import counting
        from shardwright.cli.options import parse_seconds
        from shardwright.cli.save import write_text
        from shardwright.cli.signals import stop_on_signals
        from shardwright.ingest import load
        from shardwright.planning.pareto import pareto as front_of
        from shardwright.planning.pareto_text import front_svg, front_text

        asked = load(instance)
        with stop_on_signals() as stop, counting("solves", quiet=quiet) as counted:
            found = front_of(
                asked,
                front,
                points=points,
                time_limit_s=parse_seconds(time_limit),
                workers=workers,
                stop=stop.is_set,
                on_solve=counted,
            )
        if svg is not None:
            write_text(svg, front_svg(found), "--svg")
        document = found.document()
        typer.echo(json_text.dumps(document, indent=2) if json else front_text(found))
        code = ExitCode.DONE
        if stop.is_set():
            code = ExitCode.INTERRUPTED
        elif not found.points:
            code = ExitCode.INFEASIBLE if found.complete else ExitCode.UNKNOWN
        elif any(point.gap != 0 for point in found.points):
            code = ExitCode.LIMIT
    raise typer.Exit(code)
