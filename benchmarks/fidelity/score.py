"""Errors of predictions against a table, by group and overall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardwright.planning.replay import Predictor
from shardwright.planning.runs import METRICS, Row

FloatArray = NDArray[np.float64]
MIN_GROUP = 5


def ratios(measured: FloatArray, predicted: FloatArray) -> FloatArray:
    """Relative error (predicted - measured)/measured; NaN where not published."""
    return predicted / measured - 1


def summary(errors: FloatArray) -> dict[str, float | int]:
    """Median APE, bias (median of the signed error) and rows."""
    known = errors[np.isfinite(errors)]
    if not known.size:
        return {"n": 0}
    return {
        "median_ape": round(float(np.median(np.abs(known))), 4),
        "bias": round(float(np.median(known)), 4),
        "p90_ape": round(float(np.quantile(np.abs(known), 0.9)), 4),
        "n": int(known.size),
    }


def errors_of(
    predictor: Predictor, predicted: dict[str, FloatArray]
) -> dict[str, FloatArray]:
    """Relative errors by metric and row."""
    measured = predictor.measured
    return {m: ratios(measured[m], predicted[m]) for m in METRICS}


def grouped(
    rows: Sequence[Row], errors: dict[str, FloatArray], key: Callable[[Row], str]
) -> dict[str, dict[str, Any]]:
    """Summaries by a key of the row."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault(key(row), []).append(i)
    return {
        name: {m: summary(errors[m][at]) for m in METRICS}
        for name, at in sorted(found.items())
    }


def group_name(row: Row) -> str:
    """Source, model and GPU as one word."""
    return "|".join(row.group)


def overall(groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Median over groups of the groups' median APE and bias (n >= 5), else None."""
    found: dict[str, dict[str, Any]] = {}
    for metric in METRICS:
        large = [g[metric] for g in groups.values() if g[metric]["n"] >= MIN_GROUP]
        if not large:
            found[metric] = {"median_ape": None, "bias": None, "groups": 0}
            continue
        found[metric] = {
            "median_ape": round(float(np.median([g["median_ape"] for g in large])), 4),
            "bias": round(float(np.median([g["bias"] for g in large])), 4),
            "groups": len(large),
        }
    return found


def scored(
    rows: Sequence[Row], errors: dict[str, FloatArray]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The score, and the groups that it is the median of; near-duplicates removed."""
    distinct = [i for i, row in enumerate(rows) if not row.repeat]
    kept = {metric: errors[metric][distinct] for metric in METRICS}
    groups = grouped([rows[i] for i in distinct], kept, group_name)
    return overall(groups), groups
