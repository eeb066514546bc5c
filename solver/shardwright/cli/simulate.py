"""``shardwright simulate``: do the percentiles hold when requests really queue?"""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shardwright.cli.exits import ExitCode, reported
from shardwright.cli.solve import InstancePath

if TYPE_CHECKING:
    from shardwright.schema.instance import Instance
    from shardwright.schema.plan import Plan
    from shardwright.schema.result import Result

_PLAN = "Plan, or result with a plan (JSON). Without one the instance is solved first."
_RATE = "Requests per second; default: the instance's, or a trace's own."
_ARRIVALS = (
    "poisson, gamma:CA2 (squared cv between arrivals), burst (all at once), "
    "or a CSV trace: arrival_s,input_tokens,output_tokens. Default: the instance's."
)
_ROUTING = "How requests are split: random, round_robin, least_loaded."


def simulate(
    instance: InstancePath,
    plan: Annotated[Path | None, typer.Argument(metavar="[PLAN]", help=_PLAN)] = None,
    requests: Annotated[
        int, typer.Option(min=10, max=10_000_000, help="Requests per seed.")
    ] = 40_000,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs.")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="First seed.")] = 0,
    rate: Annotated[float | None, typer.Option(help=_RATE)] = None,
    arrivals: Annotated[str | None, typer.Option(help=_ARRIVALS)] = None,
    routing: Annotated[str, typer.Option(help=_ROUTING)] = "random",
    time_limit: Annotated[
        float, typer.Option(help="Seconds for solving, if no plan is given.")
    ] = 60.0,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads of the engines.")
    ] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON.")] = False,
) -> None:
    """Simulate a plan request by request and compare it with its targets."""
    with reported():
        from shardwright.cli.options import parse_seconds
        from shardwright.cli.simulating import plan_for, rate_given, routing_named
        from shardwright.ingest import load
        from shardwright.schema.result import Result as NoPlan

        asked, wanted = load(instance), rate_given(rate)
        options: dict[str, Any] = {
            "arrivals": arrivals,
            "rate_per_s": wanted,
            "requests": requests,
            "seeds": seeds,
            "seed": seed,
            "routing": routing_named(routing),
        }
        given = plan_for(asked, plan, parse_seconds(time_limit), workers)
        if isinstance(given, NoPlan):
            code = _without_plan(given)
        else:
            code = _simulate_and_print(asked, given, options, as_json=json)
    raise typer.Exit(code)


def _simulate_and_print(
    instance: Instance, plan: Plan, options: dict[str, Any], *, as_json: bool
) -> int:
    from shardwright.simulate.study import study
    from shardwright.simulate.text import study_text

    found = study(instance, plan, **options)
    text = json_text.dumps(found.as_dict(), indent=2) if as_json else study_text(found)
    typer.echo(text)
    return int(ExitCode.VIOLATIONS if found.missed else ExitCode.DONE)


def _without_plan(result: Result) -> int:
    from shardwright.cli.exits import result_code

    why = "there is no plan to simulate; `shardwright solve` says why."
    typer.echo(f"{result.status.value}: {why}")
    return int(result_code(result))
