"""``shardwright scale``: the next sizes up, solved."""

from __future__ import annotations

import json as json_text
from typing import Annotated

import typer

from shardwright.cli.exits import ExitCode, reported
from shardwright.cli.solve import InstancePath

_FACTORS = "Factors, as 2,4; none with 0."
_PLAN = "A plan to show beside the best, as pp=8,tp=2; may be repeated."


def scale(
    instance: InstancePath,
    nodes: Annotated[str, typer.Option(help=_FACTORS)] = "2,4",
    layers: Annotated[str, typer.Option(help=_FACTORS)] = "2",
    context: Annotated[str, typer.Option(help=_FACTORS)] = "2,4",
    model: Annotated[
        list[str] | None, typer.Option(help="A model of the catalogue; repeatable.")
    ] = None,
    plan: Annotated[list[str] | None, typer.Option(help=_PLAN)] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for one solve.")] = 20.0,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Threads.")] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Solve larger clusters, a larger model and longer contexts."""
    with reported():
        from shardwright.cli.counting import counting
        from shardwright.cli.options import parse_factors, parse_fix, parse_seconds
        from shardwright.cli.signals import stop_on_signals
        from shardwright.ingest import load
        from shardwright.planning.scaling import scale as scaled
        from shardwright.planning.scaling import scale_text
        from shardwright.schema.instance import Fix

        asked = load(instance)
        with stop_on_signals() as stop, counting("plans", quiet=quiet) as counted:
            found = scaled(
                asked,
                nodes=parse_factors("--nodes", nodes),
                layers=parse_factors("--layers", layers),
                contexts=parse_factors("--context", context),
                models=model or (),
                plans=[(words, parse_fix(words, Fix())) for words in plan or ()],
                time_limit_s=parse_seconds(time_limit),
                workers=workers,
                stop=stop.is_set,
                on_row=counted,
            )
        document = found.document()
        typer.echo(json_text.dumps(document, indent=2) if json else scale_text(found))
        code = ExitCode.DONE if found.complete else ExitCode.INTERRUPTED
        open_ = {row.status.value for row in found.rows} & {"FEASIBLE", "UNKNOWN"}
        if found.complete and open_:
            code = ExitCode.LIMIT
    raise typer.Exit(code)
