"""A problem with some of its units: the same points, fewer ways to form a stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from shardwright.problem.integers import Problem
from shardwright.problem.percentiles import LoadModel
from shardwright.problem.types import Tables, Unit

_PER_UNIT = ("layer", "role")
"""Tables whose second axis is the unit end in one of these."""


def with_units(problem: Problem, keep: Callable[[Unit], bool]) -> Problem:
    """The problem whose stages may only be formed by the units kept."""
    chosen = [i for i, unit in enumerate(problem.units) if keep(unit)]
    changes = {
        field.name: table[:, chosen]
        for field in fields(Tables)
        if field.name.endswith(_PER_UNIT)
        and (table := getattr(problem.tables, field.name)) is not None
    }
    return replace(
        problem,
        units=tuple(problem.units[i] for i in chosen),
        tables=replace(problem.tables, **changes),
        load=problem.load and _laws_of(problem.load, chosen),
    )


def _laws_of(load: LoadModel, chosen: list[int]) -> LoadModel:
    laws = load.laws
    layer, role = laws.layer[:, :, chosen], laws.role[:, :, chosen]
    return replace(load, laws=replace(laws, layer=layer, role=role))
