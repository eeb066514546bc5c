"""The direct program: build the model of the whole problem, read a fleet from it."""

from __future__ import annotations

from collections.abc import Callable

from shardwright.formulations.cpsat import constraints as rules
from shardwright.formulations.cpsat.variables import Program, Slot, declare
from shardwright.formulations.shape import Needs, place
from shardwright.problem import Fleet, PlacedReplica, Problem

_STRUCTURE: tuple[Callable[[Program], None], ...] = (
    rules.one_point,
    rules.layers_covered,
    rules.stage_inside_island,
    rules.gpu_used_once,
    rules.equal_shape_per_stage,
    rules.micro_batches_equal_stages,
    rules.max_pipeline_stages,
    rules.fix,
    rules.memory_fits,
    rules.memory_imbalance,
    rules.compute_imbalance,
    rules.communication_share,
    rules.spare_gpus,
    rules.max_gpus,
    rules.max_cost_usd_per_hour,
    rules.equal_slots_ordered,
    rules.equal_islands_ordered,
)
_TPOT = (rules.bottleneck, rules.tpot, rules.tpot_limit)
_RATE = (rules.rate, rules.request_rate)
_PREFILL = (
    rules.wait,
    rules.prefill_latency,
    rules.prefill_limit,
    rules.ttft_limit,
    rules.e2e_limit,
)


def build(problem: Problem) -> Program | None:
    """The model with every rule; None when not one replica could exist."""
    from ortools.sat.python.cp_model import CpModel

    program = declare(CpModel(), problem)
    if program is None:
        return None
    needs = Needs.of(problem)
    chosen = [*_STRUCTURE]
    chosen += _TPOT if needs.tpot else ()
    chosen += _RATE if needs.rate else ()
    chosen += _PREFILL if needs.prefill else ()
    for rule in chosen:
        rule(program)
    return program


def decode(program: Program, value: Callable[[object], int]) -> Fleet:
    """The fleet that the values of a solution describe."""
    active = [s for s in program.slots if value(s.active)]
    return Fleet(tuple(_replica(program, s, value) for s in active))


def _replica(
    program: Program, slot: Slot, value: Callable[[object], int]
) -> PlacedReplica:
    path = sorted(arc for arc, x in slot.arcs.items() if value(x))
    point = next(o for o, z in enumerate(slot.point) if value(z))
    return place(program.shape, point, path)
