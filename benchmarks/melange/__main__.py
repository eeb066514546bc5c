"""Solves the fleet-mix instances and compares with their known optima.

    python -m benchmarks.melange [--json]

Exits with 5 when a cost is not the known one or is not proven.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from shardwright.planning.fleet_mix import mix

INSTANCES = Path(__file__).parents[2] / "instances" / "melange"
_CENT = 0.005


def known() -> dict[str, float]:
    """Optimal cost in USD per hour by instance."""
    text = (INSTANCES / "known.solu").read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines() if line.startswith("=opt="))
    return {name.removesuffix("/cost"): float(cost) for _, name, cost in lines}


def judged() -> list[dict[str, Any]]:
    """One row per instance."""
    rows = []
    for name, cost in known().items():
        found = mix(INSTANCES / f"{name}.json")
        value = found.cost_usd_per_hour
        right = value is not None and abs(value - cost) < _CENT
        rows.append(
            {
                "instance": name,
                "known_usd_per_hour": cost,
                "cost_usd_per_hour": value,
                "bound_usd_per_hour": found.bound_usd_per_hour,
                "status": found.status.value,
                "counts": found.counts,
                "seconds": found.seconds,
                "ok": right and found.status.value == "OPTIMAL",
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.melange")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    rows = judged()
    if asked.json:
        print(json.dumps(rows, indent=2))
    else:
        print(tabulate([_cells(row) for row in rows], headers=_HEADS, floatfmt=".2f"))
    return 0 if all(row["ok"] for row in rows) else 5


_HEADS = ["instance", "known USD/h", "cost USD/h", "bound", "status", "fleet", "s", ""]


def _cells(row: dict[str, Any]) -> list[Any]:
    fleet = ", ".join(f"{n} {name}" for name, n in row["counts"].items() if n)
    return [
        row["instance"],
        row["known_usd_per_hour"],
        row["cost_usd_per_hour"],
        row["bound_usd_per_hour"],
        row["status"],
        fleet,
        row["seconds"],
        "ok" if row["ok"] else "WRONG",
    ]


if __name__ == "__main__":
    sys.exit(main())
