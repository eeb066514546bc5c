"""What plans really get under sglang_static dispatch, OLMoE, 16 GPUs on 2 nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from shardwright.experts import plan_experts, static_loads
from shardwright.experts.dispatch import SglangRule

from .cases import Case, cases
from .eplb import eplb
from .report import Bar, Table

_BAR = 0.97
_RULES: tuple[SglangRule, ...] = ("newer", "older")


def _balance(case: Case, maps: np.ndarray, rule: SglangRule) -> float:
    top = static_loads(case.load, maps, case.gpus, case.nodes, rule).max(axis=1)
    return float((case.load.sum(axis=1) / case.gpus / top).mean())


def dispatched() -> Table:
    """Balance (mean over layers of mean / max) under both rules, per domain."""
    chosen = [c for c in cases() if c.config == "ep16_r96"]
    rows: list[list[Any]] = []
    for case in chosen:
        size: dict[str, Any] = {
            "gpus": case.gpus,
            "slots": case.slots,
            "nodes": case.nodes,
        }
        even = plan_experts(case.load, **size)
        nominal = np.array(even.physical_to_logical_map)
        base = eplb(case)
        for rule in _RULES:
            plan = plan_experts(
                case.load, **size, split="sglang_static", sglang_rule=rule
            )
            rows.append(
                [
                    case.table,
                    rule,
                    _balance(case, base, rule),
                    even.balance,
                    _balance(case, nominal, rule),
                    plan.balance,
                    plan.worst_balance,
                ]
            )
    headers = (
        "table",
        "rule",
        "EPLB real",
        "even plan nominal",
        "even plan real",
        "static plan real",
        "its worst layer",
    )
    least = min(float(row[5]) for row in rows if row[1] == "newer")
    bar = Bar(
        "newer rule: balance >= 0.97 without two copies on a GPU",
        f"least {least:.4f}",
        least >= _BAR,
    )
    return Table("sglang_static dispatch, 96 slots", headers, rows, [bar])
