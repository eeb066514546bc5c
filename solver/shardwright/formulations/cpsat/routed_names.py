"""Which node takes which interval, where links differ: intervals are given, names not.

Slots are the intervals of a placement, each for a node of one class:

    x_ns  node n takes slot s      each slot one node, each node one slot at most
    f_st  flow from slot s to t    conserved at slots, within the slot's rate
    f_st <= rate of link (a, b)    if x_as and x_bt; 0 where there is no link

Maximise what leaves the coordinator, up to the flow wanted. Flows are counted in coarse
units, rounded down: the placement is evaluated exactly afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardwright.formulations.cpsat.engine import Limits, run
from shardwright.problem.routed import SINK, SOURCE, Placement, RoutedProblem

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

_UNITS = 2_000
"""Units in the flow wanted."""
MAX_PAIRS = 300_000
"""Pairs of nodes on the two sides of a link, over all slots that meet."""


@dataclass(frozen=True)
class Slot:
    """An interval, and the nodes that may take it."""

    start: int
    layers: int
    rate: int
    nodes: tuple[int, ...]


def named(
    problem: RoutedProblem, placement: Placement, flow: int, limits: Limits
) -> dict[int, tuple[int, int]] | None:
    """The same intervals for other nodes of their classes; None if there is no answer
    in time, or the program would be too large."""
    from ortools.sat.python.cp_model import CpModel

    unit = max(1, flow // _UNITS)
    slots = _slots(problem, placement, unit)
    if _pairs(slots) > MAX_PAIRS:
        return None
    model = CpModel()
    taken = _assignment(model, slots, placement)
    total = _flows(model, problem, slots, taken, unit, flow)
    model.maximize(total)
    found = run(model, limits)
    if not found.found:
        return None
    return {
        node: (slot.start, slot.layers)
        for slot, choice in zip(slots, taken, strict=True)
        for node, x in choice.items()
        if found.value(x)
    }


def _slots(problem: RoutedProblem, placement: Placement, unit: int) -> list[Slot]:
    nodes = range(len(problem.ids))
    return [
        Slot(
            start,
            held,
            problem.rate(node, held) // unit,
            tuple(n for n in nodes if problem.class_of[n] == problem.class_of[node]),
        )
        for node, (start, held) in placement.items()
    ]


def _pairs(slots: Sequence[Slot]) -> int:
    begins: dict[int, int] = {}
    for slot in slots:
        begins[slot.start] = begins.get(slot.start, 0) + len(slot.nodes)
    return sum(len(s.nodes) * begins.get(s.start + s.layers, 0) for s in slots)


def _assignment(
    model: CpModel, slots: Sequence[Slot], placement: Placement
) -> list[dict[int, Any]]:
    taken = [{n: model.new_bool_var("") for n in slot.nodes} for slot in slots]
    by_node: dict[int, list[Any]] = {}
    for choice in taken:
        model.add_exactly_one(choice.values())
        for node, x in choice.items():
            by_node.setdefault(node, []).append(x)
    for literals in by_node.values():
        model.add_at_most_one(literals)
    for node, choice in zip(placement, taken, strict=True):
        for other, x in choice.items():
            model.add_hint(x, other == node)
    return taken


def _flows(
    model: CpModel,
    problem: RoutedProblem,
    slots: Sequence[Slot],
    taken: Sequence[Mapping[int, Any]],
    unit: int,
    flow: int,
) -> Any:
    """Rows of the flow; returns what leaves the coordinator."""
    into: list[list[Any]] = [[] for _ in slots]
    out: list[list[Any]] = [[] for _ in slots]
    wanted = -(-flow // unit)
    for s, slot in enumerate(slots):
        end = slot.start + slot.layers
        if slot.start == 0:
            into[s].append(model.new_int_var(0, slot.rate, ""))
            hops = {n: (SOURCE, n) for n in slot.nodes}
            _ended(model, problem, into[s][-1], taken[s], hops, unit)
        if end == problem.layers:
            out[s].append(model.new_int_var(0, slot.rate, ""))
            hops = {n: (n, SINK) for n in slot.nodes}
            _ended(model, problem, out[s][-1], taken[s], hops, unit)
        for t, other in enumerate(slots):
            if other.start == end:
                most = min(slot.rate, other.rate, wanted)
                part = model.new_int_var(0, most, "")
                out[s].append(part)
                into[t].append(part)
                _linked(model, problem, part, most, taken[s], taken[t], unit)
    for s, slot in enumerate(slots):
        model.add(sum(into[s]) == sum(out[s]))
        model.add(sum(into[s]) <= slot.rate)
    total = sum(into[s][0] for s, slot in enumerate(slots) if slot.start == 0)
    model.add(total <= wanted)
    return total


def _linked(
    model: CpModel,
    problem: RoutedProblem,
    part: Any,
    most: int,
    one: Mapping[int, Any],
    other: Mapping[int, Any],
    unit: int,
) -> None:
    """The link of whoever takes the two slots."""
    for a, x in one.items():
        for b, y in other.items():
            rate = problem.links.get((a, b), 0) // unit
            if a != b and rate < most:
                model.add(part <= rate).only_enforce_if(x, y)


def _ended(
    model: CpModel,
    problem: RoutedProblem,
    part: Any,
    taken: Mapping[int, Any],
    hops: Mapping[int, tuple[int, int]],
    unit: int,
) -> None:
    """The link to or from the coordinator."""
    for node, x in taken.items():
        model.add(part <= problem.links.get(hops[node], 0) // unit).only_enforce_if(x)
