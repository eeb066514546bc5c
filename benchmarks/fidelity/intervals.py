"""The intervals and the latency margin that follow from left-out residuals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml.scalarstring import FoldedScalarString

from benchmarks.fidelity.score import group_name
from benchmarks.fidelity.write import dump
from shardwright.ingest import catalogue
from shardwright.planning.replay import Predictor
from shardwright.planning.runs import METRICS

FloatArray = NDArray[np.float64]

COVERAGE = 0.8
_MARGINS = tuple(round(0.01 * k, 2) for k in range(51))
_VIOLATIONS = 0.05
_MIN_RUNS = 30
_SOURCE = (
    "Measured over predicted of published runs whose family of sources was left out of "
    "the fit; groups of one source, model and GPU count alike. The margin is the best "
    "of those at which no more than 5% of the choices of benchmarks.choice break their "
    "TPOT limit; throughput_cost is what it costs of the mean value at the chosen "
    "configurations' best loads."
)


def intervals(
    predictor: Predictor, predicted: dict[str, FloatArray]
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Factors by mode and metric; a mode needs _MIN_RUNS runs of its own."""
    names = np.array([group_name(r) for r in predictor.rows])
    modes = np.array([r.mode for r in predictor.rows])
    found: dict[str, dict[str, dict[str, float | int]]] = {}
    for mode in ("any", *sorted({r.mode for r in predictor.rows})):
        at = np.ones(len(modes), bool) if mode == "any" else modes == mode
        for metric in METRICS:
            ratio = predictor.measured[metric] / predicted[metric]
            known = at & np.isfinite(ratio)
            if known.sum() < _MIN_RUNS:
                continue
            low, high = _quantiles(ratio[known], names[known])
            found.setdefault(mode, {})[metric] = {
                "low": round(min(low, 1.0), 3),
                "high": round(max(high, 1.0), 3),
                "runs": int(known.sum()),
            }
    return found


def _quantiles(values: FloatArray, names: NDArray[Any]) -> tuple[float, float]:
    count = {name: int((names == name).sum()) for name in set(names)}
    weight = np.array([1 / count[name] for name in names])
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) / weight.sum()
    tail = (1 - COVERAGE) / 2
    ends = [values[order][np.searchsorted(reached, q)] for q in (tail, 1 - tail)]
    return float(ends[0]), float(ends[1])


def wider(predictor: Predictor, predicted: dict[str, FloatArray]) -> dict[str, float]:
    """How much larger errors are on GPU types of lower confidence."""
    sizes: dict[str, list[float]] = {"high": [], "medium": [], "low": []}
    for metric in ("tpot", "throughput"):
        logs = np.abs(np.log(predictor.measured[metric] / predicted[metric]))
        for d, size in zip(predictor.deployments, logs, strict=True):
            if np.isfinite(size):
                sizes[d.gpu.calibration.confidence].append(float(size))
    base = np.median(sizes["high"] or sizes["medium"])
    return {
        name: round(float(max(np.median(some) / base, 1.0)), 2) if some else 1.0
        for name, some in sizes.items()
    }


def margin(predictor: Predictor, predicted: dict[str, FloatArray]) -> dict[str, float]:
    """The best margin with at most 5% violations, and what it costs."""
    from benchmarks.choice.__main__ import closed_loop

    tried = [(m, closed_loop(predictor, predicted, m)) for m in _MARGINS]
    free = max(found["with_fallback"] for _, found in tried)
    safe = [(m, f) for m, f in tried if f["violations"] <= _VIOLATIONS] or tried[-1:]
    share, chosen = max(safe, key=lambda t: (t[1]["value"], -t[0]))
    return {
        "share": share,
        "violations": chosen["violations"],
        "value": chosen["value"],
        "throughput_cost": round(float(free - chosen["with_fallback"]), 4),
        "cases": chosen["cases"],
    }


def write(predictor: Predictor, predicted: dict[str, FloatArray]) -> Path:
    """Writes models/calibration/intervals.yaml."""
    return dump(
        catalogue.root() / "calibration" / "intervals.yaml",
        {
            "coverage": COVERAGE,
            "intervals": intervals(predictor, predicted),
            "wider": wider(predictor, predicted),
            "latency_margin": margin(predictor, predicted),
            "source": FoldedScalarString(_SOURCE),
        },
    )
