"""The grid, printed and written to benchmarks/results/tails.{md,json}."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .measure import Row, burst, row
from .points import BURSTS, Point, grid
from .report import bars, bars_table, bursts_table, medians_table, points_table, write


def main() -> int:
    """0 if every bar holds, 5 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tails")
    parser.add_argument("--quick", action="store_true", help="few points, short runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--dry", action="store_true", help="write nothing")
    asked = parser.parse_args()
    rows: list[Row] = []
    for point in grid(asked.quick):
        rows.append(row(point, *_effort(point, asked.quick)))
        print(f"{len(rows)}: {point.kind} {point.name}", file=sys.stderr, flush=True)
    found = [(case, burst(case, 3 if asked.quick else 10)) for case in BURSTS]
    held = bars(rows)
    print(bars_table(held, "simple"), medians_table(rows, "simple"), sep="\n\n")
    print(points_table(rows, "simple"), bursts_table(found, "simple"), sep="\n\n")
    if not asked.dry and not asked.quick:
        command = " ".join(["python -m benchmarks.tails", *sys.argv[1:]])
        write(rows, found, asked.out, command)
    return 0 if all(bar.holds for bar in held) else 5


def _effort(point: Point, quick: bool) -> tuple[int, int]:
    """Requests per seed, and seeds: deep pipelines cost the simulator more."""
    if quick:
        return (10_000, 3) if point.stages == 1 else (5_000, 3)
    if point.kind == "slots":
        return 60_000, 6
    return (40_000, 6) if point.stages == 1 else (15_000, 5)


if __name__ == "__main__":
    sys.exit(main())
