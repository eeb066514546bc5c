"""``shardwright doctor``: is this installation able to do its work?"""

from __future__ import annotations

import typer

from shardwright.cli.exits import ExitCode


def doctor() -> None:
    """Report versions, solvers, the catalogue and threads; exit 70 on a fault."""
    from shardwright.cli.health import findings

    found = findings()
    width = max(len(name) for name, _, _ in found)
    for name, value, fine in found:
        typer.echo(f"{'ok ' if fine else 'BAD'}  {name:<{width}}  {value}")
    if not all(fine for _, _, fine in found):
        raise typer.Exit(ExitCode.INTERNAL)
