"""A right plan of the tiny instance, its figures, and the paths of its parts."""

from __future__ import annotations

from typing import Any

from tests.check.builders import ONE_STAGE, TWO_STAGES, instance, plan_for

from shardwright.check import check
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.schema.result import ObjectiveValue

REPLICA = "pools.0.replicas.0"
STAGE = f"{REPLICA}.stages.0"
NEXT = f"{REPLICA}.stages.1"
POINT = f"{REPLICA}.operating_point"
LATENCY = f"{REPLICA}.latency"
LONE_STAGE = "pools.0.replicas.1.stages.0"
LONE_TPOT = "pools.0.replicas.1.latency.tpot_ns"
WEIGHTS = f"{STAGE}.memory_bytes.weights"
KV_CACHE = f"{NEXT}.memory_bytes.kv_cache"
SUBJECT = instance()
PLAN = plan_for(SUBJECT, TWO_STAGES, ONE_STAGE)
RIGHT = check(SUBJECT, PLAN)
FIGURES = RIGHT.figures


def broken(subject: Instance, plan: Plan, *goals: ObjectiveValue) -> set[str]:
    """Rules that the checker says the plan breaks."""
    report = check(subject, plan, goals)
    assert report.ok == (not report.violations)
    return set(report.broken())


def value_at(path: str) -> Any:
    """The value of the right plan at a dotted path."""
    place: Any = PLAN.model_dump(mode="json")
    for key in path.split("."):
        place = place[int(key)] if isinstance(place, list) else place[key]
    return place
