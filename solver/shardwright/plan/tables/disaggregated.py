"""Inside disaggregated stages: who works how long, and what a layer waits for."""

from __future__ import annotations

from shardwright.plan.disaggregated import Stations, stations
from shardwright.plan.groups import ReplicaGroup, merged
from shardwright.plan.tables.text import Cell, grid, percent, titled, us, wrapped
from shardwright.plan.view import PlanView

_HEADERS = (
    "repl\nica",
    "\nstage",
    "layers\nof",
    "\nshare",
    "us a part\nattention",
    "\neach way",
    "\nexperts",
    "us per\nlayer",
    "\nbound by",
    "GPUs busy\nattention",
    "\nexperts",
)


def disaggregated_table(view: PlanView) -> str:
    """One row per distinct stage and kind of layer, at the balanced iteration."""
    rows = [row for group in view.groups for row in _rows(view, group)]
    return titled(
        "Disaggregated stages: a layer's stations, without prompts and with them",
        grid(_HEADERS, rows, "lllrrrrrlrr"),
        wrapped(
            "",
            "Share: of the iterations without prompts, then of those with them. A "
            "layer takes the ping-pong parts of its busiest station (x2: two), or one "
            "part's way round where that is longer; both ways between the GPUs take "
            "the same.",
        ),
    )


def _rows(view: PlanView, group: ReplicaGroup) -> list[list[Cell]]:
    load = view.anatomy.loads(group.replica.operating_point).decode
    rows = merged(
        (i, _cells(found))
        for i, stage in enumerate(group.replica.stages)
        for found in stations(view.anatomy, stage, load)
    )
    return [[group.label, label, *cells] for label, cells in rows]


def _cells(s: Stations) -> list[Cell]:
    times = (s.attention_ns, s.dispatch_ns, s.experts_ns, s.period_ns)
    busy = (s.attention_busy, s.experts_busy)
    kind = [f"{s.layers} {s.kind}", percent(s.share)]
    return [*kind, *map(us, times), s.binds, *map(percent, busy)]
