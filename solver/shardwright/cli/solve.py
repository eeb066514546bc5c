"""``shardwright solve``: the best plan of an instance, with its proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shardwright.cli.exits import reported, result_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardwright.schema.instance import Instance
    from shardwright.solve import Solution

InstancePath = Annotated[
    Path, typer.Argument(metavar="INSTANCE", help="Instance file (YAML or JSON).")
]
_OBJECTIVE = "Goals in order: gpus, cost, throughput, tpot, ttft."
_FIX = "Decisions fixed beforehand, as tp=2,pp=4,layers=20+20+20+20,dp=1."
_POOLS = "mixed, disaggregated (prefill and decode apart) or any."
_LATENCIES = "Iteration times: analytic, or silicon (measured; extra 'silicon')."
_TABLES = "Tables to print, by name, or 'all'."
_ROUTED = "Instead of an instance: nodes that hold layer intervals, requests routed."
_STAGES = "With --routed: most stages of a route."
_LATENCY = "With --routed: most milliseconds of a route."
_SAVE = "Also write result.json, plan.json and tables.txt to this folder."


def solve(
    instance: Annotated[
        Path | None,
        typer.Argument(metavar="INSTANCE", help="Instance file (YAML or JSON)."),
    ] = None,
    routed: Annotated[Path | None, typer.Option(metavar="FILE", help=_ROUTED)] = None,
    max_stages: Annotated[int | None, typer.Option(help=_STAGES)] = None,
    max_latency: Annotated[float | None, typer.Option(help=_LATENCY)] = None,
    objective: Annotated[str | None, typer.Option(help=_OBJECTIVE)] = None,
    solver: Annotated[str, typer.Option(help="Strategy (see doctor).")] = "default",
    fix: Annotated[str | None, typer.Option(help=_FIX)] = None,
    pools: Annotated[str | None, typer.Option(help=_POOLS)] = None,
    latencies: Annotated[str | None, typer.Option(help=_LATENCIES)] = None,
    gap: Annotated[str, typer.Option(help="Stop within this gap, as 0.1%.")] = "0",
    time_limit: Annotated[
        float, typer.Option(help="Seconds before the best plan is returned.")
    ] = 60.0,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads of the engines.")
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Random seed.")] = 0,
    save_dir: Annotated[Path | None, typer.Option(help=_SAVE)] = None,
    tables: Annotated[str | None, typer.Option(help=_TABLES)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Find the best deployment of an instance and prove it."""
    with reported():
        from shardwright.cli.options import (
            override,
            parse_gap,
            parse_seconds,
            parse_tables,
        )
        from shardwright.cli.routed import solve_and_print, which
        from shardwright.ingest import load

        names = parse_tables(tables)
        limits = {"gap": parse_gap(gap), "time_limit_s": parse_seconds(time_limit)}
        parameters = {"workers": workers, "seed": seed, **limits}
        caps = {"max_stages": max_stages, "max_latency_ms": max_latency}
        others = {"--objective": objective, "--fix": fix, "--tables": tables}
        others |= {"--pools": pools, "--latencies": latencies}
        path = which(instance, routed, caps, others, save_dir, solver)
        if routed is not None:
            code: int = solve_and_print(
                path, {**parameters, **caps}, json=json, quiet=quiet
            )
        else:
            asked = override(
                load(path),
                fix=fix,
                objective=objective,
                pools=pools,
                latencies=latencies,
            )
            code = _solve_and_print(
                asked,
                {"solver": solver, **parameters},
                names=names,
                save_dir=save_dir,
                as_json=json,
                quiet=quiet,
            )
    raise typer.Exit(code)


def _solve_and_print(
    instance: Instance,
    parameters: dict[str, Any],
    *,
    names: list[str] | None,
    save_dir: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    from shardwright.cli.progress import progress
    from shardwright.cli.save import save
    from shardwright.cli.signals import stop_on_signals
    from shardwright.plan.answer import saved_tables
    from shardwright.solve import solve as solve_instance

    with stop_on_signals() as stop:
        with progress(quiet=quiet) as on_progress:
            solution = solve_instance(
                instance, **parameters, stop=stop.is_set, on_progress=on_progress
            )
        result = solution.result
        document = result.model_dump_json(by_alias=True, indent=2) if as_json else None
        typer.echo(document or _text(solution, names))
        if save_dir is not None:
            save(save_dir, result, _text(solution, names or saved_tables()))
    return int(result_code(result))


def _text(solution: Solution, names: Sequence[str] | None) -> str:
    from shardwright.plan.answer import answer

    found = solution.fixed_report.violations if solution.fixed_report else ()
    return answer(
        solution.result,
        solution.plan,
        names,
        fixed=solution.fixed,
        violations=[str(violation) for violation in found],
    )
