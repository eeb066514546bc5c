"""Tables of a plan by name: rendering only, every figure is computed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardwright.plan.groups import has_experts
from shardwright.plan.tables.asked import inputs_table, parallelism_table
from shardwright.plan.tables.balance import balance_table
from shardwright.plan.tables.communication import communication_table
from shardwright.plan.tables.compliance import compliance_table
from shardwright.plan.tables.disaggregated import disaggregated_table
from shardwright.plan.tables.experts import experts_table
from shardwright.plan.tables.failures import failures_table
from shardwright.plan.tables.folded import is_folded
from shardwright.plan.tables.gpus import (
    gpus_table,
    idle_table,
    modules_table,
    ranks_table,
)
from shardwright.plan.tables.memory import kv_table, memory_table, strategies_table
from shardwright.plan.tables.placement import placement_table
from shardwright.plan.tables.serving import (
    latency_table,
    throughput_table,
    time_table,
)
from shardwright.plan.tables.summary import summary_table
from shardwright.plan.view import PlanView
from shardwright.problem.cluster_topology import has_topology

TABLES: dict[str, Callable[[PlanView], str]] = {
    "summary": summary_table,
    "gpus": gpus_table,
    "ranks": ranks_table,
    "idle": idle_table,
    "memory": memory_table,
    "balance": balance_table,
    "communication": communication_table,
    "disaggregated": disaggregated_table,
    "latency": latency_table,
    "throughput": throughput_table,
    "compliance": compliance_table,
    "inputs": inputs_table,
    "parallelism": parallelism_table,
    "modules": modules_table,
    "experts": experts_table,
    "kv": kv_table,
    "time": time_table,
    "strategies": strategies_table,
    "failures": failures_table,
    "placement": placement_table,
}

DEFAULT = (
    "summary",
    "gpus",
    "idle",
    "memory",
    "balance",
    "communication",
    "disaggregated",
    "latency",
    "throughput",
    "compliance",
)
"""What is printed unless tables are named."""

SAVED = (*DEFAULT, "ranks")
"""What is saved unless tables are named: the rank of every GPU with it."""


def names(view: PlanView) -> list[str]:
    """Tables that the view has something to show in."""
    missing = set() if is_folded(view) else {"ranks"}
    if not view.idle:
        missing.add("idle")
    if view.report is None:
        missing.add("compliance")
    if not any(has_experts(group.replica.stages) for group in view.groups):
        missing.add("experts")
    if not has_topology(view.instance.cluster):
        missing.add("placement")
    stages = [s for group in view.groups for s in group.replica.stages]
    if not any(stage.expert_unit for stage in stages):
        missing.add("disaggregated")
    return [name for name in TABLES if name not in missing]


def chosen(view: PlanView, asked: Sequence[str]) -> list[str]:
    """Tables of ``asked`` that the view has; ``ranks`` of a small plan are ``gpus``."""
    present = names(view)
    own = ("gpus" if n == "ranks" and n not in present else n for n in asked)
    return [name for name in dict.fromkeys(own) if name in present]


def render(view: PlanView, name: str) -> str:
    """One table as text."""
    if name not in TABLES:
        raise KeyError(f"no table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name](view)
