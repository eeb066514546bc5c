"""The rules of the whole problem, one function each, named as in the documents.

Notation: r slot, o point, x[o, arc], h[o, hop], z[o] point, a active. Rows between
integers are relaxed by half a unit, which no integer point can use.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from shardwright.formulations.milp.rows import Terms, negated, scaled
from shardwright.formulations.milp.variables import Program, Slot, SlotAtPoint
from shardwright.formulations.ranges import Cube
from shardwright.formulations.shape import Arc
from shardwright.problem import IntArray

_QUARTER = 0.25
"""Of a ns: keeps an interval's ends off the tolerances, and intervals apart."""

_NOISE = 1e-6
"""More than the rounding of a chord's coefficients, in thousandths of a token/s."""


def one_point(p: Program) -> None:
    """sum_o z[o] = a."""
    for s in p.slots:
        p.equal([*((at.chosen, 1.0) for at in s.at), (s.active, -1)], 0, "one_point")


def layers_covered(p: Program) -> None:
    """sum of x[o] over the arcs that hold layer l = z[o], for every layer."""
    for s in p.slots:
        for at in s.at:
            for layer in range(p.problem.layers):
                terms: Terms = [(at.arcs[a], 1) for a in at.covering(layer)]
                p.equal([*terms, (at.chosen, -1)], 0, "layers_covered")


def stage_inside_island(p: Program) -> None:
    """Arcs that end at (boundary, v) leave by hops from v; arcs that start at
    (boundary, w) are entered by hops to w. An arc lies on one island."""
    for s in p.slots:
        for at in s.at:
            for boundary in range(1, p.problem.layers):
                for v in range(len(p.shape.homes)):
                    _through(p, at, boundary, v)


def _through(p: Program, at: SlotAtPoint, boundary: int, v: int) -> None:
    here = (boundary, v)
    ends = [x for a, x in at.arcs.items() if (a.end, a.island) == here]
    begins = [x for a, x in at.arcs.items() if (a.start, a.island) == here]
    leave = [h for hop, h in at.hops.items() if hop[:2] == here]
    enter = [h for hop, h in at.hops.items() if (hop.boundary, hop.receiver) == here]
    for arcs, hops in ((ends, leave), (begins, enter)):
        if arcs or hops:
            terms: Terms = [(x, 1) for x in arcs]
            p.equal([*terms, *((h, -1) for h in hops)], 0, "stage_inside_island")


def gpu_used_once(p: Program) -> None:
    """sum_r sum_{x on v} t x <= free_v, for every named island v."""
    for v, island in enumerate(p.problem.islands):
        p.whole_at_most(_used_on(p, v), island.free, "gpu_used_once")


def _used_on(p: Program, island: int) -> Terms:
    return [
        (x, used)
        for s in p.slots
        for _, arc, x in s.arcs()
        if (used := p.shape.used_on(arc, island))
    ]


def equal_shape_per_stage(p: Program) -> None:
    """sum of x of shape t over the arcs that hold layer l = y_t; sum_t y_t = a.
    Without the rule the first holds for disaggregated shapes alone."""
    tied = p.problem.rules.equal_shape_per_stage
    for s in p.slots:
        shapes: Terms = [(y, 1) for y in s.shape.values()]
        if tied:
            p.equal([*shapes, (s.active, -1)], 0, "equal_shape_per_stage")
        for layer in range(p.problem.layers):
            for shape, y in s.shape.items():
                if not (tied or shape.disaggregated):
                    continue
                terms: Terms = [
                    (x, 1)
                    for _, arc, x in s.arcs()
                    if arc.covers(layer) and p.shape_of(arc) == shape
                ]
                p.equal([*terms, (y, -1)], 0, "equal_shape_per_stage")


def micro_batches_equal_stages(p: Program) -> None:
    """sum x[o] = q_o z[o]."""
    if p.problem.rules.micro_batches_equal_stages:
        for s in p.slots:
            for at in s.at:
                q = p.problem.points[at.point].micro_batches
                row = [*_stages(at), (at.chosen, -q)]
                p.equal(row, 0, "micro_batches_equal_stages")


def max_pipeline_stages(p: Program) -> None:
    """sum x[o] <= max_pipeline_stages z[o]."""
    for s in p.slots:
        for at in s.at:
            row = [*_stages(at), (at.chosen, -p.problem.max_stages)]
            p.at_most(row, 0, "max_pipeline_stages")


