"""What solving returns: a status, the plan, and what was proven about it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from shardwright.schema.base import SCHEMA_VERSION, Document
from shardwright.schema.plan import Plan


class Status(StrEnum):
    """OPTIMAL means bound = value; no plan is attached to the last four."""

    OPTIMAL = "OPTIMAL"
    FEASIBLE = "FEASIBLE"
    INFEASIBLE = "INFEASIBLE"
    UNKNOWN = "UNKNOWN"
    INVALID = "INVALID"
    ERROR = "ERROR"


StoppedBy = Literal["proof", "gap", "time", "memory", "user", "error"]


class ObjectiveValue(Document):
    """One goal of the lexicographic objective, in the goal's own unit.

    ``bound`` is proven given the values of the earlier goals; None when nothing
    was proven.
    """

    name: str
    unit: str
    value: float | None
    bound: float | None


class ConflictRule(Document):
    """One rule of a minimal conflict: what is asked and the best that can be had."""

    rule: str
    asked: str
    best: str


class Conflict(Document):
    """Rules that cannot hold together; without any one of them a plan exists."""

    rules: tuple[ConflictRule, ...]
    verified_minimal: bool
    message: str
    largest_request_rate_per_s: float | None = None


class TrajectoryPoint(Document):
    """A better plan or bound of the first goal, and when it was found."""

    seconds: float
    value: float | None
    bound: float | None


class Result(Document):
    """The answer of one solve."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    status: Status
    stopped_by: StoppedBy
    gap: float | None
    objectives: tuple[ObjectiveValue, ...]
    plan: Plan | None
    metrics: dict[str, Any]
    conflict: Conflict | None
    solve_seconds: float
    solver: str
    seed: int
    grid: dict[str, Any]
    model_size: dict[str, int]
    trajectory: tuple[TrajectoryPoint, ...]
    instance_sha256: str
    versions: dict[str, str]
