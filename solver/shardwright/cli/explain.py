"""``shardwright explain``: why nothing fits and what would, or what binds a plan."""

from __future__ import annotations

import json as json_text
from typing import Annotated

import typer

from shardwright.cli.exits import ExitCode, reported
from shardwright.cli.solve import InstancePath


def explain(
    instance: InstancePath,
    fix: Annotated[str | None, typer.Option(help="As for solve.")] = None,
    time_limit: Annotated[
        float, typer.Option(help="Seconds for the answer, and again for the rest.")
    ] = 30.0,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Threads.")] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
) -> None:
    """Say why nothing fits and what would; or what binds the best plan."""
    with reported():
        from shardwright.cli.options import override, parse_seconds
        from shardwright.cli.signals import stop_on_signals
        from shardwright.explain import explain as explain_instance
        from shardwright.ingest import load

        with stop_on_signals() as stop:
            found = explain_instance(
                override(load(instance), fix=fix),
                time_limit_s=parse_seconds(time_limit),
                workers=workers,
                stop=stop.is_set,
                on_answer=None if json else lambda known: typer.echo(known.answer()),
            )
        if json:
            typer.echo(json_text.dumps(found.document(), indent=2, default=str))
        else:
            typer.echo(f"\n{found.rest()}")
    raise typer.Exit(ExitCode.DONE if found.feasible else ExitCode.INFEASIBLE)
