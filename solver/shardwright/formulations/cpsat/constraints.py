"""The rules of the whole problem, one function each, named as in the documents.

Notation: r slot, o point, x arc, h hop, z_o point literal, a active; tau, sigma,
comm, mem are the tables at point o; "given z_o" is an enforced row.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from shardwright.cost.shape import StageShape
from shardwright.formulations.cpsat.variables import Program, Slot, weighted
from shardwright.formulations.ranges import Cube
from shardwright.formulations.shape import Arc
from shardwright.problem import IntArray

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import IntVar, LinearExprT


def one_point(p: Program) -> None:
    """sum_o z_o = a."""
    for s in p.slots:
        p.model.add(weighted(s.point, [1] * len(s.point)) == s.active)


def layers_covered(p: Program) -> None:
    """sum of x over the arcs that hold layer l = a, for every layer."""
    for s in p.slots:
        for layer in range(p.problem.layers):
            arcs = s.literals(s.covering(layer))
            p.model.add(weighted(arcs, [1] * len(arcs)) == s.active)


def stage_inside_island(p: Program) -> None:
    """Arcs that end at (boundary, v) leave by hops from v; arcs that start at
    (boundary, w) are entered by hops to w. An arc lies on one island."""
    for s in p.slots:
        for boundary in range(1, p.problem.layers):
            for v in range(len(p.shape.homes)):
                ends = [
                    x for a, x in s.arcs.items() if (a.end, a.island) == (boundary, v)
                ]
                begins = [
                    x for a, x in s.arcs.items() if (a.start, a.island) == (boundary, v)
                ]
                leave = [x for h, x in s.hops.items() if h[:2] == (boundary, v)]
                enter = [
                    x for h, x in s.hops.items() if (h[0], h.receiver) == (boundary, v)
                ]
                _equal_sums(p, ends, leave)
                _equal_sums(p, begins, enter)


def _equal_sums(p: Program, left: list[IntVar], right: list[IntVar]) -> None:
    if left or right:
        weights = [1] * len(left) + [-1] * len(right)
        p.model.add(weighted([*left, *right], weights) == 0)


def gpu_used_once(p: Program) -> None:
    """sum_r sum_{x on v} t x <= free_v, for every named island v."""
    for v, island in enumerate(p.problem.islands):
        p.model.add(_used_on(p, v) <= island.free)


def equal_shape_per_stage(p: Program) -> None:
    """sum of x of shape t over the arcs that hold layer l = y_t; sum_t y_t = a.
    Without the rule the first holds for disaggregated shapes alone, y_t = 0 of others.
    """
    tied = p.problem.rules.equal_shape_per_stage
    for s in p.slots:
        if tied:
            p.model.add(weighted(s.shape.values(), [1] * len(s.shape)) == s.active)
        for shape, y in s.shape.items():
            if tied or shape.disaggregated:
                _in_every_layer(p, s, shape, y)
            else:
                p.model.add(y == 0)


def _in_every_layer(p: Program, s: Slot, shape: StageShape, y: IntVar) -> None:
    units = p.problem.units
    for layer in range(p.problem.layers):
        arcs = [a for a in s.covering(layer) if units[a.unit].shape == shape]
        _equal_sums(p, s.literals(arcs), [y])


def micro_batches_equal_stages(p: Program) -> None:
    """sum x = sum_o q_o z_o."""
    if not p.problem.rules.micro_batches_equal_stages:
        return
    q = [point.micro_batches for point in p.problem.points]
    for s in p.slots:
        p.model.add(_stages(s) == weighted(s.point, q))


def max_pipeline_stages(p: Program) -> None:
    """sum x <= max_pipeline_stages."""
    for s in p.slots:
        p.model.add(_stages(s) <= p.problem.max_stages)


def fix(p: Program) -> None:
    """sum x = pp a; sum_r a = dp. Fixed layers are in the index set of the arcs."""
    b = p.problem.bounds
    active = [s.active for s in p.slots]
    if b.stages is not None:
        for s in p.slots:
            p.model.add(_stages(s) == b.stages * s.active)
    if b.replicas is not None:
        p.model.add(weighted(active, [1] * len(active)) == b.replicas)
    p.model.add_bool_or(active)


def _stages(s: Slot) -> LinearExprT:
    return weighted(s.arcs.values(), [1] * len(s.arcs))


def memory_fits(p: Program) -> None:
    """x = 0 given z_o for every arc whose stage alone breaks memory (or q tau <=
    the TPOT limit) at o."""
    for s in p.slots:
        for o, z in enumerate(s.point):
            broken = [
                ~x
                for a, x in s.arcs.items()
                if not p.tables.allowed(o, a.unit, a.start, a.end)
            ]
            if broken:
                p.model.add_bool_and(broken).only_enforce_if(z)


def bottleneck(p: Program) -> None:
    """T >= sum over the arcs that hold layer l of tau x, given z_o."""
    for s in p.slots:
        _maximum(p, s, p.tables.decode, s.bottleneck)


def _maximum(p: Program, s: Slot, table: Cube, variable: IntVar) -> None:
    for o, z in enumerate(s.point):
        for layer in range(p.problem.layers):
            arcs = s.covering(layer)
            values = [_at(table, o, a) for a in arcs]
            row = weighted(s.literals(arcs), values) <= variable
            p.model.add(row).only_enforce_if(z)


def _at(table: Cube, point: int, arc: Arc) -> int:
    return table[point][arc.unit][arc.start][arc.end]


def tpot(p: Program) -> None:
    """TPOT >= q_o T and TPOT >= S = sum tau x + sum eta h + eta_r [p > 1], given z_o;
    the worst TPOT is at least every slot's."""
    for s in p.slots:
        for o, z in enumerate(s.point):
            q = p.problem.points[o].micro_batches
            p.model.add(s.tpot >= q * s.bottleneck).only_enforce_if(z)
            loop = stage_sum(p, s, p.tables.decode, o) + round_trip(p, s, o)
            p.model.add(s.tpot >= loop).only_enforce_if(z)
        p.model.add(p.worst_tpot >= s.tpot)


