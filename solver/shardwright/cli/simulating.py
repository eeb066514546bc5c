"""Reading what ``simulate`` is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.simulate.fleet import Routing

if TYPE_CHECKING:
    from shardwright.schema.instance import Instance
    from shardwright.schema.plan import Plan
    from shardwright.schema.result import Result


def routing_named(text: str) -> Routing:
    """One of the known ways to split requests."""
    known: dict[str, Routing] = {name: name for name in get_args(Routing)}
    if text not in known:
        raise _refused("--routing", repr(text), f"one of {', '.join(known)}")
    return known[text]


def rate_given(rate: float | None) -> float | None:
    """A rate; NaN passes every comparison that refuses, so it is named."""
    if rate is not None and not 0 < rate <= 1e9:
        raise _refused("--rate", f"{rate:g}", "requests per second, above 0, up to 1e9")
    return rate


def _refused(path: str, found: str, allowed: str) -> InvalidInstance:
    return InvalidInstance("command line", [FieldError(path, found, allowed)])


def plan_for(
    instance: Instance, path: Path | None, time_limit_s: float, workers: int
) -> Plan | Result:
    """The plan of a file, or the best one within the limit; the result without one."""
    if path is not None:
        from shardwright.ingest import load_plan

        return load_plan(path)
    from shardwright.cli.signals import stop_on_signals
    from shardwright.solve import solve

    with stop_on_signals() as stop:
        result = solve(
            instance, time_limit_s=time_limit_s, workers=workers, stop=stop.is_set
        ).result
    return result if result.plan is None else result.plan
