"""How far published runs lay from predictions: intervals and the latency margin.

The figures are quantiles of measured over predicted of runs whose sources were left
out of the fit (models/calibration/intervals.yaml, written by benchmarks.fidelity).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from shardwright.ingest import catalogue
from shardwright.schema.cluster import Confidence

Mode = Literal[
    "closed_loop", "static_batch", "offline_max", "poisson", "single_stream", "any"
]
Metric = Literal["tpot", "ttft", "throughput"]


@dataclass(frozen=True)
class Interval:
    """Factors on a prediction between which ``coverage`` of the left-out runs lay."""

    low: float
    high: float
    runs: int
    coverage: float

    def of(self, predicted: float) -> tuple[float, float]:
        """The interval of one prediction, in its unit."""
        return predicted * self.low, predicted * self.high


def interval(
    mode: Mode, metric: Metric, confidence: Confidence = "high"
) -> Interval | None:
    """The interval of a kind of prediction; None where nothing was measured.

    A mode without runs of its own takes those of all modes. GPU types of lower
    ``confidence`` have factors further from one, by the exponent of the file.
    """
    document = catalogue.shared("intervals")
    found: dict[str, Any] = document.get("intervals", {})
    figures = found.get(mode, {}).get(metric) or found.get("any", {}).get(metric)
    if figures is None:
        return None
    wider = float(document.get("wider", {}).get(confidence, 1.0))
    return Interval(
        float(figures["low"]) ** wider,
        float(figures["high"]) ** wider,
        int(figures["runs"]),
        float(document["coverage"]),
    )


def latency_margin() -> float:
    """Share by which a predicted TPOT should stay below its limit; 0 if unknown."""
    margin: dict[str, Any] = catalogue.shared("intervals").get("latency_margin", {})
    return float(margin.get("share", 0.0))
