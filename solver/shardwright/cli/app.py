"""The application: its commands and nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from shardwright._version import __version__
from shardwright.cli.audit import audit
from shardwright.cli.calibrate import calibrate
from shardwright.cli.certify import certify
from shardwright.cli.check import check
from shardwright.cli.doctor import doctor
from shardwright.cli.experts import experts
from shardwright.cli.explain import explain
from shardwright.cli.failures import failures
from shardwright.cli.import_cluster import import_cluster
from shardwright.cli.mix import mix
from shardwright.cli.pareto import pareto
from shardwright.cli.report import report
from shardwright.cli.scale import scale
from shardwright.cli.schema import schema
from shardwright.cli.simulate import simulate
from shardwright.cli.solve import solve
from shardwright.cli.sweep import sweep

app = typer.Typer(
    name="shardwright",
    add_completion=False,
    no_args_is_help=True,
    # rich costs as much start-up time as all else together
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in (
    solve,
    check,
    certify,
    explain,
    report,
    audit,
    failures,
    simulate,
    sweep,
    pareto,
    scale,
    mix,
    experts,
    calibrate,
    schema,
    doctor,
):
    app.command()(_command)
app.command("import")(import_cluster)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print version."
        ),
    ] = False,
) -> None:
    """Decide how to deploy an LLM on a GPU cluster, with a proof."""


def main() -> None:
    """Entry point of the ``shardwright`` command."""
    app()