def fix(p: Program) -> None:
    """sum x[o] = pp z[o]; sum_r a = dp. Fixed layers are in the index set of arcs."""
    b = p.problem.bounds
    for s in p.slots:
        for at in s.at:
            if b.stages is not None:
                p.equal([*_stages(at), (at.chosen, -b.stages)], 0, "fix_pp")
    active: Terms = [(s.active, 1) for s in p.slots]
    if b.replicas is not None:
        p.equal(active, b.replicas, "fix_dp")
    p.at_most(negated(active), -1, "one_replica")


def _stages(at: SlotAtPoint) -> Terms:
    return [(x, 1) for x in at.arcs.values()]


def memory_fits(p: Program) -> None:
    """Arcs whose stage alone breaks memory (or q tau <= the TPOT limit) at o are not
    in the index set of (slot, o): see ``variables.declare``."""


def tpot(p: Program) -> None:
    """TPOT[o] >= q_o sum over the arcs that hold layer l of tau x[o], for every l;
    TPOT[o] >= S = sum tau x + sum eta h + eta_r [p > 1]; worst TPOT >= each."""
    for s in p.slots:
        for at in s.at:
            q = p.problem.points[at.point].micro_batches
            longest = _maxima(p, at, p.tables.decode, q)
            loop = [*stage_sum(p, at, p.tables.decode), *round_trip(p, at)]
            for left in (*longest, loop):
                p.at_most([*left, (at.tpot, -1)], 0, "tpot")
        every: Terms = [(at.tpot, 1) for at in s.at]
        p.at_most([*every, (p.worst_tpot, -1)], 0, "worst_tpot")


def _maxima(p: Program, at: SlotAtPoint, table: Cube, factor: int) -> list[Terms]:
    return [
        [(at.arcs[a], factor * p.value(table, at.point, a)) for a in at.covering(layer)]
        for layer in range(p.problem.layers)
    ]


def stage_sum(p: Program, at: SlotAtPoint, table: Cube) -> Terms:
    """sum of table x[o] over all arcs."""
    return [(x, p.value(table, at.point, arc)) for arc, x in at.arcs.items()]


def round_trip(p: Program, at: SlotAtPoint) -> Terms:
    """sum eta h + eta_r [p > 1]; p > 1 unless the arc (0, L) is chosen."""
    t, whole = p.problem.tables, (0, p.problem.layers)
    alone = [(x, -t.return_ns) for arc, x in at.arcs.items() if arc[:2] == whole]
    hops = hop_sum(p, at, t.hop_intra, t.hop_inter)
    return [*hops, (at.chosen, t.return_ns), *alone]


def hop_sum(p: Program, at: SlotAtPoint, intra: IntArray, inter: IntArray) -> Terms:
    """sum of hop time times h[o]."""
    return [
        (h, p.shape.hop_time(hop, at.point, intra, inter)) for hop, h in at.hops.items()
    ]


def tpot_limit(p: Program) -> None:
    """TPOT[o] <= limit."""
    limit = p.problem.bounds.tpot_ns
    if limit is not None:
        for s in p.slots:
            for at in s.at:
                p.whole_at_most([(at.tpot, 1)], limit, "tpot_limit")


def prefill_latency(p: Program) -> None:
    """Pi[o] >= sum sigma x + sum theta h + (K_o - 1) max sigma; worst TTFT >= wait
    + Pi."""
    t = p.problem.tables
    for s in p.slots:
        for at in s.at:
            repeats = p.problem.points[at.point].chunk_count - 1
            for left in _maxima(p, at, p.tables.prefill, 1):
                p.at_most([*left, (at.longest_prefill, -1)], 0, "longest_prefill")
            total: Terms = [
                *stage_sum(p, at, p.tables.prefill),
                *hop_sum(p, at, t.prefill_hop_intra, t.prefill_hop_inter),
                (at.longest_prefill, repeats),
                (at.prefill, -1),
            ]
            p.at_most(total, 0, "prefill_latency")
        p.at_most([*first_token(s), (p.worst_ttft, -1)], 0, "worst_ttft")


def first_token(s: Slot) -> Terms:
    """TTFT of a slot: wait + sum_o Pi[o]."""
    return [(s.wait, 1), *((at.prefill, 1.0) for at in s.at)]


