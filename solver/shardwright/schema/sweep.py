"""A sweep: one instance, and the fields that change from point to point."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from shardwright.schema.base import (
    SCHEMA_VERSION,
    Document,
    Name,
    NonNegative,
    Positive,
)
from shardwright.schema.workload import Goal

MAX_POINTS = 100_000
TIME_LIMIT = "time_limit_s"
"""The one name in a point that is no field of the instance."""

Changes = dict[Name, JsonValue]


class SweepFile(Document):
    """Points of a sweep: every entry of ``list``, at every combination of ``vary``.

    Keys are dotted paths of instance fields, entries of lists by number
    (``slo.0.limit_ms``), or ``time_limit_s``; null takes a field away. ``instance``
    is a path from the file's folder. ``threads`` are those of one point;
    ``explain`` looks for a minimal conflict where a point is infeasible.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    name: Name = "sweep"
    instance: Name | None = None
    vary: Annotated[
        dict[Name, Annotated[tuple[JsonValue, ...], Field(min_length=1)]],
        Field(max_length=32),
    ] = Field(default_factory=dict)
    points: Annotated[
        tuple[Changes, ...], Field(min_length=1, max_length=MAX_POINTS)
    ] = Field(alias="list", default=({},))
    time_limit_s: Positive = 60.0
    gap: Annotated[NonNegative, Field(lt=1)] = 0.0
    objective: Annotated[tuple[Goal, ...], Field(min_length=1)] | None = None
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    explain: bool = False

    @model_validator(mode="after")
    def _size(self) -> SweepFile:
        if self.count() > MAX_POINTS:
            raise ValueError(f"{self.count()} points; at most {MAX_POINTS} are allowed")
        twice = sorted({key for point in self.points for key in point} & {*self.vary})
        if twice:
            raise ValueError(f"both vary and list change {', '.join(twice)}")
        return self

    def count(self) -> int:
        """Number of points."""
        return len(self.points) * prod(len(values) for values in self.vary.values())

    def fields(self) -> list[str]:
        """Every name that changes, in the order of the file."""
        listed = (key for point in self.points for key in point)
        return [*dict.fromkeys([*listed, *self.vary])]


Row = dict[str, Any]
"""One point of a sweep and its outcome, JSON-ready; docs/planning.md has the names."""
