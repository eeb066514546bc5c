"""A sweep as tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from shardwright.plan.tables.text import (
    WIDTH,
    amount,
    cut,
    grid,
    number,
    short,
    wrapped,
)
from shardwright.planning.sweep import SweepRun
from shardwright.schema.sweep import Row

_MOST_ROWS = 60
_MOST_REASONS = 5
_WIDEST = 16


def sweep_text(run: SweepRun) -> str:
    """Counts by status, then one line per point; what does not fit is left out."""
    counts = ", ".join(f"{count} {name}" for name, count in run.counts.items())
    head = f"{run.file.name}: {amount(run.file.count(), 'point')}: {counts or 'none'}"
    lines = [head]
    if run.kept:
        lines.append(f"{run.kept} of them were in the journal, {run.solved} solved now")
    if not run.complete:
        lines.append(f"stopped after {len(run.rows)}; the same command goes on")
    blocks = ["\n".join(lines)]
    if run.rows:
        blocks.append(_table(run))
    if len(run.rows) > _MOST_ROWS:
        rest = len(run.rows) - _MOST_ROWS
        blocks.append(f"and {rest} more: --out FOLDER or --json has all of them")
    return "\n\n".join([*blocks, *_reasons(run.rows)])


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Why points were refused or failed, each reason once."""
    found = Counter(
        (row["status"], str(row.get("reason")))
        for row in rows
        if row["status"] in ("INVALID", "ERROR")
    )
    told = [
        wrapped(f"{status}  ", f"{reason} ({amount(count, 'point')})")
        for (status, reason), count in found.most_common(_MOST_REASONS)
    ]
    more = len(found) - len(told)
    return [*told, f"and {amount(more, 'further reason')}"] if more > 0 else told


def _table(run: SweepRun) -> str:
    fields, rows = run.file.fields(), run.rows[:_MOST_ROWS]
    names = [field for field in fields if _varies(field, rows)] or fields
    while True:
        text = _grid(names, rows)
        if not names or max(map(len, text.splitlines())) <= WIDTH:
            return text
        names = names[:-1]


def _varies(name: str, rows: Sequence[Row]) -> bool:
    return len({json.dumps(row.get(name)) for row in rows}) > 1


def _grid(names: Sequence[str], rows: Sequence[Row]) -> str:
    heads = ["", *map(_heading, names), "status", "plan", "GPUs", "requests/s"]
    heads += ["TPOT\nms", "TTFT\nms", "USD/h"]
    body = [_cells(names, row) for row in rows]
    align = "r" + "l" * len(names) + "llrrrrr"
    return grid(heads, body, align)


def _heading(name: str) -> str:
    """The last words of a path, on up to three lines."""
    words = name.split(".")
    # an entry of a list is nothing without what it is of
    first = next((i for i in range(len(words) - 1, 0, -1) if words[i].isdigit()), None)
    return "\n".join(short(w, _WIDEST) for w in words[(first or len(words)) - 1 :])


def _cells(names: Sequence[str], row: Row) -> list[str]:
    plan = row.get("degrees") or row.get("field") or row.get("reason") or ""
    return [
        str(row["point"]),
        *(short(_shown(row.get(name)), _WIDEST) for name in names),
        row["status"],
        short(" ".join(str(plan).split()), 24),
        _figure(row.get("gpus"), 0),
        "-" if row.get("requests_per_s") is None else cut(row["requests_per_s"], 2),
        _figure(row.get("tpot_ms"), 2),
        _figure(row.get("ttft_ms"), 1),
        _figure(row.get("cost_usd_per_hour"), 2),
    ]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _figure(value: Any, digits: int) -> str:
    return "-" if value is None else number(value, digits)
