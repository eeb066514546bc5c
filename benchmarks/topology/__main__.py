"""Placement, printed and written to benchmarks/results/topology.{md,json}.

Every case runs in a fresh process, so that its memory and times are its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from benchmarks.experts.report import Bar, Table
from benchmarks.machine import machine
from shardwright.search.base import SearchLimits
from shardwright.search.placement import in_order, place
from shardwright.search.placement_types import PlacementCase

from . import cases

_SETS = {
    "64": cases.sixty_four,
    "1024": cases.thousand,
    "10240": cases.ten_thousand,
    "hard": cases.hard,
}
_HEADERS = (
    "case",
    "status",
    "cost ms",
    "bound ms",
    "gap %",
    "index order x",
    "nodes (bound)",
    "per domain (bound)",
    "wall s",
    "CPU s",
    "MiB",
    "method",
)


def main() -> int:
    """0 if every bar holds, 5 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.topology")
    parser.add_argument("--only", nargs="*", choices=["small", *_SETS, "differential"])
    parser.add_argument("--cases", type=int, default=600, help="of the differential")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(_measure(*asked.one)))
        return 0
    made = []
    for name in ("small", *_SETS, "differential"):
        if asked.only is None or name in asked.only:
            made.append(_table(name, asked.cases))
            print(made[-1].text("simple"), flush=True)
    if asked.only is None:
        _write(made, asked.out)
    missed = [bar.claim for table in made for bar in table.bars if not bar.holds]
    return 5 if missed else 0


def _table(name: str, count: int) -> Table:
    if name == "small":
        return _small()
    if name == "differential":
        return _differential(count)
    rows = [_run(name, case) for case in _SETS[name]()]
    return _sized(name, rows)


def _run(name: str, case: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.topology", "--one", name, case]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _measure(name: str, case: str) -> dict[str, Any]:
    topology, traffic = _SETS[name]()[case]
    wall, cpu = perf_counter(), process_time()
    result = place(topology, traffic, SearchLimits(time_limit_s=60))
    wall, cpu = perf_counter() - wall, process_time() - cpu
    checked = PlacementCase(topology, traffic)
    assert result.values == checked.goals(result.assignment)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    order = checked.costs.total(traffic, in_order(checked))
    return {
        "case": case,
        "status": result.status.value,
        "values": result.values,
        "bounds": result.bounds,
        "order": order / max(result.values[0], 1),
        "gap": result.gap,
        "wall_s": wall,
        "cpu_s": cpu,
        "peak_mib": peak,
        "method": result.method,
        "sizes": result.sizes,
    }


def _sized(name: str, rows: list[dict[str, Any]]) -> Table:
    titles = {
        "64": "64 GPUs on bridged pairs",
        "1024": "1,024 GPUs",
        "10240": "10,240 GPUs in 1,280 nodes, 37 failed",
        "hard": "Hard cases, with their gaps",
    }
    cells = [
        [
            row["case"],
            row["status"],
            row["values"][0] / 1e6,
            row["bounds"][0] / 1e6,
            100 * row["gap"],
            row["order"],
            *map(_bounded, row["values"][1:], row["bounds"][1:]),
            row["wall_s"],
            row["cpu_s"],
            round(row["peak_mib"]),
            row["method"],
        ]
        for row in rows
    ]
    return Table(titles[name], _HEADERS, cells, _bars(name, rows))


def _bounded(value: int, bound: int) -> str:
    return f"{value:,}" if value == bound else f"{value:,} ({bound:,})"


def _bars(name: str, rows: list[dict[str, Any]]) -> list[Bar]:
    slowest = max(row["wall_s"] for row in rows)
    cpu = max(row["cpu_s"] for row in rows)
    largest = max(row["peak_mib"] for row in rows)
    proven = sum(row["status"] == "OPTIMAL" for row in rows)
    times = f"slowest {slowest:.2f} s wall, {cpu:.2f} s CPU"
    asked = {"64": 5, "1024": 60, "10240": 30}
    if name == "hard":
        worst = max(row["gap"] for row in rows)
        return [Bar("a plan and a bound for each", f"largest gap {worst:.1%}", True)]
    bars = [Bar(f"named in <= {asked[name]} s", times, slowest <= asked[name])]
    costs = sum(row["values"][0] == row["bounds"][0] for row in rows)
    words = f"{costs} of {len(rows)}; all three goals: {proven} of {len(rows)}"
    bars.append(Bar("link cost proven", words, costs == len(rows)))
    if name == "10240":
        bars.append(Bar("at most 2 GiB", f"{largest:.0f} MiB", largest <= 2048))
    return bars


def _small() -> Table:
    rows, equal, ratio = [], 0, 0.0
    for case in cases.small():
        result = place(*cases.small_case(case))
        cost = (result.cost or 0) / 1e6
        same = abs(cost - case["optimum_ms"]) < 2e-5  # every term is rounded up
        equal += same and result.status.value == "OPTIMAL"
        worse = case["index_order_ms"] / case["optimum_ms"]
        ratio = max(ratio, worse)
        rows.append(
            [
                case["name"],
                result.status.value,
                cost,
                case["optimum_ms"],
                worse,
                result.seconds,
            ]
        )
    headers = ["case", "status", "cost ms", "exhaustive ms", "index order x", "s"]
    bars = [
        Bar(
            "cost equals the exhaustive optimum on every case, proven",
            f"{equal} of {len(rows)}; index order up to {ratio:.1f} x worse",
            equal == len(rows),
        )
    ]
    return Table("Recorded small cases", headers, rows, bars)


def _differential(count: int) -> Table:
    from tests.differential.placement import compare

    start, seen = perf_counter(), Counter[str]()
    for seed in range(count):
        seen += compare(seed)
    rows = [[name, number] for name, number in sorted(seen.items())]
    agreed = seen["feasible"] + seen["infeasible"]
    bars = [
        Bar(
            "equal to exhaustive search on >= 500 random topologies of <= 8 GPUs",
            f"{agreed} of {count}: {seen['feasible']} feasible, all "
            f"{seen['proven']} proven, {seen['infeasible']} infeasible, "
            f"{perf_counter() - start:.0f} s",
            agreed == count >= 500 and seen["proven"] == seen["feasible"],
        )
    ]
    notes = (
        "Bounds of the programs for large clusters never exceeded the optimum of these "
        "cases, and none of their plans was below it.",
    )
    return Table("Against exhaustive search", ["seen", "cases"], rows, bars, notes)


def _write(tables: list[Table], folder: Path) -> None:
    how = "python -m benchmarks.topology"
    known = machine()
    head = (
        f"# Placement\n\nMade by `{how}` on {known['cores']} cores, {known['cpu']}, "
        f"load average {known['load_average']}, commit {known['commit']}. Cost: link "
        "time of one iteration, all replicas (docs/placement.md). `index order x`: "
        "cost of ranks in order of nodes and GPUs over the cost found.\n\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    text = head + "\n".join(table.text("github") for table in tables)
    (folder / "topology.md").write_text(text, encoding="utf-8")
    document = {"command": how, "machine": known, "tables": [*map(asdict, tables)]}
    words = json.dumps(document, indent=1, default=float) + "\n"
    (folder / "topology.json").write_text(words, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
