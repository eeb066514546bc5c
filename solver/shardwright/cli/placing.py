"""Reading what ``experts`` is given, and refusing it in the words of the library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from shardwright.schema.errors import FieldError, InvalidInstance

if TYPE_CHECKING:
    from shardwright.plan.expert_answer import ExpertAnswer


def answer(
    loads: list[Path],
    current: Path | None,
    *,
    gap: float,
    time_limit_s: float,
    workers: int,
    seed: int,
    **asked: Any,
) -> ExpertAnswer:
    """The placement for these tables; InvalidInstance for what does not fit."""
    from shardwright.experts import (
        Deadline,
        Effort,
        plan_experts,
        read_loads,
        read_map,
        scenario_tables,
    )
    from shardwright.plan.expert_answer import ExpertAnswer

    tables: dict[str, Any] = {}
    for path in loads:
        with _refused(str(path)):
            tables[_unused(path.stem, tables)] = read_loads(path).load
    held = None
    if current is not None:
        with _refused(str(current)):
            held = read_map(current)
    started = monotonic()
    deadline = Deadline.after(time_limit_s)
    effort = Effort(tolerance=gap, workers=workers, seed=seed, deadline=deadline)
    with _refused("command line"):
        stacked = scenario_tables(tables)
        plan = plan_experts(stacked, current=held, effort=effort, **asked)
    seconds = monotonic() - started
    experts = int(stacked.shape[2])
    return ExpertAnswer(plan, tuple(tables), experts, asked["nodes"], gap, seconds)


def _unused(name: str, taken: dict[str, Any]) -> str:
    """Names of tables are told apart by a number."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}-{count}"
    return candidate


@contextmanager
def _refused(source: str) -> Iterator[None]:
    """What the library refuses, or a file that cannot be read, is bad input."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        field = FieldError("file", reason, "allowed: a file that can be read")
        raise InvalidInstance(source, [field]) from error
    except ValueError as error:
        where, _, rest = str(error).partition(": found ")
        found, _, allowed = rest.partition(", allowed ")
        if not rest:
            where, found = "input", str(error)
        field = FieldError(where, found, f"allowed: {allowed or 'see --help'}")
        raise InvalidInstance(source, [field]) from error


def save(path: Path, found: ExpertAnswer) -> None:
    """The map alone; SGLang refuses a file with any other key."""
    rows = [list(row) for row in found.plan.physical_to_logical_map]
    with _refused("--save-map"):
        path.write_text(json.dumps({"physical_to_logical_map": rows}) + "\n", "utf-8")
