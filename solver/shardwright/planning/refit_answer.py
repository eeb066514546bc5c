"""What ``shardwright calibrate --runs`` prints and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from shardwright.planning.refit import MIN_RUNS, Refit, refit


def answer(runs: Path, output: Path | None = None) -> dict[str, Any]:
    """Refits on a table of runs; writes the GPU types that were kept as YAML.

    ``output`` is a folder, by default that of the table. Raises InvalidInstance.
    """
    found = refit(runs)
    document: dict[str, Any] = {"gpus": {}, "written": []}
    for one in found:
        document["gpus"][one.gpu.name] = {
            "runs": one.runs,
            "kept": one.kept,
            "factors": {k: round(f, 4) for k, f in one.factors.items()},
            "error_before": _percent(one.before),
            "error_left_out": _percent(one.left_out),
        }
        if one.kept:
            path = (output or runs.parent) / f"{one.gpu.name}.refit.yaml"
            path.write_text(_yaml(one, runs), encoding="utf-8")
            document["written"].append(str(path))
    return document


def text(document: dict[str, Any]) -> str:
    """The answer as tables."""
    parts = []
    for name, one in document["gpus"].items():
        parts.append(_headline(name, one))
        rows = [
            [metric, f"{before}%", f"{one['error_left_out'].get(metric, '-')}%"]
            for metric, before in one["error_before"].items()
        ]
        if one["error_left_out"]:
            heads = ["metric", "before", "after, run left out"]
            parts.append(tabulate(rows, heads, disable_numparse=True))
    parts += [f"Written: {path}" for path in document["written"]]
    return "\n\n".join(parts)


def _headline(name: str, one: dict[str, Any]) -> str:
    if one["kept"]:
        moved = ", ".join(f"{k} x{f:g}" for k, f in one["factors"].items())
        return f"{name}: refitted on {one['runs']} runs: {moved}"
    if one["runs"] < MIN_RUNS:
        return f"{name}: {one['runs']} runs; {MIN_RUNS} or more are needed for a refit"
    return f"{name}: not refitted: {one['runs']} runs do not predict one another better"


def _percent(errors: dict[str, float]) -> dict[str, float]:
    return {m: round(100 * float(np.expm1(e)), 1) for m, e in errors.items()}


def _yaml(one: Refit, runs: Path) -> str:
    """The GPU type as an instance states it under cluster.gpu_types (JSON is YAML)."""
    document = json.loads(one.gpu.model_dump_json(by_alias=True))
    document["calibration"]["name"] += "-refit"
    document["calibration"]["source"] = (
        f"Refitted on {one.runs} runs of {runs.name}; before: "
        + document["calibration"]["source"]
    )
    return json.dumps(document, indent=1) + "\n"