def wait(p: Program) -> None:
    """wait >= sum_o TPOT[o] / (2 q_o). Where nothing else is rounded, ceil(wait) + Pi
    <= limit is wait + Pi <= limit, for integers Pi and limit. The right side is a
    multiple of 1/(2 q): a quarter of that is no ground for another ns."""
    q = [point.micro_batches for point in p.problem.points]
    for s in p.slots:
        row: Terms = [(at.tpot, 1 / (2 * q[at.point])) for at in s.at]
        p.at_most([*row, (s.wait, -1)], wait_grain(p) / 4, "wait")


def wait_grain(p: Program) -> float:
    """1/(2 q) for the largest q: TPOT / (2 q) is never closer to an integer."""
    return 1 / (2 * max(point.micro_batches for point in p.problem.points))


def prefill_limit(p: Program) -> None:
    """Pi[o] <= limit."""
    limit = p.problem.bounds.prefill_ns
    if limit is not None:
        for s in p.slots:
            for at in s.at:
                p.whole_at_most([(at.prefill, 1)], limit, "prefill_limit")


def ttft_limit(p: Program) -> None:
    """wait + Pi <= limit."""
    limit = p.problem.bounds.ttft_ns
    if limit is not None:
        for s in p.slots:
            p.at_most(first_token(s), limit + wait_grain(p) / 4, "ttft_limit")


def e2e_limit(p: Program) -> None:
    """ceil(wait) + Pi + ceil((O - 1) TPOT) <= limit. Relaxed to wait + Pi + (O - 1)
    TPOT <= limit, less than 2 ns off: who uses them is excluded by name. (Integers of
    10^7 in their place make CBC prove wrong optima.)"""
    limit = p.problem.bounds.e2e_ns
    if limit is None:
        return
    rest = p.problem.output_mean - 1
    for s in p.slots:
        decode: Terms = [(at.tpot, float(rest)) for at in s.at]
        p.whole_at_most([*decode, *first_token(s)], limit, "e2e_limit")


def rate(p: Program) -> None:
    """For the interval k = [a, b] of TPOT chosen by y[o, k]: a y <= TPOT[o, k] <= b y,
    rate <= sum floor(rate(a)) y, rate <= sum chord_ab(TPOT[o, k])."""
    for s in p.slots:
        first: list[tuple[object, float]] = [(s.rate, 1)]
        chords: list[tuple[object, float]] = [(s.rate, 1)]
        for at in s.at:
            _one_step(p, at)
            for k, (a, b) in enumerate(p.steps.intervals(at.point)):
                y, tpot_here = at.step[k], at.tpot_in_step[k]
                p.at_most([(y, a - _QUARTER), (tpot_here, -1)], 0, "step_start")
                p.at_most([(tpot_here, 1), (y, -b - _QUARTER)], 0, "step_end")
                intercept, slope = p.steps.chord(at.point, (a, b))
                first.append((y, -p.steps.rate_at(at.point, a)))
                chords += [(y, -intercept), (tpot_here, slope)]
        p.at_most(first, 0, "rate_of_step")
        p.at_most(chords, _NOISE, "rate_of_chord")


def _one_step(p: Program, at: SlotAtPoint) -> None:
    steps: Terms = [(y, 1) for y in at.step]
    parts: Terms = [(t, 1) for t in at.tpot_in_step]
    p.equal([*steps, (at.chosen, -1)], 0, "one_step")
    p.equal([*parts, (at.tpot, -1)], 0, "tpot_in_step")


def request_rate(p: Program) -> None:
    """sum_r rate >= request rate."""
    limit = p.problem.bounds.rate_mtok_per_s
    if limit is not None:
        p.whole_at_most(p.goal("throughput"), -limit, "request_rate")


def memory_imbalance(p: Program) -> None:
    """max mem G <= (1 + delta) sum t mem."""
    tables, tolerance = p.tables, p.problem.bounds.memory_imbalance
    _imbalance(p, tables.memory, tables.memory_of_all, tolerance, "memory")


def compute_imbalance(p: Program) -> None:
    """T G <= (1 + delta) sum t tau."""
    tolerance = p.problem.bounds.compute_imbalance
    _imbalance(p, p.tables.decode, None, tolerance, "compute")