def stage_sum(p: Program, s: Slot, table: Cube, point: int) -> LinearExprT:
    """sum of table x over all arcs."""
    return weighted(s.arcs.values(), [_at(table, point, a) for a in s.arcs])


def round_trip(p: Program, s: Slot, point: int) -> LinearExprT:
    """sum eta h + eta_r [p > 1]; p > 1 unless the arc (0, L) is chosen."""
    whole = [x for a, x in s.arcs.items() if a[:2] == (0, p.problem.layers)]
    t = p.problem.tables
    hops = hop_sum(p, s, point, t.hop_intra, t.hop_inter)
    back = [t.return_ns] + [-t.return_ns] * len(whole)
    return hops + weighted([s.active, *whole], back)


def hop_sum(
    p: Program, s: Slot, point: int, intra: IntArray, inter: IntArray
) -> LinearExprT:
    """sum of hop time times h."""
    times = [p.shape.hop_time(hop, point, intra, inter) for hop in s.hops]
    return weighted(s.hops.values(), times)


def tpot_limit(p: Program) -> None:
    """TPOT <= limit."""
    limit = p.problem.bounds.tpot_ns
    if limit is not None:
        for s in p.slots:
            p.model.add(s.tpot <= limit)


def prefill_latency(p: Program) -> None:
    """Pi >= sum sigma x + sum theta h + (K_o - 1) max sigma, given z_o; max sigma
    like T; worst TTFT >= wait + Pi."""
    t = p.problem.tables
    for s in p.slots:
        _maximum(p, s, p.tables.prefill, s.longest_prefill)
        for o, z in enumerate(s.point):
            repeats = p.problem.points[o].chunk_count - 1
            hops = hop_sum(p, s, o, t.prefill_hop_intra, t.prefill_hop_inter)
            total = stage_sum(p, s, p.tables.prefill, o) + hops
            row = s.prefill >= total + repeats * s.longest_prefill
            p.model.add(row).only_enforce_if(z)
        p.model.add(p.worst_ttft >= s.wait + s.prefill)


def wait(p: Program) -> None:
    """2 q_o wait >= TPOT, given z_o: wait = ceil(TPOT / (2 q_o))."""
    for s in p.slots:
        for o, z in enumerate(s.point):
            q = p.problem.points[o].micro_batches
            p.model.add(2 * q * s.wait >= s.tpot).only_enforce_if(z)


def prefill_limit(p: Program) -> None:
    """Pi <= limit."""
    limit = p.problem.bounds.prefill_ns
    if limit is not None:
        for s in p.slots:
            p.model.add(s.prefill <= limit)


def ttft_limit(p: Program) -> None:
    """wait + Pi <= limit."""
    limit = p.problem.bounds.ttft_ns
    if limit is not None:
        for s in p.slots:
            p.model.add(s.wait + s.prefill <= limit)


def e2e_limit(p: Program) -> None:
    """wait + Pi + ceil((O - 1) TPOT) <= limit. With O - 1 = n/d this is
    n TPOT + d (wait + Pi) <= d limit, all integers."""
    limit = p.problem.bounds.e2e_ns
    if limit is None:
        return
    rest = p.problem.output_mean - 1
    n, d = rest.numerator, rest.denominator
    for s in p.slots:
        p.model.add(n * s.tpot + d * (s.wait + s.prefill) <= d * limit)


