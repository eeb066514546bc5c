"""Judges the choice of a parallel configuration by what was measured.

    python -m benchmarks.choice [TABLE] [--json] [--protocol loso|groups] [--margin M]
                                [--any-release]

In every group of published runs of one model, GPU type, engine and lengths with four
or more configurations, the model chooses a configuration and its load for a TPOT limit;
the value is the measured output per GPU of that choice over the best measured within
the limit, 0 where the choice was measured to break it. Trivial rules choose only the
configuration and are given its best load.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.choice.cases import Case, FloatArray, cases
from benchmarks.choice.rules import TRIVIAL, ranked
from benchmarks.fidelity import names, protocol
from benchmarks.fidelity.__main__ import SHIPPED
from shardwright.cost.intervals import latency_margin
from shardwright.planning.replay import Predictor
from shardwright.planning.runs import read_table

DATA = Path(__file__).parent / "data"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    asked = _parser().parse_args(arguments)
    if not names.readable(asked.table):
        return 2
    predictor, _ = Predictor.of(read_table(asked.table), names.RESOLVER)
    margin = latency_margin() if asked.margin is None else asked.margin
    if asked.protocol and predictor.rows:
        family = protocol.PROTOCOLS[asked.protocol]
        predicted, _ = protocol.left_out(predictor, family, played=False)
    else:
        predicted = predictor.predict()
    document = judged(predictor, predicted, margin, asked.any_release)
    if not asked.json:
        print(_text(document, margin))
    else:
        print(json.dumps(document))
    return 0


def judged(
    predictor: Predictor,
    predicted: dict[str, FloatArray],
    margin: float,
    any_release: bool = False,
) -> dict[str, Any]:
    """The result over all cases, and by kind of case."""
    every = list(cases(predictor.rows, any_release))
    theirs = _aiconfigurator(predictor)
    document = _over(every, predicted, margin)
    for kind, limited in (("closed_loop", True), ("offline", False)):
        part = [c for c in every if (c.limit_ms is not None) == limited]
        document[kind] = _over(part, predicted, margin)
    covered = [c for c in every if all(np.isfinite(theirs["tpot"][o.row])
                                       for o in c.options)]  # fmt: skip
    document["aiconfigurator"] = {
        "ours": _over(covered, predicted, margin),
        "theirs": _over(covered, theirs, 0.0),
        "theirs_with_our_margin": _over(covered, theirs, margin),
    }
    if covered:
        theirs_value = document["aiconfigurator"]["theirs"]["value"]
        document["baselines"]["aiconfigurator (covered cases)"] = {
            "value": theirs_value, "cases": len(covered)}  # fmt: skip
    document["margin"] = margin
    return document


def closed_loop(
    predictor: Predictor, predicted: dict[str, FloatArray], margin: float
) -> dict[str, Any]:
    """The result over the cases with a TPOT limit."""
    part = [c for c in cases(predictor.rows) if c.limit_ms is not None]
    return _over(part, predicted, margin)


def _over(part: list[Case], predicted: dict[str, FloatArray],
          margin: float) -> dict[str, Any]:  # fmt: skip
    if not part:
        return {"value": None, "violations": None, "worst": None, "cases": 0,
                "baselines": {}}  # fmt: skip
    chosen = [ranked(c, predicted["tpot"], predicted["throughput"], margin)
              for c in part]  # fmt: skip
    values = [c.value(o) for c, o in zip(part, chosen, strict=True)]
    backed = [c.value(o) or c.fallback(o.configuration)
              for c, o in zip(part, chosen, strict=True)]  # fmt: skip
    broken = [not c.feasible(o) for c, o in zip(part, chosen, strict=True)]
    rules = {name: float(np.mean([rule(c) for c in part]))
             for name, rule in TRIVIAL.items()}  # fmt: skip
    ties = {n: v for n, v in rules.items() if abs(v - np.mean(backed)) < 0.01}
    return {
        "value": round(float(np.mean(values)), 4),
        "with_fallback": round(float(np.mean(backed)), 4),
        "violations": round(float(np.mean(broken)), 4),
        "worst": round(min(values), 4),
        "cases": len(part),
        "groups": len({c.name.split("|tpot")[0] for c in part}),
        "baselines": {n: {"value": round(v, 4)} for n, v in rules.items()},
        "ties": sorted(ties),
    }


def _aiconfigurator(predictor: Predictor) -> dict[str, FloatArray]:
    """Its predictions by row, NaN where it made none."""
    known: dict[str, tuple[float, float]] = {}
    with (DATA / "aiconfigurator.csv").open(newline="", encoding="utf-8") as file:
        for raw in csv.DictReader(line for line in file if not line.startswith("#")):
            known[raw["id"]] = (float(raw["ttft_ms"]), float(raw["tpot_ms"]))
    tpot = np.full(len(predictor.rows), np.nan)
    rate = tpot.copy()
    for i, row in enumerate(predictor.rows):
        if row.sample in known and row.concurrency:
            ttft_ms, tpot[i] = known[row.sample]
            life_s = (ttft_ms + (row.output_tokens - 1) * tpot[i]) / 1e3
            rate[i] = row.concurrency * row.output_tokens / life_s
    return {"tpot": tpot, "throughput": rate}


def _text(document: dict[str, Any], margin: float) -> str:
    rows = []
    for label in ("closed_loop", "offline"):
        part = document[label]
        if not part["cases"]:
            continue
        rows.append([label, "shardwright", part["value"], part["with_fallback"],
                     part["violations"], part["worst"], part["cases"]])  # fmt: skip
        for name, found in part["baselines"].items():
            tie = " (tie)" if name in part["ties"] else ""
            rows.append(["", name + tie, "", found["value"], "", "", ""])
    for label in ("ours", "theirs", "theirs_with_our_margin"):
        part = document["aiconfigurator"][label]
        if part["cases"]:
            rows.append(["where aiconfigurator predicts", label, part["value"],
                         part["with_fallback"], part["violations"], part["worst"],
                         part["cases"]])  # fmt: skip
    heads = ["cases", "rule", "value", "best load", "violations", "worst", "n"]
    return f"TPOT margin {margin:.0%}\n\n" + tabulate(rows, heads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choice")
    parser.add_argument("table", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--json", action="store_true", help="one JSON line at the end")
    parser.add_argument("--protocol", choices=sorted(protocol.PROTOCOLS))
    parser.add_argument(
        "--any-release",
        action="store_true",
        help="runs of all releases of an engine in one case",
    )
    parser.add_argument("--margin", type=float, help="default: that of the catalogue")
    return parser


if __name__ == "__main__":
    sys.exit(main())
