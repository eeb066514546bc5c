"""Load balance: memory and time of every stage against the mean GPU."""

from __future__ import annotations

from shardwright.plan.anatomy import Anatomy
from shardwright.plan.balance import (
    all_stages,
    bubble,
    busy_share,
    compute_imbalance,
    flush_bubble,
    memory_imbalance,
)
from shardwright.plan.experts import balance
from shardwright.plan.groups import ReplicaGroup, merged
from shardwright.plan.tables.text import (
    Cell,
    gb,
    grid,
    ms,
    number,
    percent,
    signed_percent,
    titled,
)
from shardwright.plan.view import PlanView
from shardwright.schema.plan import MemoryParts, Stage

_STAGE_HEADERS = (
    "replica",
    "stage",
    "GPUs",
    "memory\nGB",
    "against\nmean",
    "iteration\nms",
    "against\nmean",
    "\nbusy",
)
_REPLICA_HEADERS = (
    "replica",
    "memory\nimbalance",
    "compute\nimbalance",
    "\nbubble",
    "bubble by\nflush formula",
    "communication\nshare",
)


def balance_table(view: PlanView) -> str:
    """Stages, then replicas and the whole plan."""
    stages = [row for group in view.groups for row in _stage_rows(group)]
    replicas = [_replica_row(view.anatomy, group) for group in view.groups]
    whole = all_stages(view.document)
    if len(view.groups) > 1:
        shares = [memory_imbalance(whole), compute_imbalance(whole)]
        replicas.append(["plan", *map(percent, shares), "", "", ""])
    return titled(
        "Load balance (imbalance: (max - mean)/mean over GPUs)",
        grid(_STAGE_HEADERS, stages, "llrrrrrr"),
        grid(_REPLICA_HEADERS, replicas, "lrrrrr"),
        _limits(view),
        _experts(view),
    )


def _stage_rows(group: ReplicaGroup) -> list[list[Cell]]:
    stages = group.replica.stages
    gpus = sum(len(s.gpus) for s in stages)
    held = [(m.total(), n) for s in stages for _, n, m in s.memory_by_role()]
    memory = sum(total * n for total, n in held) / gpus
    time = sum(s.decode_time_ns * len(s.gpus) for s in stages) / gpus

    def cells(stage: Stage, count: int, parts: MemoryParts) -> list[Cell]:
        used = parts.total()
        return [
            str(count),
            gb(used),
            signed_percent(used / memory - 1, 2),
            ms(stage.decode_time_ns),
            signed_percent(stage.decode_time_ns / time - 1, 2),
            percent(busy_share(group.replica, stage)),
        ]

    found = []
    for role in dict.fromkeys(r for s in stages for r, _, _ in s.memory_by_role()):
        rows = merged(
            (i, cells(stage, count, parts))
            for i, stage in enumerate(stages)
            for name, count, parts in stage.memory_by_role()
            if name == role
        )
        mark = "" if role == "mixed" else f" {role}"
        found += [[group.label, f"{label}{mark}", *row] for label, row in rows]
    return found


def _replica_row(anatomy: Anatomy, group: ReplicaGroup) -> list[Cell]:
    replica = group.replica
    share = anatomy.communication_ns(replica) / anatomy.loop_ns(replica)
    return [
        group.label,
        percent(memory_imbalance(replica.stages), 2),
        percent(compute_imbalance(replica.stages), 2),
        percent(bubble(replica)),
        percent(flush_bubble(replica)),
        percent(share),
    ]


def _experts(view: PlanView) -> str:
    """Balance inside a stage, where its GPUs have different experts."""
    lines = []
    for group in view.groups:
        stages = [s for s in group.replica.stages if s.expert_slots]
        if stages:
            worst = max(balance(view.instance, view.document, s) for s in stages)
            lines.append(
                f"Experts, replica {group.label}: the busiest GPU has "
                f"{number(worst, 3)} times the mean GPU's tokens"
            )
    return "\n".join(lines)


def _limits(view: PlanView) -> str:
    limits = view.instance.limits
    asked = {
        "memory imbalance": limits.memory_imbalance,
        "compute imbalance": limits.compute_imbalance,
        "communication share": limits.communication_share,
    }
    given = [f"{name} {percent(x)}" for name, x in asked.items() if x is not None]
    return f"Allowed per replica: {', '.join(given)}" if given else ""
