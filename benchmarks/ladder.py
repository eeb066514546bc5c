"""``python -m benchmarks.ladder``: one model on growing mixed clusters, whole process.

A quarter H100, a quarter A100, half L4, in islands of eight; Llama-3-70B under limits
on mean TPOT and TTFT; pipelines may cross GPU types and replicas may differ. Every
size is solved twice: until the gap is 0.3%, and until 0.15%. Figures are of whole
processes: wall seconds, and the CPU seconds of the process and its threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from math import log10
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from tabulate import tabulate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
ASKED = ((0.3, 4.0), (0.15, 20.0))
"""(gap in percent, seconds of the whole process)."""

_FILE = """\
schema_version: "1.0"
name: ladder-{gpus}
description: Llama-3-70B on {gpus} GPUs of three types, most throughput under SLOs.
model: meta-llama/Meta-Llama-3-70B-Instruct
engine: {{name: {engine}}}
cluster:
  gpu_types:
    h100: {{catalogue: H100-SXM, memory: 80 GB}}
    a100: {{catalogue: A100-80, memory: 80 GB}}
    l4: {{catalogue: L4, memory: 24 GB}}
  nodes:
    - {{name: hopper, gpu: h100, gpus: 8, count: {quarter}}}
    - {{name: ampere, gpu: a100, gpus: 8, count: {quarter}}}
    - {{name: ada, gpu: l4, gpus: 8, count: {half}}}
workload:
  input_tokens: {{constant: 1024}}
  output_tokens: {{constant: 256}}
  max_batch: 256
  max_context_tokens: 4096
slo:
  - {{metric: tpot, percentile: mean, limit_ms: 100}}
  - {{metric: ttft, percentile: mean, limit_ms: 3000}}
limits:
  memory_fraction: 90%
objective: [throughput]
"""


def instance_text(gpus: int, engine: str = "generic") -> str:
    """The instance file of one step of the ladder; ``gpus`` is a multiple of 32."""
    if gpus < 32 or gpus % 32:
        raise ValueError(f"{gpus} GPUs: a multiple of 32 is needed")
    islands = gpus // 8
    return _FILE.format(
        gpus=gpus, engine=engine, quarter=islands // 4, half=islands // 2
    )


@dataclass(frozen=True)
class Row:
    """One run of one size."""

    gpus: int
    engine: str
    asked_gap_percent: float
    asked_s: float
    status: str
    value_tokens_per_s: float | None
    bound_tokens_per_s: float | None
    gap_percent: float | None
    wall_s: float
    cpu_s: float

    @property
    def in_time(self) -> bool:
        """Whether the gap asked for was reached within the seconds asked for."""
        reached = self.gap_percent is not None
        return (
            reached
            and (self.gap_percent or 0.0) <= self.asked_gap_percent
            and self.wall_s <= self.asked_s
        )


def run(gpus: int, engine: str, gap: float, seconds: float) -> Row:
    """``shardwright solve --gap`` in a process of its own."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"ladder-{gpus}.yaml"
        path.write_text(instance_text(gpus, engine))
        command = [sys.executable, "-m", "shardwright.cli", "solve", str(path)]
        command += ["--json", "--quiet", "--gap", f"{gap}%", "--time-limit", "60"]
        before, begun = os.times(), perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        wall, after = perf_counter() - begun, os.times()
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    status, value, bound = "no answer", None, None
    if done.stdout.strip():
        result = json.loads(done.stdout)
        status = result["status"]
        for goal in result["objectives"]:
            value, bound = goal["value"], goal["bound"]
    found = value is not None and bound is not None
    return Row(
        gpus,
        engine,
        gap,
        seconds,
        status,
        value,
        bound,
        round(100 * (bound / value - 1), 4) if found else None,
        round(wall, 2),
        round(cpu, 2),
    )


def page(rows: list[Row]) -> str:
    """The record as Markdown."""
    heads = ["GPUs", "engine", "asked gap", "asked s", "status", "tokens/s", "bound"]
    heads += ["gap", "wall s", "CPU s", "in time"]
    cells = [
        [
            f"{r.gpus:,}",
            r.engine,
            f"{r.asked_gap_percent}%",
            r.asked_s,
            r.status,
            f"{r.value_tokens_per_s:,.1f}" if r.value_tokens_per_s else "-",
            f"{r.bound_tokens_per_s:,.1f}" if r.bound_tokens_per_s else "-",
            f"{r.gap_percent:.3f}%" if r.gap_percent is not None else "-",
            f"{r.wall_s:.1f}",
            f"{r.cpu_s:.1f}",
            "yes" if r.in_time else "no",
        ]
        for r in rows
    ]
    table = tabulate(cells, heads, tablefmt="github", disable_numparse=True)
    load = "/".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        "# Ladder: time against the size of a mixed cluster\n\n"
        "`python -m benchmarks.ladder`; one process per row, from start to exit. "
        f"{os.cpu_count()} cores, load average {load} at the end: CPU seconds are the "
        "steadier figure.\n\n"
        f"{table}\n\n![seconds against GPUs](ladder.svg)\n"
    )


def growth(rows: list[Row]) -> str:
    """Log-log plot of CPU seconds against GPUs, one line per gap."""
    width, height, left = 520, 300, 50

    def x(gpus: int) -> float:
        return left + (log10(gpus) - 1.5) / 2.3 * (width - left - 20)

    def y(seconds: float) -> float:
        return height - 40 - log10(max(seconds, 1.0)) / 2.0 * (height - 70)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="16">CPU seconds of the whole process against GPUs</text>',
    ]
    for seconds in (1, 3, 10, 30, 100):
        parts.append(
            f'<line x1="{left}" x2="{width - 20}" y1="{y(seconds):.1f}" '
            f'y2="{y(seconds):.1f}" stroke="#ddd"/>'
            f'<text x="{left - 8}" y="{y(seconds) + 4:.1f}" '
            f'text-anchor="end">{seconds}</text>'
        )
    for gpus in sorted({r.gpus for r in rows}):
        parts.append(
            f'<text x="{x(gpus):.1f}" y="{height - 22}" text-anchor="middle">'
            f"{gpus}</text>"
        )
    for (gap, _), colour in zip(ASKED, ("#06c", "#c30"), strict=True):
        mine = [r for r in rows if r.asked_gap_percent == gap]
        if not mine:
            continue
        line = " ".join(f"{x(r.gpus):.1f},{y(r.cpu_s):.1f}" for r in mine)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" '
            'stroke-width="2"/>'
            f'<text x="{x(mine[-1].gpus):.1f}" y="{y(mine[-1].cpu_s) - 6:.1f}" '
            f'text-anchor="end" fill="{colour}">gap {gap}%</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Run, print, and write the record; exit code 5 where a row is late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--engine", default="generic")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    rows = [
        run(gpus, options.engine, gap, seconds)
        for gap, seconds in ASKED
        for gpus in options.sizes
    ]
    text = page(rows)
    print(text)
    if not options.dry:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "ladder.md").write_text(text)
        record = [{**asdict(r), "in_time": r.in_time} for r in rows]
        (RESULTS / "ladder.json").write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "ladder.svg").write_text(growth(rows))
    return 0 if all(r.in_time for r in rows) else 5


if __name__ == "__main__":
    sys.exit(main())
