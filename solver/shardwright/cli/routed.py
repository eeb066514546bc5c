"""``shardwright solve --routed FILE``: intervals for nodes, routes for requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from shardwright.cli.exits import ExitCode, result_code


def which(
    instance: Path | None,
    routed: Path | None,
    caps: dict[str, Any],
    others: dict[str, Any],
    save_dir: Path | None,
    solver: str,
) -> Path:
    """The one file to solve; options that do not go with it are refused."""
    from shardwright.schema.errors import FieldError, InvalidInstance

    both = "INSTANCE, or --routed FILE, and not both"
    told = {**others, "--save-dir": save_dir}
    told["--solver"] = solver if solver != "default" else None
    wrong = told if routed is not None else caps
    errors = [
        FieldError(_option(name), repr(str(value)), _only(routed is not None))
        for name, value in wrong.items()
        if value is not None
    ]
    if (instance is None) == (routed is None):
        found = "neither" if instance is None else "two files"
        errors.insert(0, FieldError("INSTANCE", found, both))
    path = routed or instance
    if errors or path is None:
        raise InvalidInstance("command line", errors)
    return path


def _option(name: str) -> str:
    return (
        name
        if name.startswith("--")
        else f"--{name.removesuffix('_ms')}".replace("_", "-")
    )


def _only(routed: bool) -> str:
    return "not with --routed" if routed else "only with --routed"


def solve_and_print(
    path: Path, parameters: dict[str, Any], *, json: bool, quiet: bool
) -> ExitCode:
    """Solve the file, print the answer and say how it ended."""
    from shardwright.cli.progress import progress
    from shardwright.cli.signals import stop_on_signals
    from shardwright.ingest.routed import load_routed
    from shardwright.plan.routed_answer import routed_text
    from shardwright.planning.routed import solve_routed

    instance = load_routed(path)
    with stop_on_signals() as stop:
        with progress(quiet=quiet) as on_progress:
            result = solve_routed(
                instance, **parameters, stop=stop.is_set, on_progress=on_progress
            )
        shown = result.model_dump_json(by_alias=True, indent=2)
        typer.echo(shown if json else routed_text(instance, result))
    return result_code(result)
