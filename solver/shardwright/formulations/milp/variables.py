"""Variables of the whole problem for a MILP: the direct program without enforcement.

Every arc, hop and time is split by operating point, so that its table value is a
constant coefficient and no row needs a big M: x[o, arc] <= z[o] by the flow rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shardwright.cost.shape import StageShape
from shardwright.formulations.milp.rows import Rows, Terms, minimisation
from shardwright.formulations.milp.steps import Steps
from shardwright.formulations.ranges import Cube, StageTables
from shardwright.formulations.shape import Arc, Hop, Shape
from shardwright.problem import Problem


@dataclass(frozen=True)
class SlotAtPoint:
    """A slot at one operating point; all variables are 0 when it is not chosen.

    Hops are continuous: between two chosen arcs the flow rows leave one choice.

    ``tpot`` >= TPOT, ``prefill`` >= prefill latency; ``step`` chooses the interval of
    TPOT and ``tpot_in_step`` is the TPOT when that interval is chosen, else 0.
    """

    point: int
    chosen: Any
    arcs: dict[Arc, Any]
    hops: dict[Hop, Any]
    tpot: Any
    prefill: Any
    longest_prefill: Any
    step: tuple[Any, ...]
    tpot_in_step: tuple[Any, ...]

    def covering(self, layer: int) -> list[Arc]:
        """Arcs that hold a layer; exactly one is chosen."""
        return [arc for arc in self.arcs if arc.covers(layer)]


@dataclass(frozen=True)
class Slot:
    """One replica that may exist.

    ``rate`` and ``wait`` are continuous: engines would branch for ever on integers of
    this size, and the exact evaluation of every answer rounds them.
    """

    active: Any
    at: tuple[SlotAtPoint, ...]
    shape: dict[StageShape, Any]
    wait: Any
    rate: Any

    def arcs(self) -> Iterable[tuple[SlotAtPoint, Arc, Any]]:
        """All arc variables with their point."""
        return ((s, arc, x) for s in self.at for arc, x in s.arcs.items())


@dataclass
class Program(Rows):
    """The rows of the whole problem, with what its rules read."""

    problem: Problem
    tables: StageTables
    shape: Shape
    steps: Steps
    slots: tuple[Slot, ...] = ()
    worst_tpot: Any = None
    worst_ttft: Any = None

    def value(self, table: Cube, point: int, arc: Arc) -> int:
        """Table entry of an arc."""
        return table[point][arc.unit][arc.start][arc.end]

    def gpus(self, arc: Arc) -> int:
        """GPUs of an arc."""
        return self.problem.units[arc.unit].gpus

    def shape_of(self, arc: Arc) -> StageShape:
        """Parallel shape of an arc's unit."""
        return self.problem.units[arc.unit].shape

    def used_gpus(self, slot: Slot) -> Terms:
        """GPUs of a slot."""
        return [(x, self.gpus(arc)) for _, arc, x in slot.arcs()]

    def cost(self, slot: Slot) -> Terms:
        """Price of a slot, micro-USD per hour."""
        classes, units = self.problem.classes, self.problem.units
        return [
            (
                x,
                self.gpus(arc)
                * classes[units[arc.unit].gpu_class].price_micro_usd_per_hour,
            )
            for _, arc, x in slot.arcs()
        ]

    def goal(self, name: str) -> Terms:
        """The goal as an expression to minimise (throughput negated)."""
        if name == "tpot":
            return [(self.worst_tpot, 1)]
        if name == "ttft":
            return [(self.worst_ttft, 1)]
        if name == "throughput":
            return [(slot.rate, -1) for slot in self.slots]
        part = self.used_gpus if name == "gpus" else self.cost
        return [term for slot in self.slots for term in part(slot)]


def declare(problem: Problem, steps: Steps) -> Program | None:
    """All variables, no rule; None when not one replica could exist."""
    tables = StageTables(problem)
    shape = Shape(problem, tables)
    if not shape.slots:
        return None
    shape.check_size()
    program = Program(minimisation("fleet"), problem, tables, shape, steps)
    program.slots = tuple(_slot(program, r) for r in range(shape.slots))
    top = shape.tpot_ceiling_ns
    program.worst_tpot = program.number("worst_tpot", top)
    program.worst_ttft = program.number("worst_ttft", top + shape.prefill_ceiling_ns)
    return program


def _slot(program: Program, r: int) -> Slot:
    shape = program.shape
    shapes = sorted({program.problem.units[a.unit].shape for a in shape.arcs})
    points = range(len(program.problem.points))
    return Slot(
        program.binary(f"active_{r}"),
        tuple(_at_point(program, r, o) for o in points),
        {s: program.binary(f"shape_{r}_{i}") for i, s in enumerate(shapes)},
        program.number(f"wait_{r}", shape.tpot_ceiling_ns),
        program.number(f"rate_{r}", shape.rate_ceiling()),
    )


def _at_point(program: Program, r: int, o: int) -> SlotAtPoint:
    shape, name = program.shape, f"{r}_{o}"
    tpot, prefill = shape.tpot_ceiling_ns, shape.prefill_ceiling_ns
    arcs = [
        arc
        for arc in shape.arcs
        if program.tables.allowed(o, arc.unit, arc.start, arc.end)
    ]
    steps = range(len(program.steps.intervals(o)))
    return SlotAtPoint(
        o,
        program.binary(f"point_{name}"),
        {a: program.binary(_indexed(f"arc_{name}", a)) for a in arcs},
        {h: program.number(_indexed(f"hop_{name}", h), 1) for h in shape.hops},
        program.number(f"tpot_{name}", tpot),
        program.number(f"prefill_{name}", prefill),
        program.number(f"longest_{name}", prefill),
        tuple(program.binary(f"step_{name}_{k}") for k in steps),
        tuple(program.number(f"inside_{name}_{k}", tpot) for k in steps),
    )


def _indexed(kind: str, parts: Sequence[int]) -> str:
    return "_".join([kind, *map(str, parts)])
