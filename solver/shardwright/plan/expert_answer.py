"""The answer of an expert placement as text and as one JSON document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shardwright.experts import ExpertPlan
from shardwright.plan.tables.text import (
    Cell,
    amount,
    figures,
    grid,
    number,
    pairs,
    percent,
    short,
    wrapped,
)


@dataclass(frozen=True)
class ExpertAnswer:
    """A placement, what it was asked for, and how close each layer had to come.

    ``names`` are those of the load tables; ``gap`` the tolerance asked for.
    """

    plan: ExpertPlan
    names: tuple[str, ...]
    experts: int
    nodes: int
    gap: float
    seconds: float

    @property
    def gaps(self) -> list[float]:
        """max / bound - 1 of every layer."""
        rows = zip(self.plan.max_load, self.plan.bound, strict=True)
        return [top / bound - 1 if bound > 0 else 0.0 for top, bound in rows]

    @property
    def certified(self) -> int:
        """Layers with a proof that nothing is better by more than the gap."""
        return sum(gap <= self.gap + 1e-9 for gap in self.gaps)

    @property
    def done(self) -> bool:
        """Whether every layer is certified."""
        return self.certified == len(self.gaps)

    @property
    def status(self) -> str:
        """OPTIMAL where every layer is, else FEASIBLE."""
        proven = all(status == "OPTIMAL" for status in self.plan.status)
        return "OPTIMAL" if proven else "FEASIBLE"

    def document(self) -> dict[str, Any]:
        """JSON-ready; the map under the key that engines read."""
        found = self.plan.to_json()
        return {
            "status": self.status,
            "within_gap": self.done,
            "gap_asked": self.gap,
            "seconds": round(self.seconds, 3),
            "loads": list(self.names),
            "experts": self.experts,
            "nodes": self.nodes,
            "slots": len(self.plan.physical_to_logical_map[0]),
            "worst_balance": self.plan.worst_balance,
            "worst_gap": max(self.gaps),
            **found,
        }

    def text(self) -> str:
        """The answer first, then what was asked, then the layers."""
        plan = self.plan
        head = wrapped(
            f"{self.status}  ",
            f"balance {_cut(plan.balance)} in the mean, {_cut(plan.worst_balance)} in "
            f"the worst of {amount(len(self.gaps), 'layer')} (mean over busiest GPU); "
            f"{self.certified} certified within {percent(self.gap, 2)}, "
            f"{self.seconds:.2f} s",
        )
        blocks = [head, pairs(self._facts()), self._scenarios(), self._layers()]
        return "\n\n".join(block for block in blocks if block)

    def _facts(self) -> list[tuple[str, str]]:
        plan = self.plan
        slots = len(plan.physical_to_logical_map[0])
        rows = [
            ("loads", f"{', '.join(self.names)}: {amount(self.experts, 'expert')}"),
            (
                "placed on",
                f"{amount(plan.gpus, 'GPU')} on {amount(self.nodes, 'node')}, "
                f"{amount(slots, 'slot')} ({slots // plan.gpus} per GPU, "
                f"{slots - self.experts} for second copies)",
            ),
            ("dispatch", plan.split),
            (
                "gap to bound",
                f"{percent(plan.gap, 3)} in the mean, "
                f"{percent(max(self.gaps), 3)} in the worst layer",
            ),
        ]
        if plan.moves is not None:
            mean = number(float(np.mean(plan.moves)), 1)
            rows.append(("moves", f"{mean} per layer, {max(plan.moves)} at most"))
        return rows

    def _scenarios(self) -> str:
        """Balance under each of several load tables."""
        found = self.plan.scenario_balance
        if len(found) == 1:
            return ""
        rows = [
            [short(name, 60), _cut(float(np.mean(row))), _cut(min(row))]
            for name, row in zip(self.names, found, strict=True)
        ]
        return grid(["loads", "mean\nbalance", "worst\nlayer"], rows, "lrr")

    def _layers(self) -> str:
        plan, moves = self.plan, self.plan.moves
        single = len(plan.scenario_balance) == 1
        written = figures if single else _relative
        rows: list[list[Cell]] = [
            [
                str(i),
                *(written(x) for x in (top, mean, plan.bound[i])),
                _cut(mean / top if top else 1.0),
                percent(self.gaps[i], 3),
                *([] if moves is None else [str(moves[i])]),
                plan.status[i],
            ]
            for i, (top, mean) in enumerate(
                zip(plan.max_load, plan.mean_load, strict=True)
            )
        ]
        headers = [
            "MoE\nlayer",
            f"busiest GPU\n{'tokens' if single else 'relative'}",
            "mean\nGPU",
            "proven\nbound",
            "\nbalance",
            "gap to\nbound",
            *([] if moves is None else ["\nmoves"]),
            "\nstatus",
        ]
        return grid(headers, rows, "r" * (len(headers) - 1) + "l")


def _relative(load: float) -> str:
    """Load of a GPU where the mean GPU has 1."""
    return number(load, 4)


def _cut(balance: float) -> str:
    """Rounded down: 0.99996 must not read as perfect."""
    return f"{np.floor(balance * 1e4 + 1e-6) / 1e4:.4f}"
