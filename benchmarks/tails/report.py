"""Tables of the tails benchmark, and its bars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

from benchmarks.machine import machine
from shardwright.simulate.measure import Estimate

from .measure import FIGURES, Row
from .points import Burst

_NAMES = [f"{metric.upper()} P{share * 100:g}" for metric, share in FIGURES]
BARS = {"TTFT P50": 0.01, "TTFT P99": 0.04, "TPOT P99": 0.05}
"""Largest median error over the points that are not slot-bound."""


@dataclass(frozen=True)
class Bar:
    """What was asked of the closed forms, and what was measured."""

    claim: str
    asked: float
    got: float

    @property
    def holds(self) -> bool:
        """Whether it is kept."""
        return self.got <= self.asked


def bars(rows: Sequence[Row]) -> list[Bar]:
    """Median errors over mixed replicas whose slots do not bind."""
    free = [r for r in rows if r.point.kind == "mixed" and not r.slot_bound]
    found = []
    for name, asked in BARS.items():
        at = _NAMES.index(name)
        got = median(abs(r.error(at)) for r in free)
        claim = f"median error of {name} over {len(free)} points"
        found.append(Bar(claim, asked, got))
    return found


def bars_table(found: Sequence[Bar], style: str) -> str:
    """One line per bar."""
    lines = [
        (b.claim, f"{b.asked:.0%}", f"{b.got:.2%}", "holds" if b.holds else "MISSED")
        for b in found
    ]
    return tabulate(lines, ("bar", "asked", "measured", ""), tablefmt=style)


def medians_table(rows: Sequence[Row], style: str) -> str:
    """Median and worst error by group."""
    groups: dict[str, list[Row]] = {}
    for r in rows:
        p = r.point
        if p.kind == "mixed" and not r.slot_bound:
            groups.setdefault(f"{p.stages} stage(s), chunk {p.chunk}", []).append(r)
        else:
            kind = "pools" if p.kind == "pools" else "slot-bound"
            groups.setdefault(f"{kind}, {p.stages} stage(s)", []).append(r)
    lines = []
    for name, members in groups.items():
        cells = []
        for at in range(len(FIGURES)):
            errors = [abs(r.error(at)) for r in members]
            cells.append(f"{100 * median(errors):.1f} / {100 * max(errors):.0f}")
        lines.append((name, len(members), *cells))
    heads = ("median / worst error, %", "points", *_NAMES)
    return tabulate(lines, heads, tablefmt=style, disable_numparse=True)


def points_table(rows: Sequence[Row], style: str) -> str:
    """Every point: simulated ms and error of the prediction in percent."""
    lines = []
    for r in rows:
        p = r.point
        cells = [
            f"{1e3 * s.value_s:.4g} ({100 * r.error(i):+.1f})"
            for i, s in enumerate(r.simulated)
        ]
        noise = r.simulated[1]
        lines.append(
            (
                p.kind,
                p.name,
                p.chunk,
                p.stages,
                f"{p.use:g}",
                f"{r.rate_per_s:.4g}",
                *cells,
                f"{100 * noise.error_s / noise.value_s:.1f}",
                f"{100 * r.slots_full:.2g}",
                f"{1e3 * r.closed_cpu_s:.0f}",
                f"{r.simulator_cpu_s:.1f}",
            )
        )
    heads = (
        "kind",
        "prompt, output",
        "chunk",
        "stages",
        "use",
        "req/s",
        *_NAMES,
        "noise of TTFT P99, %",
        "slots full, %",
        "closed, CPU ms",
        "simulator, CPU s",
    )
    return tabulate(lines, heads, tablefmt=style, disable_numparse=True)


def bursts_table(
    found: Sequence[tuple[Burst, tuple[Estimate, ...]]], style: str
) -> str:
    """All at once: simulator only."""
    lines = [
        (
            f"{case.prompt}, {case.output}",
            case.count,
            case.chunk,
            case.stages,
            *(f"{1e3 * e.value_s:.4g}" for e in figures[:-1]),
            f"{figures[-1].value_s:.2f}",
        )
        for case, figures in found
    ]
    heads = ("prompt, output", "requests", "chunk", "stages", *_NAMES, "all done, s")
    return tabulate(lines, heads, tablefmt=style, disable_numparse=True)


def write(
    rows: Sequence[Row],
    found: Sequence[tuple[Burst, tuple[Estimate, ...]]],
    folder: Path,
    command: str,
) -> None:
    """tails.md and tails.json."""
    held = bars(rows)
    head = machine()
    cpu = sum(r.simulator_cpu_s for r in rows)
    sections = [
        "# Closed forms of the tails against the simulator",
        f"`{command}`, commit {head['commit']}, {head['cpu']}, "
        f"Python {head['python']}; "
        f"{cpu:.0f} s of CPU in the simulator. Milliseconds are simulated; in brackets "
        "the error of the closed form in percent. Noise: half of the 95% interval over "
        "seeds.",
        bars_table(held, "github"),
        "## Groups",
        medians_table(rows, "github"),
        "## Points",
        points_table(rows, "github"),
        "## All requests at once (simulator only; ms)",
        bursts_table(found, "github"),
    ]
    (folder / "tails.md").write_text("\n\n".join(sections) + "\n", "utf-8")
    document = {
        "command": command,
        "machine": head,
        "bars": [{**vars(b), "holds": b.holds} for b in held],
        "points": [_document(r) for r in rows],
        "bursts": [_burst(case, figures) for case, figures in found],
    }
    (folder / "tails.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _document(r: Row) -> dict[str, Any]:
    p = r.point
    return {
        "kind": p.kind,
        "prompt": str(p.prompt),
        "output": str(p.output),
        "chunk": p.chunk,
        "stages": p.stages,
        "slots": p.slots,
        "use": p.use,
        "rate_per_s": r.rate_per_s,
        "predicted_ms": _ms(r.predicted),
        "simulated_ms": _ms([s.value_s for s in r.simulated]),
        "uncertainty_ms": _ms([s.error_s for s in r.simulated]),
        "slots_full": r.slots_full,
        "closed_cpu_s": round(r.closed_cpu_s, 4),
        "simulator_cpu_s": round(r.simulator_cpu_s, 2),
    }


def _burst(case: Burst, figures: tuple[Estimate, ...]) -> dict[str, Any]:
    return {
        "prompt": str(case.prompt),
        "output": str(case.output),
        "requests": case.count,
        "chunk": case.chunk,
        "stages": case.stages,
        "simulated_ms": _ms([e.value_s for e in figures[:-1]]),
        "all_done_s": figures[-1].value_s,
    }


def _ms(seconds: Sequence[float]) -> dict[str, float]:
    return {
        name: round(1e3 * value, 4) for name, value in zip(_NAMES, seconds, strict=True)
    }
