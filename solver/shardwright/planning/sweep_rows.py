"""Rows of a sweep: one solved point as flat figures, and the files they are kept in."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shardwright.planning.sweep_points import Point, Task
from shardwright.schema.errors import (
    InstanceTooLarge,
    InvalidInstance,
    ShardwrightError,
    UnsupportedRule,
)
from shardwright.schema.instance import Instance
from shardwright.schema.result import Status
from shardwright.schema.sweep import Row
from shardwright.solve import Solution, solve

_GOALS = {
    "gpus": "gpus",
    "cost": "cost_usd_per_hour",
    "throughput": "throughput_tokens_per_s",
    "tpot": "tpot_ms",
    "ttft": "ttft_ms",
}
_TOTALS = (
    "requests_per_s",
    "output_tokens_per_s",
    "tpot_ms",
    "ttft_ms",
    "prefill_ms",
    "e2e_ms",
    "cost_usd_per_hour",
)
_FIRST = ("status", "stopped_by", "gap", "goals")
_LAST = ("seconds", "attempts", "instance_sha256", "field", "reason")


def solved_row(task: Task) -> Row:
    """The outcome of a point; every failure is an outcome with its reason."""
    try:
        instance = Instance.model_validate_json(task.text)
        solution = solve(
            instance,
            time_limit_s=task.time_limit_s,
            gap=task.gap,
            workers=task.threads,
            seed=task.seed,
            explain=task.explain,
        )
    except (InvalidInstance, UnsupportedRule, InstanceTooLarge) as refused:
        return refused_row(refused)
    except Exception as error:
        return failed_row(f"{type(error).__name__}: {error}")
    return _outcome(solution)


def refused_row(refused: ShardwrightError) -> Row:
    """An INVALID point; ``field`` is the path of the first field that was refused."""
    errors = refused.errors if isinstance(refused, InvalidInstance) else []
    words = "; ".join(map(str, errors)) or str(refused)
    field = errors[0].path if errors else None
    return {"status": Status.INVALID.value, "field": field, "reason": words}


def failed_row(reason: str) -> Row:
    """An ERROR and why."""
    return {"status": Status.ERROR.value, "stopped_by": "error", "reason": reason}


def _outcome(solution: Solution) -> Row:
    result = solution.result
    row: Row = {
        "status": result.status.value,
        "stopped_by": result.stopped_by,
        "gap": result.gap,
        "goals": ",".join(goal.name for goal in result.objectives),
    }
    for goal in result.objectives:
        row[f"{_GOALS[goal.name]}_value"] = goal.value
        row[f"{_GOALS[goal.name]}_bound"] = goal.bound
    row |= _figures(solution)
    row["seconds"] = result.solve_seconds
    row["instance_sha256"] = result.instance_sha256
    if result.conflict is not None:
        row["reason"] = result.conflict.message
    return row


def _figures(solution: Solution) -> Row:
    """Figures of the plan; nothing without one."""
    from shardwright.plan.tables.summary import plan_degrees

    view = solution.plan
    if view is None:
        return {}
    total, replicas = view.metrics["total"], view.document.replicas()
    types = Counter(s.gpu_type for r in replicas for s in r.stages for _ in s.gpus)
    return {
        "gpus": total["gpus_used"],
        "gpus_by_type": "+".join(f"{n} {name}" for name, n in sorted(types.items())),
        "replicas": total["replicas"],
        "degrees": plan_degrees(view),
        **{name: total[name] for name in _TOTALS},
        **predicted_ms(solution),
    }


def predicted_ms(solution: Solution) -> dict[str, float]:
    """Predicted percentiles by name (``ttft_p99_ms``), of the slowest replica."""
    found: dict[str, float] = {}
    view = solution.plan
    for replica in view.document.replicas() if view is not None else ():
        for claim in replica.load.percentiles if replica.load is not None else ():
            name = f"{claim.metric}_p{claim.percentile:g}_ms"
            found[name] = max(found.get(name, 0.0), claim.predicted_ms)
    return found


def row_of(point: Point, outcome: Row, attempts: int = 1) -> Row:
    """One row: the point's number, what changed, and the outcome."""
    return {
        "point": point.index,
        **point.changes,
        **outcome,
        "attempts": outcome.get("attempts", attempts),
    }


def columns(fields: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Names of all columns: number, what changed, status, figures, the rest."""
    seen = dict.fromkeys(name for row in rows for name in row)
    head = ["point", *fields, *_FIRST]
    middle = [name for name in seen if name not in head and name not in _LAST]
    return [*head, *middle, *_LAST]


def csv_text(fields: Sequence[str], rows: Sequence[Row]) -> str:
    """All rows as CSV; lists and mappings are JSON, what is not known is empty."""
    names = columns(fields, rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_cell(row.get(name)) for name in names] for row in rows])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool | dict | list):
        return json.dumps(value)
    return value


def write_results(folder: Path, fields: Sequence[str], rows: Sequence[Row]) -> None:
    """results.csv and results.jsonl, each whole or not at all.

    Raises OSError.
    """
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for name, text in (
        ("results.csv", csv_text(fields, rows)),
        ("results.jsonl", lines),
    ):
        partial = folder / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)
