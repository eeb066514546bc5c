"""A study as tables."""

from __future__ import annotations

from math import isfinite
from typing import Literal

from shardwright.plan.tables.text import figures, grid
from shardwright.simulate.measure import Estimate
from shardwright.simulate.study import Figure, Study

_TARGETS = ("target", "asked ms", "predicted ms", "simulated ms", "slack", "verdict")
_ALL = ("latency", "predicted ms", "simulated ms", "difference")


def study_text(found: Study) -> str:
    """The answer first: does every target hold when requests really queue?"""
    blocks = [_answer(found), _setting(found)]
    if found.targets:
        rows = [_target(target) for target in found.targets]
        blocks.append(grid(_TARGETS, rows, "lrrrrl"))
    blocks.append(grid(_ALL, [_latency(f) for f in found.figures], "lrrr"))
    blocks.append("\n".join(_notes(found)))
    return "\n\n".join(block for block in blocks if block)


def _answer(found: Study) -> str:
    rate = figures(found.scenario.rate_per_s)
    load = (
        "all requests at once"
        if found.scenario.kind == "burst"
        else f"{rate} requests/s"
    )
    verdicts = [target.verdict for target in found.targets]
    if "missed" in verdicts:
        count = verdicts.count("missed")
        return f"MISSED: {count} of {len(verdicts)} targets at {load}."
    if not found.stable:
        return f"UNSTABLE: the queue grows without end at {load}."
    if not verdicts:
        return f"SIMULATED: no target was asked for; latencies at {load}."
    if "close" in verdicts:
        return f"CLOSE: a target lies within the uncertainty at {load}; add --seeds."
    return f"HOLDS: the simulated targets are kept at {load}."


def _setting(found: Study) -> str:
    kind, ca2 = found.scenario.kind, found.scenario.ca2
    arrivals = kind if ca2 == 1.0 else f"{kind}, ca2 {figures(ca2)}"
    use = found.utilisation
    parts = [
        f"arrivals {arrivals}",
        f"{found.seeds} x {found.requests} requests",
        f"routing {found.routing}",
        f"{figures(found.tokens_per_s)} output tok/s",
    ]
    if use is not None and isfinite(use):
        parts.append(f"utilisation {100 * use:.0f}%")
    return "; ".join(parts)


def _name(metric: str, share: float | Literal["mean"]) -> str:
    shown = metric.upper()
    return f"{shown} mean" if share == "mean" else f"{shown} P{share * 100:g}"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return figures(seconds * 1e3) if isfinite(seconds) else "unbounded"


def _rough(value: float) -> str:
    """Two figures: an uncertainty has no more."""
    return figures(float(f"{value:.2g}"))


def _simulated(value: Estimate | None) -> str:
    if value is None or not isfinite(value.value_s):
        return "-"
    shown = figures(value.value_s * 1e3)
    if not isfinite(value.error_s):
        return shown
    return f"{shown} +- {_rough(value.error_s * 1e3)}"


def _target(figure: Figure) -> list[str]:
    assert figure.limit_s is not None
    slack = "-"
    if figure.simulated is not None and isfinite(figure.simulated.value_s):
        slack = f"{100 * (1 - figure.simulated.value_s / figure.limit_s):+.1f}%"
    return [
        _name(figure.metric, figure.share),
        _ms(figure.limit_s),
        _ms(figure.predicted_s),
        _simulated(figure.simulated),
        slack,
        figure.verdict,
    ]


def _latency(figure: Figure) -> list[str]:
    difference, sim = "-", figure.simulated
    if figure.predicted_s is not None and sim is not None:
        ratio = figure.predicted_s / sim.value_s - 1
        difference = f"{100 * ratio:+.1f}%" if isfinite(ratio) else "-"
    return [
        _name(figure.metric, figure.share),
        _ms(figure.predicted_s),
        _simulated(sim),
        difference,
    ]


def _notes(found: Study) -> list[str]:
    notes = ["+- is half of the 95% interval over seeds."]
    if found.default_rate and found.scenario.kind != "burst":
        notes.append("The instance asks for no rate: 80% of what the plan claims.")
    if found.knife_edge:
        notes.append(
            "KNIFE EDGE: slots fill up now and then (0.1% to 5% of the time), and "
            "tails hang on\nthose moments: keep 15% head-room, or simulate with "
            "--requests 160000 --seeds 5."
        )
    if not found.stable:
        notes.append("The closed forms see no stable queue at this rate.")
    if found.preemptions:
        notes.append(
            f"KV room ran out: {found.preemptions} sequences were computed anew."
        )
    if found.scenario.kind == "trace":
        notes.append(
            "Closed forms take a trace as a renewal stream with its lengths' laws."
        )
    return notes
