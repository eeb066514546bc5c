"""Failure impact until a new plan is made."""

from __future__ import annotations

from shardwright.plan.groups import ranges
from shardwright.plan.impact import Impact, gpu_impacts, node_impacts
from shardwright.plan.tables.text import Cell, grid, number, percent, short, titled
from shardwright.plan.view import PlanView

_HEADERS = (
    "failure of",
    "replicas\nstopped",
    "GPUs\nstopped",
    "capacity\nlost",
    "requests/s\nleft",
    "rate\nheld",
)


def failures_table(view: PlanView) -> str:
    """Every single node, and one GPU of every replica."""
    impacts = [*gpu_impacts(view.anatomy), *node_impacts(view.anatomy)]
    return titled(
        "Failure impact before any re-planning (a replica stops as a whole)",
        grid(_HEADERS, [_cells(impact) for impact in impacts], "llrrrl"),
    )


def _cells(impact: Impact) -> list[Cell]:
    held = {True: "yes", False: "NO", None: "-"}[impact.holds_rate]
    return [
        short(impact.what, 34),
        short(ranges(impact.replicas), 20),
        str(impact.gpus_stopped),
        percent(impact.lost_share),
        number(impact.requests_per_s_left, 2),
        held,
    ]
