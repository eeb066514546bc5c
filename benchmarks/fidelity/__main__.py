"""Scores the cost model on a table of published serving measurements.

    python -m benchmarks.fidelity [TABLE] [--json] [--protocol loso|groups] [--fit]

The default scores the constants of the catalogue. ``--protocol loso`` refits them
without each family of sources and scores what they predict for it (minutes); ``groups``
does so for eighths of the model x GPU groups. ``--fit`` refits them on the whole table
and rewrites models/calibration (minutes).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.fidelity import constants, intervals, names, protocol, report, write
from benchmarks.fidelity.fitting import Target, fit
from benchmarks.fidelity.score import errors_of, overall
from shardwright.planning.replay import Predictor
from shardwright.planning.runs import read_table

RESULTS = Path(__file__).resolve().parents[1] / "results"
SHIPPED = names.DATA / "measured.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    asked = _parser().parse_args(arguments)
    if not names.readable(asked.table):
        return 2
    table = read_table(asked.table)
    predictor, skipped = Predictor.of(table, names.RESOLVER)
    if not predictor.rows:
        empty = {"score": overall({}), "groups": {},
                 "rows_used": 0, "rows_skipped": skipped}  # fmt: skip
        print(json.dumps(empty) if asked.json else "no row of the table can be scored")
        return 0
    if asked.fit:
        return _fit(predictor, asked.rounds)
    if asked.protocol:
        family = protocol.PROTOCOLS[asked.protocol]
        predicted, _ = protocol.left_out(predictor, family, asked.rounds, _progress)
        title = f"Left out: {asked.protocol}"
    else:
        predicted = predictor.predict(played=True)
        title = "Constants of the catalogue"
    if asked.intervals:
        _progress(f"wrote {intervals.write(predictor, predicted).name}")
    errors = errors_of(predictor, predicted)
    document = report.answer(predictor.rows, errors, skipped)
    document["modes"] = report.regrouped(predictor, errors)
    if asked.protocol:
        inside = errors_of(predictor, predictor.predict(played=True))
        document["in_sample"] = report.answer(predictor.rows, inside, {})["score"]
        title += f"; catalogue: {report.summary_line(document['in_sample'])}"
    if not asked.json:
        print(report.text(predictor.rows, errors, document, title))
    if asked.plots:
        drawn = report.plots(predictor, predicted, RESULTS, "fidelity")
        _progress(f"{len(drawn)} plots" if drawn else "no plots: matplotlib is missing")
    if asked.json:
        print(json.dumps(document))
    return 0


def _fit(predictor: Predictor, rounds: int) -> int:
    target = Target.of(predictor)
    _progress(f"{len(target.predictor.rows)} rows, {constants.COUNT} constants")
    theta = fit(target, rounds=rounds, report=_progress)
    values = constants.physical(theta)
    for path in write.write(values):
        _progress(f"wrote {path.name}")
    rows = [
        [c.name, c.prior, c.low, c.high, values[c.name], c.unit, c.meaning]
        for c in constants.CONSTANTS
    ]
    path = RESULTS / "fidelity_constants.md"
    path.write_text(write.table(rows), encoding="utf-8")
    print(f"{constants.COUNT} constants fitted on {len(target.predictor.rows)} rows; "
          f"{int(np.sum(np.abs(theta) > 2))} moved by more than 2 spreads of their "
          "prior")  # fmt: skip
    return 0


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity")
    parser.add_argument("table", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--json", action="store_true", help="one JSON line at the end")
    parser.add_argument("--protocol", choices=sorted(protocol.PROTOCOLS))
    parser.add_argument(
        "--intervals", action="store_true",
        help="write models/calibration/intervals.yaml (with --protocol loso)",
    )  # fmt: skip
    parser.add_argument("--fit", action="store_true", help="refit and write constants")
    parser.add_argument("--rounds", type=int, default=6, help="of the fit")
    parser.add_argument(
        "--plots", action="store_true", help="SVG into benchmarks/results"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
