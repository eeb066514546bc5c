"""Solve the suite: ``python -m benchmarks.routed``, results in benchmarks/results.

Each case is one whole process of the command line; its answer is checked again here.
Exit code 5 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.experts.report import Bar, Table
from benchmarks.machine import machine
from shardwright.check.routed import check_routed
from shardwright.ingest.routed import load_routed
from shardwright.schema.routed import RoutedResult

from .cases import CASES, INSTANCES, Case, Published, problem_of, published
from .latency import SLOW_MS, network_ms

MET = 5e-6


def main() -> int:
    """0 if every bar holds, 5 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routed")
    parser.add_argument("--only", nargs="*", default=None, help="names of instances")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()
    cases = [c for c in CASES if asked.only is None or c.name in asked.only]
    runs = [(case, *_solved(case)) for case in cases]
    tables = [_flows(runs), _fronts(runs), _published(cases)]
    text = "\n".join(table.text("github") for table in tables)
    print(text)
    if asked.only is None:
        _write(asked.out, text, runs, tables)
    return 5 if any(not bar.holds for table in tables for bar in table.bars) else 0


Run = tuple[Case, RoutedResult, dict[str, float]]


def _solved(case: Case) -> tuple[RoutedResult, dict[str, float]]:
    """One process, from start to exit; CPU seconds are its own."""
    path = INSTANCES / f"{case.name}.json"
    command = [sys.executable, "-m", "shardwright.cli", "solve", "--routed", str(path)]
    command += ["--json", "--quiet", "--time-limit", str(case.time_limit_s)]
    if case.max_stages is not None:
        command += ["--max-stages", str(case.max_stages)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 10):
        raise SystemExit(f"{case.name}: exit {done.returncode}\n{done.stderr}")
    result = RoutedResult.model_validate_json(done.stdout)
    check_routed(load_routed(path), result).raise_if_bad()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    first = result.front[0].seconds if result.front else result.seconds
    times = {"wall_s": wall, "cpu_s": cpu, "to_first_proof_s": first}
    print(f"{case.name} {result.max_flow} {wall:.1f} s", file=sys.stderr, flush=True)
    return result, times


def _flows(runs: list[Run]) -> Table:
    rows, bars = [], []
    for case, result, times in runs:
        old = _milp(case.name)
        solver = old.solver if old else {}
        rows.append([
            case.name,
            case.max_stages,
            result.max_flow,
            result.bound,
            f"{100 * (result.gap or 0):.4f}%",
            result.max_depth,
            round(times["to_first_proof_s"], 2),
            round(times["wall_s"], 2),
            round(times["cpu_s"], 2),
            old and round(old.tokens_per_s, 3),
            old and old.stages,
            f"{solver['seconds']:.0f} s, gap {solver['gap_percent']:.4g}%"
            if solver
            else None,
        ])  # fmt: skip
        bars += _bars(case, result)
    headers = ["instance", "stages at most", "flow tokens/s", "bound", "gap", "stages",
               "search s", "process s", "CPU s", "published", "its stages",
               "its solver"]  # fmt: skip
    notes = [
        "",
        "*search s*: the first answer with its bound, the front not included; *process "
        "s* and *CPU s*: the whole command, front included. The published solver is "
        "Gurobi on 20 threads of an i7-12700H.",
    ]
    return Table("Most flow", headers, rows, bars, notes)


def _bars(case: Case, result: RoutedResult) -> list[Bar]:
    cap = f" with at most {case.max_stages} stages" if case.max_stages else ""
    bars = []
    flow, gap = result.max_flow or 0.0, result.gap if result.gap is not None else 1.0
    if case.least_flow is not None:
        claim = f"{case.name}{cap}: at least {case.least_flow} tokens/s"
        bars.append(Bar(claim, f"{flow}", flow >= case.least_flow - MET))
    if case.most_gap is not None:
        claim = f"{case.name}{cap}: gap at most {100 * case.most_gap:g}%"
        bars.append(Bar(claim, f"{100 * gap:.4f}%", gap <= case.most_gap))
    return bars


def _fronts(runs: list[Run]) -> Table:
    rows = []
    for case, result, _ in runs:
        problem = problem_of(case.name)
        for point in result.front:
            index = {node: i for i, node in enumerate(problem.ids)}
            routes = [
                (tuple(index[n] for n in r.nodes), r.tokens_per_s) for r in point.routes
            ]
            gap = f"{100 * point.gap:.3f}%"
            ms = round(network_ms(problem, routes), 1)
            used = len(point.intervals)
            rows.append([case.name, point.max_stages, point.max_flow, point.bound, gap,
                         used, ms, point.status.value])  # fmt: skip
    headers = ["instance", "stages at most", "flow tokens/s", "bound", "gap",
               "nodes used", "network ms", "status"]  # fmt: skip
    notes = [
        "",
        "*network ms*: one pass through the route, weighted by flow. The suite has no "
        f"latencies; 1 ms a hop, and {SLOW_MS:g} ms over a link between regions, are "
        "assumed here to compare depths, and enter no bar.",
    ]
    return Table("Most flow by depth", headers, rows, (), notes)


def _published(cases: list[Case]) -> Table:
    rows = []
    for name in dict.fromkeys(case.name for case in cases):
        problem = problem_of(name)
        for old in published(name):
            ms = round(network_ms(problem, old.flow.routes), 1)
            flow = round(old.tokens_per_s, 3)
            rows.append([name, old.how, flow, old.stages, ms])
    headers = ["instance", "method", "flow tokens/s", "stages", "network ms"]
    notes = [
        "",
        "Flows computed here from the placements, on the same graphs.",
    ]
    return Table("Published placements", headers, rows, (), notes)


def _milp(name: str) -> Published | None:
    return next((old for old in published(name) if old.how == "helix_milp"), None)


def _write(folder: Path, text: str, runs: list[Run], tables: list[Table]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    told = ", ".join(f"{name} {facts[name]}" for name in
                     ("cores", "cpu", "python", "commit", "load_average"))  # fmt: skip
    head = (
        "# Routed pipelines\n\nMade by `python -m benchmarks.routed`; instances in "
        f"instances/routed, published placements in benchmarks/routed/data.\n"
        f"{told}.\n\n"
    )
    (folder / "routed.md").write_text(head + text, encoding="utf-8")
    document: dict[str, Any] = {
        "machine": facts,
        "bars": [vars(bar) for table in tables for bar in table.bars],
        "runs": [
            {
                "instance": case.name,
                **times,
                "result": result.model_dump(mode="json", exclude={"front"}),
                "front": [
                    p.model_dump(mode="json", exclude={"routes"}) for p in result.front
                ],
            }
            for case, result, times in runs
        ],
    }
    shown = json.dumps(document, indent=1, default=float)
    (folder / "routed.json").write_text(shown + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
