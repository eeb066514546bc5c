"""The MILP of the whole problem: build it, read a fleet from it."""

from __future__ import annotations

from collections.abc import Callable

from shardwright.formulations.milp import constraints as rules
from shardwright.formulations.milp.engine import EngineRun
from shardwright.formulations.milp.steps import Steps
from shardwright.formulations.milp.variables import Program, declare
from shardwright.formulations.shape import Needs, Shape, place
from shardwright.problem import Fleet, Problem

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
_TPOT = (rules.tpot, rules.tpot_limit)
_RATE = (rules.rate, rules.request_rate)
_PREFILL = (
    rules.wait,
    rules.prefill_latency,
    rules.prefill_limit,
    rules.ttft_limit,
    rules.e2e_limit,
)


def build(problem: Problem, steps: Steps) -> Program | None:
    """The program with every rule; None when not one replica could exist."""
    program = declare(problem, steps)
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


def first_steps(problem: Problem, shape: Shape) -> Steps:
    """Intervals of TPOT to begin with; one each when no rate is read."""
    steps = Steps.of(shape)
    if not Needs.of(problem).rate:
        steps.starts = [starts[:1] for starts in steps.starts]
    return steps


def decode(program: Program, run: EngineRun) -> Fleet:
    """The fleet that the values of a solution describe."""
    replicas = []
    for slot in program.slots:
        chosen = [at for at in slot.at if run.value(at.chosen)]
        if chosen:
            (at,) = chosen
            path = sorted(arc for arc, x in at.arcs.items() if run.value(x))
            replicas.append(place(program.shape, at.point, path))
    return Fleet(tuple(replicas))


def claimed_rates(program: Program, run: EngineRun) -> list[float]:
    """Rates of the active slots as the program counts them."""
    return [
        program.amount(slot.rate, run.values)
        for slot in program.slots
        if run.value(slot.active)
    ]


def chosen_arcs(program: Program, run: EngineRun) -> list[str]:
    """Names of the arc variables at one."""
    return [x.name for slot in program.slots for _, _, x in slot.arcs() if run.value(x)]
