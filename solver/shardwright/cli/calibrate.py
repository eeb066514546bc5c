"""``shardwright calibrate``: operator curves of a GPU type from measurements."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from shardwright.cli.exits import reported

_MEASUREMENTS = "CSV of operator times; docs/calibration.md has its layout."
_GPU = "GPU type of the catalogue that was measured."
_OUTPUT = "File to write (GPU.operators.yaml; with --measure measurements.csv)."
_RUNS = "CSV of your own serving runs: refit constants on them (docs/fidelity.md)."
_MEASURE = "Time operators on this machine (PyTorch and a GPU) and write the CSV."


def calibrate(
    measurements: Annotated[
        Path | None, typer.Argument(metavar="MEASUREMENTS", help=_MEASUREMENTS)
    ] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help=_GPU)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help=_OUTPUT)
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help=_MEASURE)] = False,
    runs: Annotated[
        Path | None, typer.Option("--runs", metavar="CSV", help=_RUNS)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
) -> None:
    """Fit operator curves to measurements, with their held-out error."""
    with reported():
        from shardwright.planning import calibrate_answer, refit_answer

        if runs is not None:
            refitted = refit_answer.answer(runs, output)
            text = refit_answer.text(refitted)
            typer.echo(json_text.dumps(refitted, indent=2) if json else text)
            return

        if measure:
            made = calibrate_answer.measured(
                measurements, output, lambda line: typer.echo(line, err=True)
            )
            text = f"{made['rows']} measurements written to {made['written']}"
            typer.echo(json_text.dumps(made, indent=2) if json else text)
            return
        found = calibrate_answer.calibrated(measurements, gpu, output)
        typer.echo(
            json_text.dumps(found.document(), indent=2) if json else found.text()
        )
