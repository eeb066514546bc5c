"""Every solver on a suite: ``python -m benchmarks.solve [--quick] [--repeat 5]``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from math import exp, log
from pathlib import Path
from typing import Any

from tabulate import tabulate

from .machine import machine
from .plan_vs_seed import seed_report
from .runs import Answer, as_json, run_process, run_search
from .suite import ROOT, Case, Suite, read_suite
from .verdict import Known, decimal, word

RESULTS = Path(__file__).parent / "results"
SHIFT_S = 1.0


@dataclass(frozen=True)
class Row:
    """An answer on a case and the word that it earned."""

    case: Case
    answer: Answer
    word: str

    @property
    def failed(self) -> bool:
        """Whether the answer is wrong, not merely late."""
        return self.word.startswith("fail")

    @property
    def late(self) -> bool:
        """Whether a process took longer than is asked of it."""
        limit, taken = self.case.wall_limit_s, self.answer.median_s
        if limit is None or taken is None or self.answer.solver != "default":
            return False
        return taken > limit


def main() -> int:
    """0 when no answer is wrong, 5 otherwise."""
    asked = _arguments()
    suite = read_suite(asked.suite, asked.quick)
    if asked.alone:
        suite = replace(suite, others=())
    known = Known.read()
    rows = []
    for row in _rows(suite, known, asked.repeat, asked.learn):
        rows.append(row)
        print(f"{row.case.name} {row.answer.solver}: {row.word}", flush=True)
    if asked.learn:
        known.write()
    report = _report(suite, rows, asked.repeat)
    print(report)
    if not asked.dry:
        _write(asked.out, rows, report)
    return 5 if any(row.failed for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solve")
    parser.add_argument("--suite", default="main", help="name of suites/NAME.toml")
    parser.add_argument("--repeat", type=int, default=5, help="processes per case")
    parser.add_argument("--quick", action="store_true", help="the suite's quick cases")
    parser.add_argument("--alone", action="store_true", help="default solver only")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--dry", action="store_true", help="print, write no results")
    parser.add_argument(
        "--learn", action="store_true", help="write known.solu from proven runs"
    )
    return parser.parse_args()


def _rows(suite: Suite, known: Known, repeat: int, learn: bool) -> Iterator[Row]:
    """The process first: what it proves may be learnt before others are judged."""
    for case in suite.cases:
        instance = case.instance()
        answer = run_process(case, suite.time_limit_s, repeat)
        row = Row(case, answer, _word(case, answer, known, suite.time_limit_s))
        if learn and not answer.trouble and answer.plan_ok is not False:
            known.learn(case.name, answer.status, answer.claims)
        yield row
        for name in suite.others:
            other = run_search(name, instance, suite.others_limit_s)
            yield Row(case, other, _word(case, other, known, suite.others_limit_s))


def _word(case: Case, answer: Answer, known: Known, limit_s: float) -> str:
    if answer.trouble:
        return answer.trouble
    if answer.plan_ok is False:
        return "fail (solution infeasible)"
    found = word(case.name, answer.status, answer.stopped_by, answer.claims, known)
    if answer.solver == "greedy" and found == "gaplimit":
        return "heuristic"
    early = answer.search_s is not None and answer.search_s < limit_s / 2
    return "gave up" if found == "timeout" and early else found


# -- the report ----------------------------------------------------------------------

_HEADERS = (
    "instance",
    "solver",
    "word",
    "value",
    "bound",
    "search s",
    "process s",
    "asked s",
)


def _report(suite: Suite, rows: Sequence[Row], repeat: int) -> str:
    about = machine()
    libraries = ", ".join(f"{k} {v}" for k, v in about["libraries"].items())
    head = [
        f"# {suite.title}",
        "",
        f"{about['cores']} cores ({about['cpu']}), {about['memory_gib']} GiB, "
        f"Python {about['python']}; {libraries}; commit {about['commit']}; "
        f"load at the end {about['load_average']}. Processes: median of {repeat}, "
        f"limit {suite.time_limit_s:g} s; other searches: one run, limit "
        f"{suite.others_limit_s:g} s. Protocol and words: benchmarks/README.md.",
        "",
    ]
    body = tabulate(
        [_cells(row) for row in rows],
        _HEADERS,
        tablefmt="github",
        disable_numparse=True,
    )
    notes = [
        f"- {row.case.name}, {row.answer.solver}: {row.answer.note}"
        for row in rows
        if row.answer.note
    ]
    parts = [*head, body, "", _summary(suite, rows), "", "## Notes", "", *notes]
    return "\n".join([*parts, "", seed_report(), ""])


def _cells(row: Row) -> list[str]:
    answer = row.answer
    process = f"{answer.median_s:.2f}" if answer.solver == "default" else ""
    if row.late:
        process += " (late)"
    limit = "" if row.case.wall_limit_s is None else f"{row.case.wall_limit_s:g}"
    search = "" if answer.search_s is None else f"{answer.search_s:.2f}"
    values = [_number(c.value) for c in answer.claims]
    bounds = [_number(c.bound) for c in answer.claims]
    return [
        row.case.name,
        answer.solver,
        row.word,
        _joined(values),
        _joined(bounds),
        search,
        process,
        limit if process else "",
    ]


def _number(value: Any) -> str:
    return "-" if value is None else decimal(value)


def _joined(values: list[str]) -> str:
    return "" if all(v == "-" for v in values) else ", ".join(values)


def _summary(suite: Suite, rows: Sequence[Row]) -> str:
    """Per solver: how many it proved, and its shifted geometric mean."""
    lines = []
    for name in ("default", *suite.others):
        mine = [row for row in rows if row.answer.solver == name]
        proved = [row for row in mine if row.word in ("ok", "solved")]
        limit = suite.time_limit_s if name == "default" else suite.others_limit_s
        times = [
            row.answer.search_s if row in proved and row.answer.search_s else limit
            for row in mine
        ]
        refused = sum(row.word == "refused" for row in mine)
        failed = sum(row.failed for row in mine)
        mean = None if name == "greedy" else _mean(times)
        lines.append([name, len(mine), len(proved), refused, failed, mean])
    headers = ("solver", "cases", "proved", "refused", "fail", "mean s")
    return tabulate(lines, headers, tablefmt="github", floatfmt=".2f")


def _mean(seconds: Sequence[float]) -> float:
    """Shifted geometric mean, shift 1 s; what was not proved counts its limit."""
    if not seconds:
        return 0.0
    return exp(sum(log(s + SHIFT_S) for s in seconds) / len(seconds)) - SHIFT_S


def _write(folder: Path, rows: Sequence[Row], report: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{date.today().isoformat()}_solve"
    about = json.dumps({"machine": machine(), "command": sys.argv[1:]})
    lines = [
        as_json(row.answer, {"case": row.case.name, "word": row.word, "late": row.late})
        for row in rows
    ]
    record = folder / f"{name}.jsonl"
    record.write_text("\n".join([about, *lines]) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(report, encoding="utf-8")
    shown = record.relative_to(ROOT) if record.is_relative_to(ROOT) else record
    print(f"written: {shown} and .md")


if __name__ == "__main__":
    sys.exit(main())
