"""Plan on some text domains, run on another: OLMoE, leave one out."""

from __future__ import annotations

from typing import Any

import numpy as np

from shardwright.experts import ExpertPlan, even_loads, plan_experts, scenario_tables

from .cases import table
from .report import Bar, Table

_DOMAINS = ("arxiv", "c4", "github", "tulu")
_SIZES = ((8, 72), (16, 96))


def _balance(load: np.ndarray, maps: np.ndarray, gpus: int) -> float:
    top = even_loads(load, maps, gpus).max(axis=1)
    return float((load.sum(axis=1) / gpus / top).mean())


def robustness() -> Table:
    """Balance on the domain left out, of plans for the others."""
    loads = {name: table(f"real_olmoe_{name}") for name in _DOMAINS}
    rows: list[list[Any]] = []
    for gpus, slots in _SIZES:
        size: dict[str, Any] = {"gpus": gpus, "slots": slots}
        single = {n: _map(plan_experts(load, **size)) for n, load in loads.items()}
        for out in _DOMAINS:
            rest = {n: load for n, load in loads.items() if n != out}
            several = scenario_tables(rest)
            cross = [_balance(loads[out], single[n], gpus) for n in rest]
            row = [
                f"{gpus} GPUs, {slots} slots",
                out,
                min(cross),
                float(np.mean(cross)),
            ]
            for robust in ("mean", "worst"):
                plan = plan_experts(several, **size, robust=robust)
                row.append(_balance(loads[out], _map(plan), gpus))
            row.append(_balance(loads[out], single[out], gpus))
            rows.append(row)
    headers = (
        "size",
        "left out",
        "single-domain, worst",
        "single-domain, mean",
        "robust mean",
        "robust worst",
        "planned on it",
    )
    return Table("Robustness over domains", headers, rows, _bars(rows))


def _map(plan: ExpertPlan) -> np.ndarray:
    return np.array(plan.physical_to_logical_map)


def _bars(rows: list[list[Any]]) -> list[Bar]:
    bars = []
    for size in dict.fromkeys(str(row[0]) for row in rows):
        mine = [row for row in rows if row[0] == size]
        single = min(float(row[2]) for row in mine)
        mean = min(float(row[4]) for row in mine)
        worst = min(float(row[5]) for row in mine)
        bars.append(
            Bar(
                f"{size}: leave-one-out beats single-domain in worst-case balance",
                f"{max(mean, worst):.4f} (mean {mean:.4f}, worst {worst:.4f}) "
                f"against {single:.4f}",
                max(mean, worst) > single,
            )
        )
    return bars