def rate(p: Program) -> None:
    """rate = floor(sum_o M_o 10^12 z_o / TPOT), 0 when not active."""
    tokens = [point.sequences * 10**12 for point in p.problem.points]
    for s in p.slots:
        divisor = p.model.new_int_var(1, max(1, p.shape.tpot_ceiling_ns), "")
        p.model.add_max_equality(divisor, [s.tpot, 1])
        p.model.add_division_equality(s.rate, weighted(s.point, tokens), divisor)


def request_rate(p: Program) -> None:
    """sum_r rate >= request rate."""
    limit = p.problem.bounds.rate_mtok_per_s
    if limit is not None:
        p.model.add(p.goal("throughput") >= limit)


def memory_imbalance(p: Program) -> None:
    """max mem G <= (1 + delta) sum t mem."""
    memory, total = p.tables.memory, p.tables.memory_of_all
    _imbalance(p, memory, total, p.problem.bounds.memory_imbalance)


def compute_imbalance(p: Program) -> None:
    """T G <= (1 + delta) sum t tau."""
    _imbalance(p, p.tables.decode, None, p.problem.bounds.compute_imbalance)


def _imbalance(
    p: Program, table: Cube, sums: Cube | None, tolerance: Fraction | None
) -> None:
    """A variable >= max and one <= sum t v; d max g <= (d + n) sum for G = g, with
    1 + delta = (d + n) / d. ``sums`` are over the GPUs of a stage where they differ."""
    if tolerance is None:
        return
    whole = 1 + tolerance
    top = max(
        _at(table, o, a) for o in range(len(p.problem.points)) for a in p.shape.arcs
    )
    most = max(p.problem.usable_gpus, 0)
    for s in p.slots:
        largest = p.model.new_int_var(0, top, "")
        total = p.model.new_int_var(0, top * most, "")
        _maximum(p, s, table, largest)
        sizes = [p.problem.units[a.unit].gpus for a in s.arcs]
        for o, z in enumerate(s.point):
            pairs = zip(sizes, s.arcs, strict=True)
            values = [
                g * _at(table, o, a) if sums is None else _at(sums, o, a)
                for g, a in pairs
            ]
            p.model.add(total <= weighted(s.arcs.values(), values)).only_enforce_if(z)
        for gpus in range(1, most + 1):
            chosen = p.model.new_bool_var("")
            p.model.add(p.used_gpus(s) == gpus).only_enforce_if(chosen)
            p.model.add(p.used_gpus(s) != gpus).only_enforce_if(~chosen)
            left = whole.denominator * gpus * largest
            p.model.add(left <= whole.numerator * total).only_enforce_if(chosen)


def communication_share(p: Program) -> None:
    """sum comm x + sum eta h + eta_r [p > 1] <= phi S, given z_o; with phi = n/d:
    sum (d comm - n tau) x + (d - n) (sum eta h + eta_r [p > 1]) <= 0."""
    share = p.problem.bounds.communication_share
    if share is None:
        return
    n, d = share.numerator, share.denominator
    for s in p.slots:
        for o, z in enumerate(s.point):
            comm = stage_sum(p, s, p.tables.comm, o)
            tau = stage_sum(p, s, p.tables.decode, o)
            row = d * comm - n * tau + (d - n) * round_trip(p, s, o) <= 0
            p.model.add(row).only_enforce_if(z)


def spare_gpus(p: Program) -> None:
    """sum t x <= GPUs - spare_gpus."""
    total = sum(k.free_gpus for k in p.problem.classes)
    p.model.add(p.goal("gpus") <= total - p.problem.bounds.spare_gpus)


def max_gpus(p: Program) -> None:
    """sum t x <= max_gpus."""
    if p.problem.bounds.max_gpus is not None:
        p.model.add(p.goal("gpus") <= p.problem.bounds.max_gpus)


def max_cost_usd_per_hour(p: Program) -> None:
    """sum price t x <= budget."""
    budget = p.problem.bounds.max_cost_micro_usd_per_hour
    if budget is not None:
        p.model.add(p.goal("cost") <= budget)


def equal_slots_ordered(p: Program) -> None:
    """(G, point) does not grow from a slot to the next: replicas have no names."""
    ranks = [*range(1, len(p.problem.points) + 1)]
    step = len(ranks) + 1
    keys = [step * p.used_gpus(s) + weighted(s.point, ranks) for s in p.slots]
    for left, right in pairwise(keys):
        p.model.add(left >= right)


def equal_islands_ordered(p: Program) -> None:
    """Islands of one class and size fill in their order: they have no names either."""
    for group in p.problem.island_types.values():
        used = [_used_on(p, v) for v in group]
        for left, right in pairwise(used):
            p.model.add(left >= right)


def _used_on(p: Program, island: int) -> LinearExprT:
    pairs = [
        (used, x)
        for s in p.slots
        for a, x in s.arcs.items()
        if (used := p.shape.used_on(a, island))
    ]
    return weighted([x for _, x in pairs], [used for used, _ in pairs])
