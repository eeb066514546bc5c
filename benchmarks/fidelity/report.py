"""The score as text, JSON and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.fidelity.score import grouped, overall, scored
from shardwright.planning import run_names
from shardwright.planning.replay import Predictor
from shardwright.planning.runs import METRICS, Row

FloatArray = NDArray[np.float64]

CUTS = (
    ("mode", lambda r: r.mode + (", apart" if r.prefill is not None else "")),
    ("engine", run_names.engine),
    ("GPU", lambda r: r.gpu),
    ("model", lambda r: r.model_name),
)


def answer(
    rows: Sequence[Row], errors: dict[str, FloatArray], skipped: dict[str, int]
) -> dict[str, Any]:
    """The result as one document."""
    score, groups = scored(rows, errors)
    return {
        "score": score,
        "groups": groups,
        "rows_used": len(rows),
        "rows_skipped": dict(sorted(skipped.items())),
    }


def text(
    rows: Sequence[Row],
    errors: dict[str, FloatArray],
    document: dict[str, Any],
    title: str,
) -> str:
    """Tables of at most 100 columns."""
    parts = [title, _overall(document["score"])]
    for name, key in CUTS:
        parts.append(_cut(name, grouped(rows, errors, key)))
    parts.append(
        _cut("group (source|model|GPU), 5 rows or more", document["groups"], 5)
    )
    left = ", ".join(f"{n} {k}" for k, n in document["rows_skipped"].items())
    last = f"{document['rows_used']} rows scored; left out: {left or 'none'}"
    parts.append("\n".join(wrap(last, 100)))
    return "\n\n".join(parts)


def _overall(score: dict[str, Any]) -> str:
    rows = [
        [m, _percent(s.get("median_ape")), _percent(s.get("bias"), True), s["groups"]]
        for m, s in score.items()
    ]
    return tabulate(rows, ["metric", "median APE", "bias", "groups"],
                    disable_numparse=True)  # fmt: skip


def _cut(name: str, parts: dict[str, dict[str, Any]], least: int = 1) -> str:
    rows = []
    for part, found in parts.items():
        if max(found[m]["n"] for m in METRICS) < least:
            continue
        cells: list[str] = [part if len(part) < 40 else part[:36] + "..."]
        for metric in METRICS:
            s = found[metric]
            shown = f"{_percent(s.get('median_ape'))} {_percent(s.get('bias'), True)}"
            cells.append(f"{shown} {s['n']}" if s["n"] >= least else "")
        rows.append(cells)
    heads = [name, *(f"{m} APE bias n" for m in METRICS)]
    return tabulate(rows, heads, disable_numparse=True)


def _percent(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{100 * value:+.0f}%" if signed else f"{100 * value:.1f}%"


def summary_line(score: dict[str, Any]) -> str:
    """One line: the three figures of a score."""
    return ", ".join(
        f"{m} {_percent(s.get('median_ape'))} ({_percent(s.get('bias'), True)})"
        for m, s in score.items()
    )


def regrouped(predictor: Predictor, errors: dict[str, FloatArray]) -> dict[str, Any]:
    """Scores by mode, each the median of its groups."""
    found = {}
    for mode in sorted({r.mode for r in predictor.rows}):
        at = [i for i, r in enumerate(predictor.rows) if r.mode == mode]
        rows = [predictor.rows[i] for i in at]
        cut = {m: errors[m][at] for m in METRICS}
        found[mode] = overall(scored(rows, cut)[1])
    return found


def plots(
    predictor: Predictor, predicted: dict[str, FloatArray], folder: Path, stem: str
) -> list[Path]:
    """Predicted over measured by metric, as SVG; nothing without matplotlib."""
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return []
    matplotlib.use("svg")
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

    paths = []
    for metric in METRICS:
        measured = predictor.measured[metric]
        known = np.isfinite(measured)
        if not known.any():
            continue
        figure, axes = pyplot.subplots(figsize=(6, 6))
        modes = np.array([r.mode for r in predictor.rows])
        for mode in sorted(set(modes[known])):
            at = known & (modes == mode)
            style: dict[str, Any] = {"ms": 3, "label": mode, "rasterized": True}
            axes.loglog(measured[at], predicted[metric][at], ".", **style)
        ends = [measured[known].min(), measured[known].max()]
        axes.loglog(ends, ends, "k-", lw=0.8)
        unit = "tokens/s" if metric == "throughput" else "ms"
        axes.set(
            xlabel=f"measured ({unit})", ylabel=f"predicted ({unit})", title=metric
        )
        axes.legend()
        paths.append(folder / f"{stem}_{metric}.svg")
        figure.savefig(paths[-1])
        pyplot.close(figure)
    return paths
