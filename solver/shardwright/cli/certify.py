"""``shardwright certify``: what lets the bound be re-checked without a solver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shardwright.cli.exits import reported
from shardwright.cli.solve import InstancePath


def certify(
    instance: InstancePath,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path(
        "certificate.json"
    ),
    time_limit: Annotated[float, typer.Option(help="Seconds for the prices.")] = 60.0,
) -> None:
    """Write a certificate of the first goal's bound, for ``check --certificate``."""
    with reported():
        from shardwright.cli.save import write_text
        from shardwright.ingest import load
        from shardwright.planning.certify import certify as make
        from shardwright.search.base import SearchLimits

        made = make(load(instance), SearchLimits(time_limit_s=time_limit))
        text = made.model_dump_json()
        write_text(out, text, "--out")
        points = f"{len(made.chains):,} operating points"
        typer.echo(f"{out}: {made.goal}, {points}, {len(text):,} bytes")
