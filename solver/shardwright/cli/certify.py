"""``shardwright certify``: what lets an answer be re-checked without a solver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardwright.cli.exits import reported
from shardwright.cli.solve import InstancePath

if TYPE_CHECKING:
    from shardwright.schema.instance import Instance
    from shardwright.schema.result import Result

_RESULT = "result.json of ``solve``; without it the instance is solved first."


def certify(
    instance: InstancePath,
    result: Annotated[
        Path | None, typer.Argument(metavar="[RESULT]", help=_RESULT)
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path(
        "certificate.json"
    ),
    time_limit: Annotated[
        float, typer.Option(help="Seconds for solving, and for each goal's prices.")
    ] = 60.0,
) -> None:
    """Write what proves the bounds of a result, for ``check --certificate``."""
    with reported():
        from shardwright.cli.options import parse_seconds
        from shardwright.ingest import load
        from shardwright.ingest.load import load_result
        from shardwright.schema.errors import (
            FieldError,
            InvalidInstance,
            UnsupportedRule,
        )

        seconds, read = parse_seconds(time_limit), load(instance)
        if result is not None:
            answer = load_result(result)
        else:
            from shardwright.solve import solve

            answer = solve(read, time_limit_s=seconds).result
        try:
            typer.echo(written(read, answer, out, seconds, "--out"))
        except UnsupportedRule as error:
            allowed = "what certificates cover (docs/formulation.md, section 10)"
            field = FieldError(str(instance), error.rule, allowed)
            raise InvalidInstance("certificate", [field]) from error


def written(
    instance: Instance, result: Result, path: Path, seconds: float, option: str
) -> str:
    """Write the certificate of a result, and say what it is of."""
    from shardwright.cli.save import write_text
    from shardwright.planning.certify import certify_result
    from shardwright.search.base import SearchLimits

    made = certify_result(instance, result, SearchLimits(time_limit_s=seconds))
    text = made.model_dump_json()
    write_text(path, text, option)
    goals = ", ".join(claim.goal for claim in made.claims)
    points = f"{len(made.claims[0].chains):,} operating points"
    return f"{path}: {goals}; {points}, {len(text):,} bytes"
