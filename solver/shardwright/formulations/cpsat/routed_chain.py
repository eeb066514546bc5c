"""A chain of blocks over all layers: which blocks, how often, in which regions.

Blocks commute within a region, so only counts are decided:

    x_rb blocks b in region r     sum x * layers = L     sum x * use <= nodes, per group
    sum x * stages <= D (or minimised)

From region r to the next one, e nodes that end together feed s nodes that begin
together over e*s links, so e*s >= the links needed for the flow. A block of e or s
nodes side by side (a gate) at the region's end or start gives them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardwright.formulations.cpsat.engine import Limits, run
from shardwright.schema.result import Status

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel


@dataclass(frozen=True)
class Block:
    """A run of ``layers``, ``stages`` deep, and the nodes of every group it uses.

    ``gate``: nodes side by side over the whole block, 1 unless it is built so.
    ``lanes``: chains of equal nodes side by side, (group, layers of each node).
    """

    layers: int
    stages: int
    use: tuple[int, ...]
    gate: int = 1
    lanes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Leg:
    """One region of the chain: its nodes by group, its blocks and its gates.

    ``links``: how many links the flow needs from the region before; 1 for the first.
    """

    counts: tuple[int, ...]
    blocks: Sequence[Block]
    gates: Sequence[Block]
    links: int = 1


@dataclass(frozen=True)
class LegChoice:
    """Indices of blocks in any order, of the entry gate and of the exit gate."""

    blocks: tuple[int, ...]
    entry: int | None
    exit: int | None


def chain(
    legs: Sequence[Leg], layers: int, stages: int | None, limits: Limits, *, least: bool
) -> tuple[Status, tuple[LegChoice, ...]]:
    """A chain of the legs in this order; ``least`` minimises its stages.

    Status OPTIMAL or FEASIBLE comes with one choice per leg.
    """
    from ortools.sat.python.cp_model import CpModel, LinearExpr

    model = CpModel()
    built = [_Leg(model, leg, layers) for leg in legs]
    for before, after in itertools.pairwise(built):
        _crossing(model, before, after)
    terms = [pair for leg in built for pair in leg.terms]
    variables = [x for x, _ in terms]
    sizes = [part.layers for _, part in terms]
    depths = [part.stages for _, part in terms]
    if not variables:
        return Status.INFEASIBLE, ()
    model.add(LinearExpr.weighted_sum(variables, sizes) == layers)
    depth = LinearExpr.weighted_sum(variables, depths)
    if stages is not None:
        model.add(depth <= stages)
    if least:
        model.minimize(depth)
    found = run(model, limits)
    if not found.found:
        return found.status, ()
    return found.status, tuple(leg.choice(found.value) for leg in built)


class _Leg:
    """Variables of one region."""

    def __init__(self, model: CpModel, leg: Leg, layers: int) -> None:
        self.leg = leg
        self.blocks = [model.new_int_var(0, layers // b.layers, "") for b in leg.blocks]
        self.entries = [model.new_bool_var("") for _ in leg.gates]
        self.exits = [model.new_bool_var("") for _ in leg.gates]
        model.add_at_most_one(self.entries)
        model.add_at_most_one(self.exits)
        parts = [*leg.blocks, *leg.gates, *leg.gates]
        variables = [*self.blocks, *self.entries, *self.exits]
        self.terms = list(zip(variables, parts, strict=True))
        for g, count in enumerate(leg.counts):
            model.add(_weighted(self.terms, [p.use[g] for _, p in self.terms]) <= count)

    def choice(self, value: Any) -> LegChoice:
        counted = [i for i, x in enumerate(self.blocks) for _ in range(value(x))]
        entry = next((i for i, x in enumerate(self.entries) if value(x)), None)
        leave = next((i for i, x in enumerate(self.exits) if value(x)), None)
        return LegChoice(tuple(counted), entry, leave)


def _weighted(terms: list[tuple[Any, Block]], weights: list[int]) -> Any:
    from ortools.sat.python.cp_model import LinearExpr

    return LinearExpr.weighted_sum([x for x, _ in terms], weights)


def _crossing(model: CpModel, before: _Leg, after: _Leg) -> None:
    """One way to have enough links: e exits and as many entries as that needs."""
    needed = after.leg.links
    if needed <= 1:
        return
    ways = []
    for exits in range(1, needed + 1):
        entries = -(-needed // exits)
        way = model.new_bool_var("")
        ways.append(way)
        _gated(model, before.exits, before.leg.gates, exits, way)
        _gated(model, after.entries, after.leg.gates, entries, way)
    model.add_exactly_one(ways)


def _gated(
    model: CpModel, gates: list[Any], parts: Sequence[Block], nodes: int, way: Any
) -> None:
    if nodes > 1:
        wide = [x for x, p in zip(gates, parts, strict=True) if p.gate >= nodes]
        model.add_bool_or([*wide, way.negated()])
