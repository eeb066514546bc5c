"""``shardwright failures``: what a lost GPU or node means, and the best re-plans."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardwright.cli.exits import ExitCode, reported
from shardwright.cli.solve import InstancePath

if TYPE_CHECKING:
    from shardwright.schema.instance import Instance
    from shardwright.schema.plan import Plan

_PLAN = "Plan or result (JSON); without one the instance is solved first."


def failures(
    instance: InstancePath,
    plan: Annotated[Path | None, typer.Argument(metavar="[PLAN]", help=_PLAN)] = None,
    gpus: Annotated[int, typer.Option(min=0, max=8, help="GPUs lost at once.")] = 1,
    nodes: Annotated[int, typer.Option(min=0, max=4, help="Nodes lost at once.")] = 1,
    replan: Annotated[bool, typer.Option(help="Solve on the survivors.")] = True,
    time_limit: Annotated[float, typer.Option(help="Seconds for one re-plan.")] = 10.0,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Threads.")] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
) -> None:
    """Failures of GPUs and nodes up to symmetry: impact, and re-plans with proof."""
    with reported():
        from shardwright.cli.options import parse_seconds
        from shardwright.cli.signals import stop_on_signals
        from shardwright.ingest import load
        from shardwright.resilience import failures as failures_of

        asked = load(instance)
        with stop_on_signals() as stop:
            known = _plan(asked, plan)
            if known is None:
                typer.echo("There is no plan to fail: the instance has none.", err=True)
                raise typer.Exit(ExitCode.INFEASIBLE)
            found = failures_of(
                asked,
                known,
                gpus=gpus,
                nodes=nodes,
                replan=replan,
                time_limit_s=parse_seconds(time_limit),
                workers=workers,
                stop=stop.is_set,
            )
        if json:
            typer.echo(json_text.dumps(found.document(), indent=2))
        else:
            typer.echo(found.text())
    raise typer.Exit(ExitCode.DONE)


def _plan(instance: Instance, path: Path | None) -> Plan | None:
    if path is not None:
        from shardwright.ingest import load_plan

        return load_plan(path)
    from shardwright.solve import solve

    solution = solve(instance, explain=False)
    return solution.plan.document if solution.plan is not None else None
