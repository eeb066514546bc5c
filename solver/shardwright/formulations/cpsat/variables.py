"""Variables of the whole problem: what every replica slot decides.

A slot is a replica that may exist. Its layers are a path 0 = l0 < l1 < ... = L of
arcs (start, end, unit, island); a hop joins two consecutive arcs at their boundary,
on one island or between two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardwright.cost.shape import StageShape
from shardwright.formulations.ranges import StageTables
from shardwright.formulations.shape import Arc, Hop, Shape
from shardwright.problem import Problem

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel, IntVar, LinearExprT


@dataclass(frozen=True)
class Slot:
    """Variables of one replica slot; all are 0 when it is not active.

    ``bottleneck`` >= T, ``tpot`` >= TPOT, ``longest_prefill`` >= max sigma,
    ``prefill`` >= prefill latency, ``wait`` >= wait, ``rate`` <= rate: every rule and
    goal is monotone in them, so the values of an optimum are the exact ones.
    """

    active: IntVar
    point: tuple[IntVar, ...]
    arcs: dict[Arc, IntVar]
    hops: dict[Hop, IntVar]
    shape: dict[StageShape, IntVar]
    bottleneck: IntVar
    tpot: IntVar
    longest_prefill: IntVar
    prefill: IntVar
    wait: IntVar
    rate: IntVar

    def covering(self, layer: int) -> list[Arc]:
        """Arcs that hold a layer; exactly one is chosen in an active slot."""
        return [arc for arc in self.arcs if arc.covers(layer)]

    def literals(self, arcs: Iterable[Arc]) -> list[IntVar]:
        """Variables of some arcs."""
        return [self.arcs[arc] for arc in arcs]

    def variables(self) -> list[IntVar]:
        """All of them."""
        numbers = (
            self.bottleneck,
            self.tpot,
            self.longest_prefill,
            self.prefill,
            self.wait,
            self.rate,
        )
        return [
            self.active,
            *self.point,
            *self.arcs.values(),
            *self.hops.values(),
            *self.shape.values(),
            *numbers,
        ]


@dataclass(frozen=True)
class Program:
    """A CP-SAT model under construction, with what its rules read."""

    model: CpModel
    problem: Problem
    tables: StageTables
    shape: Shape
    slots: tuple[Slot, ...]
    worst_tpot: IntVar
    worst_ttft: IntVar

    def used_gpus(self, slot: Slot) -> LinearExprT:
        """GPUs of a slot."""
        units = self.problem.units
        return weighted(slot.arcs.values(), [units[a.unit].gpus for a in slot.arcs])

    def goal(self, name: str) -> LinearExprT:
        """The goal as an expression (docs: search/goals.py)."""
        if name == "tpot":
            return self.worst_tpot
        if name == "ttft":
            return self.worst_ttft
        if name == "gpus":
            return sum(self.used_gpus(slot) for slot in self.slots)
        if name == "cost":
            return sum(self.cost(slot) for slot in self.slots)
        return weighted([slot.rate for slot in self.slots], [1] * len(self.slots))

    def cost(self, slot: Slot) -> LinearExprT:
        """Price of a slot, micro-USD per hour."""
        prices = []
        for arc in slot.arcs:
            unit = self.problem.units[arc.unit]
            price = self.problem.classes[unit.gpu_class].price_micro_usd_per_hour
            prices.append(unit.gpus * price)
        return weighted(slot.arcs.values(), prices)


def weighted(variables: Iterable[IntVar], weights: Sequence[int]) -> LinearExprT:
    """Sum of weight times variable."""
    from ortools.sat.python.cp_model import LinearExpr

    return LinearExpr.weighted_sum(list(variables), list(weights))


def declare(model: CpModel, problem: Problem) -> Program | None:
    """All variables, no rule; None when not one replica could exist."""
    tables = StageTables(problem)
    shape = Shape(problem, tables)
    if not shape.slots:
        return None
    shape.check_size()
    slots = tuple(_slot(model, shape, r) for r in range(shape.slots))
    tpot, prefill = shape.tpot_ceiling_ns, shape.prefill_ceiling_ns
    return Program(
        model,
        problem,
        tables,
        shape,
        slots,
        model.new_int_var(0, tpot, "worst_tpot"),
        model.new_int_var(0, tpot + prefill, "worst_ttft"),
    )


def _slot(model: CpModel, shape: Shape, r: int) -> Slot:
    tpot, prefill = shape.tpot_ceiling_ns, shape.prefill_ceiling_ns
    shapes = sorted({shape.problem.units[a.unit].shape for a in shape.arcs})
    points = range(len(shape.problem.points))
    return Slot(
        model.new_bool_var(f"active_{r}"),
        tuple(model.new_bool_var(f"point_{r}_{o}") for o in points),
        {arc: model.new_bool_var(_name("arc", r, arc)) for arc in shape.arcs},
        {hop: model.new_bool_var(_name("hop", r, hop)) for hop in shape.hops},
        {s: model.new_bool_var(f"shape_{r}_{i}") for i, s in enumerate(shapes)},
        model.new_int_var(0, tpot, f"bottleneck_{r}"),
        model.new_int_var(0, tpot, f"tpot_{r}"),
        model.new_int_var(0, prefill, f"longest_prefill_{r}"),
        model.new_int_var(0, prefill, f"prefill_{r}"),
        model.new_int_var(0, tpot, f"wait_{r}"),
        model.new_int_var(0, shape.rate_ceiling(), f"rate_{r}"),
    )


def _name(kind: str, r: int, parts: tuple[int, ...]) -> str:
    return "_".join([kind, str(r), *map(str, parts)])