def _imbalance(
    p: Program,
    table: Cube,
    sums: Cube | None,
    tolerance: Fraction | None,
    name: str,
) -> None:
    """For every number g of GPUs and every layer l, with w_g = [G = g]:
    g d max_l <= (d + n) sum t v + (1 - w_g) g d top; the last term is the only big M
    of the program, and ``top`` is the largest table entry."""
    if tolerance is None:
        return
    whole, most = 1 + tolerance, max(p.problem.usable_gpus, 0)
    points = range(len(p.problem.points))
    top = max(p.value(table, o, a) for o in points for a in p.shape.arcs)
    for r, s in enumerate(p.slots):
        sizes = _sizes(p, s, f"{name}_{r}", most)
        for at in s.at:
            total: Terms = [
                (x, _of_stage(p, table, sums, at.point, arc))
                for arc, x in at.arcs.items()
            ]
            right = scaled(total, -float(whole))
            slack = 1 / (2 * whole.denominator)
            for g, chosen in sizes.items():
                for left in _maxima(p, at, table, g):
                    row = [*left, *right, (chosen, g * top)]
                    p.at_most(row, g * top + slack, f"{name}_imbalance")


def _of_stage(p: Program, table: Cube, sums: Cube | None, o: int, arc: Arc) -> int:
    """Over the GPUs of a stage: ``sums`` where they differ, else t v."""
    if sums is not None:
        return p.value(sums, o, arc)
    return p.gpus(arc) * p.value(table, o, arc)


def _sizes(p: Program, s: Slot, name: str, most: int) -> dict[int, object]:
    """w_g = [the slot uses g GPUs], for g >= 1."""
    sizes = {g: p.binary(f"size_{name}_{g}") for g in range(1, most + 1)}
    used: Terms = [(w, -g) for g, w in sizes.items()]
    p.equal([*p.used_gpus(s), *used], 0, "size")
    p.equal([*((w, 1.0) for w in sizes.values()), (s.active, -1)], 0, "one_size")
    return dict(sizes)


def communication_share(p: Program) -> None:
    """sum (comm - phi tau) x + (1 - phi) (sum eta h + eta_r [p > 1]) <= 0: a multiple
    of 1/d on the left, for phi = n/d."""
    share = p.problem.bounds.communication_share
    if share is None:
        return
    for s in p.slots:
        for at in s.at:
            comm = stage_sum(p, at, p.tables.comm)
            tau = scaled(stage_sum(p, at, p.tables.decode), -float(share))
            hops = scaled(round_trip(p, at), 1 - float(share))
            slack = 1 / (2 * share.denominator)
            p.at_most([*comm, *tau, *hops], slack, "communication_share")


def spare_gpus(p: Program) -> None:
    """sum t x <= GPUs - spare_gpus."""
    total = sum(k.free_gpus for k in p.problem.classes)
    row = total - p.problem.bounds.spare_gpus
    p.whole_at_most(p.goal("gpus"), row, "spare_gpus")


def max_gpus(p: Program) -> None:
    """sum t x <= max_gpus."""
    if p.problem.bounds.max_gpus is not None:
        p.whole_at_most(p.goal("gpus"), p.problem.bounds.max_gpus, "max_gpus")


def max_cost_usd_per_hour(p: Program) -> None:
    """sum price t x <= budget."""
    budget = p.problem.bounds.max_cost_micro_usd_per_hour
    if budget is not None:
        p.whole_at_most(p.goal("cost"), budget, "max_cost_usd_per_hour")


def equal_slots_ordered(p: Program) -> None:
    """(G, point) does not grow from a slot to the next: replicas have no names."""
    step = len(p.problem.points) + 1
    for left, right in pairwise(p.slots):
        row = [*_slot_key(p, right, step), *negated(_slot_key(p, left, step))]
        p.whole_at_most(row, 0, "equal_slots_ordered")


def _slot_key(p: Program, s: Slot, step: int) -> Terms:
    points: Terms = [(at.chosen, at.point + 1) for at in s.at]
    return [*scaled(p.used_gpus(s), step), *points]


def equal_islands_ordered(p: Program) -> None:
    """Islands of one class and size fill in their order: they have no names either."""
    for group in p.problem.island_types.values():
        for left, right in pairwise(group):
            row = [*_used_on(p, right), *negated(_used_on(p, left))]
            p.whole_at_most(row, 0, "equal_islands_ordered")
